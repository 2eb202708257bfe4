"""Training of a unit in another process than the sweep's, and the retry of units whose worker was lost."""

import contextlib
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import setup_globals

from mlpexp import data
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, RunsFailed
from mlpexp.runtime.process_pool import GRACE_S
from mlpexp.store import stack_states
from mlpexp.store.file_names import BEFORE_TRAINING, WEIGHTS_BY_EPOCH
from mlpexp.store.identity import identity
from mlpexp.store.run_state import State, inspect
from mlpexp.store.worker_session import Gone, Progress, Session
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.jobs import Outcome, failed
from mlpexp.sweep.work_unit import Unit, identities, load_plugins, work
from mlpexp.training import trainer_setup

ATTEMPTS = 2  # at a unit as a whole, before it is halved
MAX_IDLE_LOSSES = 6  # workers in a row that were lost before they began
WATCH_S = 0.5
CHECK_S = 0.2  # between two checks whether the sweep still goes on
REPORT_S = 0.5  # between two reports of the progress
_one_at_a_time = threading.Lock()  # torch's threads, logging and the working directory belong to the whole process

PlacedOutcomes = list[tuple[int, Outcome]]
"""place in the sweep and outcome of each run"""


@dataclass(frozen=True, kw_only=True)
class RemoteWorker:
    """Trains units in another process.

    Attributes:
        home: the working directory of the sweep, to which paths are relative.
        prepare: called before each unit.
        is_ours: the process works for this sweep only, and may be ended when the sweep has gone.
    """

    session: Session
    home: str
    prepare: Callable[[], None] | None
    is_ours: bool

    def __call__(self, unit: Unit) -> PlacedOutcomes:
        """Train a unit; runs of it that another worker has finished are not trained again.

        Raises:
            Lost: stopped from outside, or the sweep has gone.
            UserError: a plugin is not there, or has changed.
            OSError: the disk is full or broken.
        """
        with _one_at_a_time, contextlib.ExitStack() as surroundings:
            try:
                report = surroundings.enter_context(self.session.writing(unit.origin))
                if Path(self.home).is_dir():
                    surroundings.enter_context(contextlib.chdir(self.home))
                surroundings.enter_context(signals.interruptible())
                surroundings.enter_context(trainer_setup.quiet())
                if self.prepare is not None:
                    self.prepare()
                setup_globals()  # Hydra's resolvers
                load_plugins(unit)
                if self.is_ours:
                    surroundings.enter_context(_exit_after(self.session))
                ended, remaining = _unfinished(unit)
                reporter = _Reporter(report, len(ended))
                if remaining.jobs:
                    check = _Throttled(self.session.check, CHECK_S)
                    for outcome in work([remaining], reporter.trained, check):
                        ended.append(outcome)
                        reporter.written()
                        check()
                reporter.report()
            except (Gone, Interrupted, SystemExit, KeyboardInterrupt) as stop:
                raise Lost(f"{type(stop).__name__}: {stop}") from None
        return [(place, _portable(outcome)) for place, outcome in ended]


