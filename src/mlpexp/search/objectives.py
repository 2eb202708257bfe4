"""What makes one trial better than another, and where a run says it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hydra.core.utils import JobReturn, JobStatus

from mlpexp.runtime.errors import UserError
from mlpexp.store import run_directory
from mlpexp.store.run_directory import FINITE, METRIC_NAMES, Result

OTHERS = ("num_parameters", "seconds")


class Measured(NamedTuple):
    """What a trial's runs amount to.

    Attributes:
        values: of the objectives, the mean over the trial's runs; None where there are none.
        problem: why there are none.
        may_recover: it raised an error and may succeed another time; a diverged run would diverge again.
        epochs: after which it had to leave, if it did.
    """

    values: list[float] | None
    problem: str = ""
    may_recover: bool = False
    epochs: int | None = None


def directions(names: Sequence[str]) -> list[Literal["minimize", "maximize"]]:
    """`maximize` for accuracies, `minimize` for all else.

    Raises:
        UserError: an unknown objective, one twice, or none.
    """
    allowed = (*METRIC_NAMES, *OTHERS)
    for name in names:
        if name.startswith("test/"):
            raise UserError(
                f"objective {name}: who chooses by the test set has no test left; choose val/loss or val/acc"
            )
        if name not in allowed:
            raise UserError(f"unknown objective '{name}'; choose among {', '.join(allowed)}")
    if not names or len(set(names)) < len(names):
        raise UserError("hydra.sweeper.objectives names each objective once, e.g. [val/acc,num_parameters]")
    return ["maximize" if name.endswith("acc") else "minimize" for name in names]


def measured(ended: Sequence[JobReturn], names: Sequence[str]) -> Measured:
    """The objectives of a trial, from what the launcher gives back for its runs."""
    rows: list[list[float]] = []
    epochs = None
    for one in ended:
        if one.status == JobStatus.FAILED:
            error = one._return_value
            return Measured(None, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", may_recover=True)
        result = result_of(one)
        row = [_value(result, name) for name in names]
        if result.status == "diverged" or not all(map(math.isfinite, row)):
            return Measured(None, result.message or "a metric is not finite")
        if result.status not in FINITE:
            epochs = result.epochs
        rows.append(row)
    return Measured([math.fsum(column) / len(rows) for column in zip(*rows, strict=True)], epochs=epochs)


def result_of(ended: JobReturn) -> Result:
    """How a run ended, whichever launcher ran it.

    Raises:
        UserError: the run has left no result.
    """
    if (result := getattr(ended, "result", None)) is not None:
        return result  # ours knows it
    return run_directory.read_result(Path(ended.hydra_cfg.hydra.runtime.output_dir))  # type: ignore[union-attr]


def _value(result: Result, name: str) -> float:
    if name == "num_parameters":
        return float(result.num_parameters)
    if name == "seconds":
        return result.seconds["fit"]
    return result.objective if name == result.monitor else result.metrics.get(name, math.nan)
