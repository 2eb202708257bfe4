"""Predicts classes and probabilities, or values, of new samples in a table or in images; prints CSV."""

import argparse
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime import output_streams
from mlpexp.runtime.shell_commands import plain
from mlpexp.runtime.terminal import say
from mlpexp.store import atomic_files


def main() -> None:
    args = _parser().parse_args()
    choice = argument_parsers.ensemble_choice(args)

    from mlpexp.evaluation import locate_run

    if args.out is not None:
        locate_run.check_output_path(args.out, force=args.force)

    from mlpexp.evaluation.predict import predict  # torch: late, so that --help is fast

    predictions = predict(args.run, args.data, weights=args.weights, top=args.top, choice=choice)
    for remark in predictions.remarks:
        say(f"note: {remark}", error=True)
    content = predictions.csv(args.top)
    if args.out is None:
        output_streams.write_result(content)
    else:
        atomic_files.write(args.out, content)
        count = len(predictions.names)
        say(f"{count:,} sample{'s' * (count != 1)} predicted, in {args.out}", error=True)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.trained_run_parser(
        __doc__, f"{plain('predict.py')} outputs/DATE/TIME --data new.csv --top 3"
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="a CSV or Parquet file with the columns of the training data, or images (PNG, JPEG)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the CSV there (default: to stdout)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--top", type=int, metavar="K", help="only the K most probable classes of each sample")
    return parser


if __name__ == "__main__":
    exit_codes.run(main)
