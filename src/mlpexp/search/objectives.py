"""Objectives of a search: which metrics, in which direction, and their values for a trial."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hydra.core.utils import JobReturn, JobStatus

from mlpexp.config.schema import Config
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.metric_columns import higher_is_better
from mlpexp.nn.metrics import METRICS
from mlpexp.runtime.errors import UserError, described
from mlpexp.store import run_directory
from mlpexp.store.run_directory import FINITE, Result
from mlpexp.sweep.jobs import Outcome

OTHERS = ("num_parameters", "seconds")


class Measured(NamedTuple):
    """The outcome of a trial.

    Attributes:
        values: the objectives, each the mean over the trial's runs; None where a run has none.
        problem: why there are none.
        may_recover: a run raised an error and may succeed another time; a diverged run would diverge again.
        epochs: after which a run was stopped before its end, if one was.
        by_run: the objectives of each run, where the trial has values.
    """

    values: list[float] | None
    problem: str = ""
    may_recover: bool = False
    epochs: int | None = None
    by_run: Sequence[Sequence[float]] = ()


def check(names: Sequence[str], possible: Sequence[str]) -> None:
    """
    Args:
        possible: the columns that each epoch has; `OTHERS` are possible beside them.

    Raises:
        UserError: an unknown objective, one given twice, or none.
    """
    possible = (*possible, *OTHERS)
    for name in names:
        if name.startswith("test/"):
            raise UserError(
                f"objective {name}: test/* cannot be an objective, since there would be no test left; "
                f"choose {' or '.join(name for name in possible if name.startswith('val/'))}"
            )
        if name not in possible:
            metric = name.partition("/")[2]
            hint = f"; record it with metrics=[{metric}]" if name.startswith("val/") and metric in METRICS else ""
            raise UserError(f"unknown objective '{name}'; choose among {', '.join(possible)}{hint}")
    if not names or len(set(names)) < len(names):
        raise UserError("hydra.sweeper.objectives names each objective once, e.g. [val/acc,num_parameters]")


def directions(names: Sequence[str]) -> list[Literal["minimize", "maximize"]]:
    """`maximize` for metrics of which more is better, `minimize` for all others."""
    return ["maximize" if name not in OTHERS and higher_is_better(name) else "minimize" for name in names]


def outcome(job: JobReturn) -> Outcome:
    """The outcome of a run, whichever launcher ran it.

    Raises:
        UserError: the run has left no result.
    """
    if job.status == JobStatus.FAILED:
        return Outcome(error=job._return_value)
    if (result := getattr(job, "result", None)) is not None:
        return Outcome(result=result)  # mlpexp's launcher knows it
    directory = Path(job.hydra_cfg.hydra.runtime.output_dir)  # type: ignore[union-attr]
    return Outcome(result=run_directory.read_result(directory))


def measured(runs: Sequence[Outcome], names: Sequence[str]) -> Measured:
    """The outcome of a trial, from those of its runs."""
    rows: list[list[float]] = []
    epochs = None
    for run in runs:
        if run.error is not None:
            return Measured(None, described(run.error), may_recover=True)
        result = run.result
        assert result is not None
        row = [_value(result, name) for name in names]
        if result.status == "diverged" or not all(map(math.isfinite, row)):
            return Measured(None, result.message or "a metric is not finite")
        if result.status not in FINITE:
            epochs = result.epochs
        rows.append(row)
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    return Measured(means, epochs=epochs, by_run=rows)


def has_diverged(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether a loss of the last epoch is not finite."""
    return any(not math.isfinite(value) for name, value in history[-1].items() if name.endswith("/loss"))


def reached(history: Sequence[Mapping[str, float]], name: str, cfg: Config) -> float:
    """The objective of a run that would end with the last epoch of `history`; NaN where it is not defined yet."""
    progress = Progress.of(cfg.monitor, cfg.early_stopping, cfg.first_epoch)
    for epoch, row in enumerate(history):
        progress.update(epoch, row[cfg.monitor])
    if name == cfg.monitor:
        return progress.best_value
    best = progress.best_epoch if cfg.test_weights == "best" else None
    return history[-1 if best is None else best][name]


def _value(result: Result, name: str) -> float:
    if name == "num_parameters":
        return float(result.num_parameters)
    if name == "seconds":
        return result.seconds["fit"]
    return result.objective if name == result.monitor else result.metrics.get(name, math.nan)
