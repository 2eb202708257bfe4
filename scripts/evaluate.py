"""Evaluates a run, or an ensemble of runs, on its test part or on other data: metrics, tables and figures."""

import argparse
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.shell_commands import plain


def main() -> None:
    arguments = _parser().parse_args()
    choice = argument_parsers.ensemble_choice(arguments)

    from mlpexp.evaluation import evaluate, evaluate_ensemble, evaluation_console  # late, so that --help is fast

    if choice:
        ensemble_evaluation = evaluate_ensemble.write(
            arguments.run, choice, arguments.part, arguments.data, arguments.out
        )
        evaluation_console.show_ensemble(ensemble_evaluation)
        return

    evaluation = evaluate.evaluate(
        arguments.run,
        weights=arguments.weights,
        part=arguments.part,
        data=arguments.data,
        out=arguments.out,
        embed=not arguments.no_embedding,
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
