"""Parsers of the scripts' arguments; evaluate, predict and export take a run, or an ensemble of a sweep's runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlpexp.runtime.errors import UserError
from mlpexp.runtime.shell_commands import program

if TYPE_CHECKING:
    from mlpexp.evaluation.ensemble_members import Choice

ALL = "all"


def parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """
    Args:
        description: the docstring of the script.
        example: a command.
    """
    return argparse.ArgumentParser(prog=program(), description=description, epilog=f"example: {example}")


def trained_run_parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """As `parser`, with the run, its checkpoint, and the choice of an ensemble, see `ensemble_choice`."""
    options = parser(description, example)
    options.add_argument("run", type=Path, metavar="RUN", help="a run's directory, or a checkpoint")
    options.add_argument(
        "--weights", choices=("best", "last"), help="which checkpoint (default: the one that the run was tested with)"
    )
    group = options.add_argument_group(
        "ensembles", "RUN is a sweep's directory; members are chosen by validation, never by the test part"
    )
    group.add_argument("--ensemble", type=_count, metavar="N", help="average so many of its runs, or all")
    group.add_argument(
        "--ensemble-by",
        choices=("best", "greedy", "seeds"),
        help="best: the best runs (default); greedy: N picks with replacement that lower the validation loss of the "
        "ensemble; seeds: runs of the best configuration",
    )
    group.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this value of a swept key (or VALUE,VALUE); may be given several times",
    )
    return options


def ensemble_choice(arguments: argparse.Namespace) -> "Choice | None":
    """How the ensemble is chosen; None for a single run.

    Raises:
        UserError: options do not go together.
    """
    if arguments.ensemble is None:
        for option, value in (("--ensemble-by", arguments.ensemble_by), ("--where", arguments.where)):
            if value:
                raise UserError(f"{option} is for ensembles; add --ensemble N, e.g. --ensemble 10, or leave it out")
        return None
    if arguments.weights is not None:
        raise UserError(
            f"--weights {arguments.weights} is for single runs; members of an ensemble have the weights that they were "
            "tested with: leave it out"
        )
    from mlpexp.evaluation.ensemble_members import Choice

    count = None if arguments.ensemble == ALL else arguments.ensemble
    return Choice(count=count, by=arguments.ensemble_by or "best", where=tuple(arguments.where))


def _count(text: str) -> int | str:
    if text == ALL:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of members; give 1 or more, or all")
    return int(text)