@contextlib.contextmanager
def _exit_after(session: Session) -> Iterator[None]:
    """While the block runs, end this process soon after the session has ended; files are whole or absent."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(WATCH_S):
            try:
                with contextlib.suppress(OSError):  # unreadable is not gone; the training meets the same error
                    session.check()
            except Gone:
                finished.wait(GRACE_S)  # to finish the epoch and save
                os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the sweep").start()
    try:
        yield
    finally:
        finished.set()


def _unfinished(unit: Unit) -> tuple[PlacedOutcomes, Unit]:
    """The outcomes of runs that an earlier worker has finished, and the unit of the others, whose files are removed."""
    done: PlacedOutcomes = []
    rows: list[int] = []
    for row, (place, job) in enumerate(zip(unit.places, unit.jobs, strict=True)):
        if not os.path.lexists(job.place):  # as of all new runs with record=table
            rows.append(row)
            continue
        surveyed = inspect(job.directory, identity(job.config, data.digest(job.config.data)))
        if surveyed.state is State.DONE:
            done.append((place, Outcome(result=surveyed.result)))
            continue
        if surveyed.state is not State.NEW:
            for path in job.directory.iterdir():
                # the weights of earlier epochs are those of a run that continues, which removes what it does not keep
                if path.name not in (*BEFORE_TRAINING, WEIGHTS_BY_EPOCH):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        rows.append(row)
    return done, unit.part(rows)


def _portable(outcome: Outcome) -> Outcome:
    """The same outcome with an error that can be pickled."""
    error = outcome.error
    if error is None:
        return outcome
    try:
        copy = pickle.loads(pickle.dumps(error))
        is_whole = type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        is_whole = False
    return outcome if is_whole else replace(outcome, error=RuntimeError(f"{type(error).__name__}: {error}"))


class _Throttled:
    """Passes a call on to `function` at most once in `every_s` seconds, and drops the others."""

    def __init__(self, function: Callable[..., None], every_s: float) -> None:
        self._function, self._every_s, self._called_at = function, every_s, float("-inf")

    def __call__(self, *arguments: Any) -> None:
        if time.monotonic() - self._called_at >= self._every_s:
            self._called_at = time.monotonic()
            self._function(*arguments)


class _Reporter:
    """Reports the progress of a unit to the main process, while it goes on once in `REPORT_S` seconds.

    Args:
        report: of `Session.writing`.
        written: runs that an earlier worker has finished.
    """

    def __init__(self, report: Callable[[Progress], None], written: int) -> None:
        self._report, self._throttled = report, _Throttled(self.report, REPORT_S)
        self._began_s, self._before = time.monotonic(), written
        self._trained, self._written = float(written), written
        self.report()

    def trained(self, _: int, runs: float) -> None:
        self._trained = self._before + runs
        self._throttled()

    def written(self) -> None:
        self._written += 1
        self._throttled()

    def report(self) -> None:
        self._report(Progress(self._trained, self._written, time.monotonic() - self._began_s))


class Lost(Exception):
    """A worker could not finish its unit: it was killed, or stopped from outside."""


class LostWorkers:
    """Retries the units of lost workers: as a whole, then in halves, down to the single run that ends its workers.

    Args:
        worker: what is lost, as the subject of a warning.
    """

    def __init__(self, session: Session, watcher: Watcher, worker: str) -> None:
        self._session, self._watcher, self._worker = session, watcher, worker
        self._idle_losses = 0

    def retry(self, unit: Unit, error: object) -> tuple[list[Unit], PlacedOutcomes]:
        """The units to try next, and the outcome of the run that is given up.

        Raises:
            RunsFailed: several workers in a row were lost before they began to train.
        """
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        if self._session.progress(unit.origin) is None:
            self._idle_losses += 1
            if self._idle_losses == MAX_IDLE_LOSSES:
                raise RunsFailed(f"{MAX_IDLE_LOSSES} workers were lost before they began to train: {reason}")
            self._warn(unit, reason, "tried again")
            return [unit], []
        self._idle_losses = 0
        self._session.forget(unit.origin)
        saved = _epochs_saved(unit)
        # a worker that has got further than the one before was stopped from outside, e.g. by its time limit
        losses = unit.losses + (saved <= unit.saved)
        unit = replace(unit, losses=losses, saved=saved)
        if losses < ATTEMPTS:
            self._warn(unit, reason, "tried again")
            return [unit], []
        if len(unit.jobs) > 1:
            self._warn(unit, reason, "tried again in halves")
            # one more loss, and they are halved again
            return [replace(half, losses=ATTEMPTS - 1, saved=_epochs_saved(half)) for half in unit.halves()], []
        self._warn(unit, reason, "given up")
        return [], [(unit.places[0], failed(unit.jobs[0], Lost(f"its worker was lost {losses} times: {reason}")))]

    def _warn(self, unit: Unit, reason: str, consequence: str) -> None:
        count = len(unit.jobs)
        runs = f"its run {unit.jobs[0].directory.name} is" if count == 1 else f"its {count:,} runs are"
        self._watcher.warn(f"{self._worker} was lost ({reason}); {runs} {consequence}")


def report_progress(session: Session, units: Sequence[Unit], watcher: Watcher) -> None:
    """Pass the progress of units on to the watcher."""
    for unit in units:
        if (progress := session.progress(unit.origin)) is not None:
            watcher.progress(unit.origin, *progress)


def _epochs_saved(unit: Unit) -> int:
    saved = {} if unit.sweep is None or unit.alone else stack_states.saved_runs(unit.sweep)
    return sum(saved[identity].epochs for identity in identities(unit) if identity in saved) if saved else 0
