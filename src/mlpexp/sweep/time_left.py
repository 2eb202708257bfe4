"""How long a sweep still takes: the work that is left, at the pace of the work that is done.

Work is counted in estimated seconds, so that a wide network counts for more than a narrow one: training by the
planner's estimates, and a constant for the files of a run. Only their ratios matter. The first report of progress
starts the clock, because imports, kernels and data come once, and what was trained before took no time in this start.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlpexp.training.planner import COMPILED_SPEEDUP

if TYPE_CHECKING:  # it imports torch, which a finished sweep does not need
    from mlpexp.sweep.work_unit import Unit

FILES_S = {"run": 2e-3, "table": 4e-4}  # of a run that has trained in a stack
ALONE_S, ALONE_EPOCH_S = 0.15, 0.02  # of a run that trains alone, and of each of its epochs


class TimeLeft:
    """The time that is left for some units.

    Args:
        clock: returns seconds.
    """

    def __init__(self, units: "Sequence[Unit]", clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._training = {unit.origin: _training_s(unit) for unit in units}
        self._files = {unit.origin: FILES_S[unit.jobs[0].config.record] for unit in units}
        self._runs = {unit.origin: len(unit.jobs) for unit in units}
        self._trained = dict.fromkeys(self._runs, 0.0)
        self._written = dict.fromkeys(self._runs, 0)
        self._started: tuple[float, float] | None = None
        self._latest = 0.0

    def trained(self, unit: int, runs: float) -> None:
        """So much of a unit, named by its origin, is trained, in runs; an unknown name is that of the whole sweep."""
        if unit in self._trained:
            self._trained[unit] = max(self._trained[unit], runs)
        else:
            share = runs / max(1, sum(self._runs.values()))
            self._trained = {origin: share * count for origin, count in self._runs.items()}
        self._note()

    def written(self, unit: int) -> None:
        """A run of a unit is written."""
        if unit in self._written:
            self._written[unit] += 1
            self._trained[unit] = max(self._trained[unit], float(self._written[unit]))
        self._note()

    def seconds(self) -> float | None:
        """None until there is progress to measure."""
        if self._started is None:
            return None
        began, first = self._started
        done = self._done()
        if done <= first or self._latest <= began:
            return None
        left = (self._total() - done) * (self._latest - began) / (done - first)
        return max(0.0, left - (self._clock() - self._latest))

    def _note(self) -> None:
        self._latest = self._clock()
        if self._started is None:
            self._started = self._latest, self._done()

    def _done(self) -> float:
        return sum(
            self._trained[origin] / self._runs[origin] * self._training[origin]
            + self._written[origin] * self._files[origin]
            for origin in self._runs
        )

    def _total(self) -> float:
        return sum(self._training[origin] + self._runs[origin] * self._files[origin] for origin in self._runs)


def _training_s(unit: "Unit") -> float:
    cfg = unit.jobs[0].config
    if unit.alone:
        return sum(ALONE_S + ALONE_EPOCH_S * job.config.trainer.max_epochs for job in unit.jobs)
    return unit.cost / (COMPILED_SPEEDUP if cfg.stack.engine == "compiled" else 1.0)
