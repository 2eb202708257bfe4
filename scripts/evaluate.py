"""Evaluates a run, or an ensemble of runs, on its test part or on other data: metrics, tables and figures."""

import argparse
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.shell_commands import plain


def main() -> None:
    args = _parser().parse_args()
    choice = argument_parsers.ensemble_choice(args)

    from mlpexp.evaluation import evaluate, evaluate_ensemble, evaluation_console  # late, so that --help is fast

    if choice:
        result = evaluate_ensemble.write(args.run, choice, args.part, args.data, args.out)
        evaluation_console.show_ensemble(result)
        return

    evaluation = evaluate.evaluate(
        args.run,
        weights=args.weights,
        part=args.part,
        data=args.data,
        out=args.out,
        embed=not args.no_embedding,
    )
    evaluation_console.show(evaluation)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.trained_run_parser(__doc__, f"{plain('evaluate.py')} outputs/DATE/TIME --part val")
    parser.add_argument("--part", choices=("test", "val", "train", "all"), help="of the run's own data (default: test)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="other samples: a CSV or Parquet file with the same columns"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/evaluation)")
    parser.add_argument(
        "--no-embedding",
        action="store_true",
        help="leave out PCA, t-SNE and the Projector, which take most of the time",
    )
    return parser


if __name__ == "__main__":
    exit_codes.run(main)
