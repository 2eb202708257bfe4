"""The progress of a sweep: how much is trained and written, and the time that is left."""

import heapq
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlpexp.training.planner import COMPILED_SPEEDUP

if TYPE_CHECKING:  # it imports torch, which a finished sweep does not need
    from mlpexp.sweep.work_unit import Unit

WHOLE_SWEEP = -1  # the name of a unit of all runs, for a backend that does not train unit by unit

# Seconds on the reference machine of the planner's costs. Only their ratios matter once something has been measured.
STACK_S, STACK_EPOCH_S = 0.07, 0.0018  # of a stack of any size, and of each of its epochs: Lightning's own work
FILES_S = {"run": 2.6e-3, "table": 1.5e-4}  # of a run that has trained in a stack
FILES_EPOCH_S = {"run": 3e-5, "table": 6e-6}  # for each of its epochs
ALONE_S, ALONE_EPOCH_S = 0.15, 0.02  # of a run that trains alone, and of each of its epochs

OF_HYDRA_FILES = 3.0  # a run's files take at least so many times as long as those of Hydra, on a slow disk
FAST = 0.5  # the smallest pace of writing that is inferred from training, which more threads or a GPU accelerate
PRIOR_S = 0.1  # the weight of what was to be expected, in seconds of measurement


class SweepProgress:
    """Counts what is trained and written, and estimates how long the rest takes.

    The expected seconds of a unit are those of the planner's costs and of the constants above. What is left of them is
    multiplied by the pace so far, of training, of writing and of runs alone, and is distributed over the workers, the
    longest unit first. Until a run is written, writing is expected at the pace of training.

    Args:
        units: all that is to be done; a single one with the origin `WHOLE_SWEEP` takes the progress of all names.
        workers: units that are worked on at once.
        hydra_files_s: median of the seconds that Hydra's files of a run took; None where none was written.
        clock: returns seconds.
    """

    def __init__(
        self,
        units: "Sequence[Unit]",
        workers: int = 1,
        hydra_files_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._workers = clock, workers
        self._units = {unit.origin: _UnitProgress(unit) for unit in units}
        self._waiting = sorted(self._units.values(), key=lambda unit: -unit.expected_s)  # and others; the longest first
        self._paces = {kind: _Pace(ignored=workers) for kind in ("training", "files", "alone")}
        self._slow_disk = OF_HYDRA_FILES * (hydra_files_s or 0.0) / FILES_S["run"]
        self._latest = self._started = clock()
        self._is_measured = False

    @property
    def trained_runs(self) -> float:
        """The training that is done, counted in whole runs."""
        return sum(unit.trained for unit in self._units.values())

    @property
    def written_runs(self) -> int:
        return sum(unit.written for unit in self._units.values())

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    def note(self, origin: int, trained: float, written: int = 0, seconds: float | None = None) -> None:
        """So much of a unit is done.

        Args:
            origin: its name.
            trained: in runs.
            written: runs that its worker has written; 0 where runs are noted by `note_written`.
            seconds: since its worker began with it, by the clock of the worker; None in this process.
        """
        unit = self._unit(origin)
        self._advance(unit, max(unit.trained, trained), max(unit.written, written), seconds)

    def note_written(self, origin: int) -> None:
        """A run of a unit has ended, and this process knows its outcome."""
        unit = self._unit(origin)
        unit.ended += 1
        self._advance(unit, max(unit.trained, unit.ended), max(unit.written, unit.ended))

    def seconds_left(self) -> float | None:
        """None until there is progress to measure."""
        if not self._is_measured:
            return None
        now = self._clock()
        self._waiting = [unit for unit in self._waiting if unit.since is None]
        active = [unit for unit in self._units.values() if unit.since is not None and not unit.is_done]
        ends = [max(0.0, self._left(unit) - (now - (unit.since or now))) for unit in active]
        ends += [0.0] * (self._workers - len(ends))
        heapq.heapify(ends)
        idle = now - self._latest if not active else 0.0  # the next unit has begun, and has not reported
        for unit in self._waiting:
            heapq.heapreplace(ends, ends[0] + self._left(unit))
        return max(0.0, max(ends) - idle)

    def _unit(self, origin: int) -> "_UnitProgress":
        return self._units.get(origin) or self._units[WHOLE_SWEEP]

    def _advance(self, unit: "_UnitProgress", trained: float, written: int, seconds: float | None = None) -> None:
        now, work = self._clock(), unit.work(trained, written)
        if unit.since is None:
            unit.since, unit.worker_s = (self._latest, 0.0) if seconds is None else (now - seconds, 0.0)
        if seconds is not None and seconds < unit.worker_s:
            unit.worker_s = 0.0  # another worker tries it again
        if not any(work.values()):
            return
        spent = now - unit.since if seconds is None else seconds - unit.worker_s
        whole = sum(work_s * self._pace(kind) for kind, work_s in work.items())
        for kind, work_s in work.items():
            if work_s:
                self._paces[kind].add(spent * work_s * self._pace(kind) / whole, work_s)
        unit.trained, unit.written, unit.since = trained, written, now
        unit.worker_s = unit.worker_s if seconds is None else seconds
        self._latest, self._is_measured = now, True

    def _left(self, unit: "_UnitProgress") -> float:
        work = unit.work(unit.runs, unit.runs)
        return sum(work_s * self._pace(kind) for kind, work_s in work.items() if work_s)

    def _pace(self, kind: str) -> float:
        """Measured seconds for each expected one."""
        if kind != "files":
            return self._paces[kind].value(1.0)
        return self._paces["files"].value(max(FAST, self._slow_disk, self._paces["training"].value(1.0)))


class _Pace:
    """Measured seconds for each expected one.

    Args:
        ignored: so many first measurements, which have imports in them, are replaced by later ones.
    """

    def __init__(self, ignored: int) -> None:
        self._ignored, self._count = ignored, 0
        self._spent = self._done = 0.0

    def add(self, spent: float, done: float) -> None:
        if self._count == self._ignored:
            self._spent = self._done = 0.0
        self._count += 1
        self._spent += spent
        self._done += done

    def value(self, expected: float) -> float:
        return (self._spent + PRIOR_S * expected) / (self._done + PRIOR_S)


class _UnitProgress:
    """What is done of a unit.

    Attributes:
        runs: of the unit.
        trained, written: runs of which training and writing are done.
        ended: runs whose outcomes this process knows.
        since: when it was noted last, or when the unit began; None before.
        worker_s: the same by the clock of its worker, from the beginning of the unit.
    """

    def __init__(self, unit: "Unit") -> None:
        cfg = unit.jobs[0].config
        self.runs, self.alone = len(unit.jobs), unit.alone
        self.trained = self._before = unit.trained_share * self.runs
        self.written = self.ended = 0
        self.since: float | None = None
        self.worker_s = 0.0
        if unit.alone:
            self._training_s, self._files_s = _alone_s(unit) / self.runs, 0.0
        else:
            epochs = max(job.config.trainer.max_epochs for job in unit.jobs)
            is_compiled = cfg.stack.engine == "compiled"
            steps = unit.cost / ((COMPILED_SPEEDUP if is_compiled else 1.0) * cfg.stack_threads)
            self._training_s = STACK_EPOCH_S * epochs * (1 - unit.trained_share) + steps  # of the whole unit
            self._files_s = FILES_S[cfg.record] + FILES_EPOCH_S[cfg.record] * epochs  # of each run
        self.expected_s = sum(self.work(self.runs, self.runs).values())

    @property
    def is_done(self) -> bool:
        return self.written >= self.runs

    def work(self, trained: float, written: int) -> dict[str, float]:
        """Expected seconds, by kind, from the present state to this one."""
        if self.alone:
            return {"alone": (written - self.written) * self._training_s}
        share = (trained - self.trained) / max(1e-9, self.runs - self._before)
        start = STACK_S if share > 0 and self.trained == self._before else 0.0
        return {"training": start + share * self._training_s, "files": (written - self.written) * self._files_s}


def _alone_s(unit: "Unit") -> float:
    return sum(ALONE_S + ALONE_EPOCH_S * job.config.trainer.max_epochs for job in unit.jobs)
