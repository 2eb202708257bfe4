"""The options of evaluate, predict and export that take an ensemble of a sweep's runs in place of one run."""

import argparse
from typing import TYPE_CHECKING

from mlpexp.runtime.errors import UserError

if TYPE_CHECKING:
    from mlpexp.evaluation.ensemble_members import Choice

ALL = "all"


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
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


def choice(given: argparse.Namespace) -> "Choice | None":
    """How the ensemble is chosen; None for a single run.

    Raises:
        UserError: options do not go together.
    """
    if given.ensemble is None:
        for option, value in (("--ensemble-by", given.ensemble_by), ("--where", given.where)):
            if value:
                raise UserError(f"{option} is for ensembles; add --ensemble N, e.g. --ensemble 10, or leave it out")
        return None
    if given.weights is not None:
        raise UserError(
            f"--weights {given.weights} is for single runs; members of an ensemble have the weights that they were "
            "tested with: leave it out"
        )
    from mlpexp.evaluation.ensemble_members import Choice

    count = None if given.ensemble == ALL else given.ensemble
    return Choice(count=count, by=given.ensemble_by or "best", where=tuple(given.where))


def _count(text: str) -> int | str:
    if text == ALL:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of members; give 1 or more, or all")
    return int(text)
