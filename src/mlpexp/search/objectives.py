"""Objectives of a search: which metrics, in which direction, and their values for a trial."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hydra.core.utils import JobReturn, JobStatus

from mlpexp.nn.metrics import METRICS, higher_is_better
from mlpexp.runtime.errors import UserError, described
from mlpexp.store import run_directory
from mlpexp.store.run_directory import FINITE, Result

OTHERS = ("num_parameters", "seconds")


class Measured(NamedTuple):
    """The outcome of a trial.

    Attributes:
        values: the objectives, each the mean over the trial's runs; None where a run has none.
        problem: why there are none.
        may_recover: a run raised an error and may succeed another time; a diverged run would diverge again.
        epochs: after which halving stopped a run, if it did.
    """

    values: list[float] | None
    problem: str = ""
    may_recover: bool = False
    epochs: int | None = None


def check(names: Sequence[str], allowed: Sequence[str]) -> None:
    """
    Args:
        allowed: the columns that each epoch has; `OTHERS` are possible beside them.

    Raises:
        UserError: an unknown objective, one given twice, or none.
    """
    allowed = (*allowed, *OTHERS)
    for name in names:
        if name.startswith("test/"):
            raise UserError(
                f"objective {name}: test/* cannot be an objective, since there would be no test left; "
                f"choose {' or '.join(name for name in allowed if name.startswith('val/'))}"
            )
        if name not in allowed:
            metric = name.partition("/")[2]
            hint = f"; record it with metrics=[{metric}]" if name.startswith("val/") and metric in METRICS else ""
            raise UserError(f"unknown objective '{name}'; choose among {', '.join(allowed)}{hint}")
    if not names or len(set(names)) < len(names):
        raise UserError("hydra.sweeper.objectives names each objective once, e.g. [val/acc,num_parameters]")


def directions(names: Sequence[str]) -> list[Literal["minimize", "maximize"]]:
    """`maximize` for metrics of which more is better, `minimize` for all others."""
    return ["maximize" if name not in OTHERS and higher_is_better(name) else "minimize" for name in names]


def measured(ended: Sequence[JobReturn], names: Sequence[str]) -> Measured:
    """The outcome of a trial, from what the launcher returns for its runs."""
    rows: list[list[float]] = []
    epochs = None
    for job in ended:
        if job.status == JobStatus.FAILED:
            return Measured(None, described(job._return_value), may_recover=True)
        result = _result(job)
        row = [_value(result, name) for name in names]
        if result.status == "diverged" or not all(map(math.isfinite, row)):
            return Measured(None, result.message or "a metric is not finite")
        if result.status not in FINITE:
            epochs = result.epochs
        rows.append(row)
    return Measured([math.fsum(column) / len(rows) for column in zip(*rows, strict=True)], epochs=epochs)


def _result(job: JobReturn) -> Result:
    """The result of a run, whichever launcher ran it.

    Raises:
        UserError: the run has left no result.
    """
    if (result := getattr(job, "result", None)) is not None:
        return result  # mlpexp's launcher knows it
    return run_directory.read_result(Path(job.hydra_cfg.hydra.runtime.output_dir))  # type: ignore[union-attr]


def _value(result: Result, name: str) -> float:
    if name == "num_parameters":
        return float(result.num_parameters)
    if name == "seconds":
        return result.seconds["fit"]
    return result.objective if name == result.monitor else result.metrics.get(name, math.nan)
