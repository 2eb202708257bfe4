"""The time that a sweep still takes, estimated from its progress."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlpexp.training.planner import COMPILED_SPEEDUP

if TYPE_CHECKING:  # it imports torch, which a finished sweep does not need
    from mlpexp.sweep.work_unit import Unit

FILES_S = {"run": 2e-3, "table": 8e-4}  # of a run that has trained in a stack, on a quiet machine
OF_HYDRA_FILES = 3.0  # times what Hydra's files of a run take, which depends on the disk and on other processes
STACK_S, STACK_EPOCH_S = 0.015, 0.0018  # of a stack of any size, and of each of its epochs: Lightning's own work
SHOWN_AFTER_S = 2.0  # of progress: what a shorter time shows is not the pace of the sweep
BURST = 0.1  # runs of a unit that come within this share of the time before them were written by another process
ALONE_S, ALONE_EPOCH_S = 0.15, 0.02  # of a run that trains alone, and of each of its epochs


class TimeLeft:
    """How long a sweep still takes: the training and the writing that are left, each at its own pace so far.

    Training is counted by the planner's estimates, so that a wide network counts for more than a narrow one. The first
    report of progress starts the clock, because imports, kernels and data come once, and what was trained before took
    no time in this start. Until a run is written, writing takes a multiple of what Hydra's files have taken.
    A worker process reports the runs of a stack when it has written all of them: the time before counts as writing.

    Args:
        hydra_files_s: seconds that Hydra's files of a run took; None where none was written.
        clock: returns seconds.
    """

    def __init__(
        self,
        units: "Sequence[Unit]",
        hydra_files_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._training = {unit.origin: _training_s(unit) for unit in units}  # estimated, of what is left of each unit
        self._begun = {unit.origin: unit.trained_share * len(unit.jobs) for unit in units}
        self._files = {unit.origin: _files_s(unit, hydra_files_s) for unit in units}  # of each run
        self._runs = {unit.origin: len(unit.jobs) for unit in units}
        self._trained = dict(self._begun)
        self._written = dict.fromkeys(self._runs, 0)
        self._noted: dict[int, float] = {}  # when each unit reported last
        self._spent = {"training": 0.0, "files": 0.0}  # seconds, the sum over what goes on at once
        self._done = {"training": 0.0, "files": 0.0}  # what was to be expected for it
        self._before_first: dict[int, tuple[float, float]] = {}  # when the first run of a unit came, and after how long
        self._started: float | None = None
        self._latest = 0.0

    def trained(self, unit: int, runs: float) -> None:
        """So much of a unit, named by its origin, is trained, in runs; an unknown name is that of the whole sweep."""
        before = self._training_done()
        writes = unit in self._runs and self._trained[unit] >= self._runs[unit]
        if unit in self._trained:
            self._trained[unit] = max(self._trained[unit], runs)
        else:
            share = runs / max(1, sum(self._runs.values()))
            self._trained = {origin: share * count for origin, count in self._runs.items()}
        self._note(unit, "files" if writes else "training", self._training_done() - before)

    def written(self, unit: int) -> None:
        """A run of a unit is written."""
        before = self._training_done()
        if unit in self._written:
            self._written[unit] += 1
            self._trained[unit] = max(self._trained[unit], float(self._written[unit]))
        trained = self._training_done() - before
        if trained or self._written.get(unit) == 1:  # a run alone, without reports; the test of a stack
            spent = self._note(unit, "training", trained)
            if not trained:
                self._before_first[unit] = self._latest, spent
        else:
            self._note(unit, "files", self._files.get(unit, 0.0))
        if unit in self._before_first and 1 < self._written[unit] == self._runs[unit]:
            self._count_as_writing(unit, *self._before_first.pop(unit))

    def seconds(self) -> float | None:
        """None until there is progress of some seconds to measure."""
        if self._started is None or self._latest < self._started + SHOWN_AFTER_S:
            return None
        training = sum(self._training.values()) - self._training_done()
        files = sum((self._runs[origin] - self._written[origin]) * self._files[origin] for origin in self._runs)
        at_once = max(1.0, sum(self._spent.values()) / (self._latest - self._started))
        left = (training * self._pace("training") + files * self._pace("files")) / at_once
        return max(0.0, left - (self._clock() - self._latest))

    def _pace(self, what: str) -> float:
        """Seconds for each second that was to be expected."""
        return self._spent[what] / self._done[what] if self._done[what] else 1.0

    def _count_as_writing(self, unit: int, first: float, before: float) -> None:
        """Where all runs of a unit came at once, another process wrote them in the time before the first one.

        Args:
            first: when the first one came.
            before: seconds before it that counted as training.
        """
        if self._latest - first < BURST * before:
            self._spent["training"] -= before
            self._spent["files"] += before
            self._done["files"] += self._files[unit]

    def _note(self, unit: int, what: str, done: float) -> float:
        """Returns the seconds that it has taken."""
        now, spent = self._clock(), 0.0
        if self._started is None:
            self._started = now
        else:  # a unit that is new has begun after the note before
            spent = now - self._noted.get(unit, self._latest)
            self._spent[what] += spent
            self._done[what] += done
        self._noted[unit] = self._latest = now
        return spent

    def _training_done(self) -> float:
        return sum(
            (self._trained[origin] - self._begun[origin]) / (count - self._begun[origin]) * self._training[origin]
            for origin, count in self._runs.items()
            if count > self._begun[origin]
        )


def _training_s(unit: "Unit") -> float:
    cfg = unit.jobs[0].config
    if unit.alone:
        return sum(ALONE_S + ALONE_EPOCH_S * job.config.trainer.max_epochs for job in unit.jobs)
    epochs = max(job.config.trainer.max_epochs for job in unit.jobs) * (1 - unit.trained_share)
    steps = unit.cost / (COMPILED_SPEEDUP if cfg.stack.engine == "compiled" else 1.0)
    return STACK_S + STACK_EPOCH_S * epochs + steps


def _files_s(unit: "Unit", hydra_files_s: float | None) -> float:
    record = unit.jobs[0].config.record
    return FILES_S[record] if record == "table" or hydra_files_s is None else OF_HYDRA_FILES * hydra_files_s
