"""What the executor of a sweep asks of a backend, the default backend, and what happens when workers are lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime.errors import RunsFailed
from mlpexp.store import stack_states, worker_session
from mlpexp.store.worker_session import Session
from mlpexp.sweep.failure_record import failed
from mlpexp.sweep.run_jobs import Outcome
from mlpexp.sweep.work_unit import Unit, identities, work

ATTEMPTS = 2  # at a unit as a whole, before it is halved
MAX_IDLE_LOSSES = 6  # workers in a row that were lost before they began

Ended = list[tuple[int, Outcome]]
"""place in the sweep and outcome of each run"""


class Watcher(Protocol):
    """Shows a person how it goes."""

    def progress(self, unit: int, runs: float) -> None:
        """So much of a unit, named by its origin, is trained, counted in whole runs."""

    def warn(self, line: str) -> None:
        """Something that a person should know, e.g. that a worker was lost."""


class Backend(Protocol):
    """Works on units, in any order.

    Attributes:
        workers: how many units it works on at once.
    """

    workers: int

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        """Each run's place and outcome, soon after it has ended; closing the iterator ends what still goes on.

        Raises:
            Interrupted: stopped by a signal.
        """
        ...


class InProcess:
    """A `Backend`: one unit after the other, in this process."""

    workers = 1

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        for unit in units:
            yield from work(unit, report=partial(watcher.progress, unit.origin))


class Lost(Exception):
    """A worker could not finish its unit: it was killed, or stopped from outside."""


class LostWorkers:
    """What happens to the unit of a lost worker: another attempt, then halves, until the run that kills is found."""

    def __init__(self, session: Session, watcher: Watcher, who: str) -> None:
        self._session, self._watcher, self._who = session, watcher, who
        self._idle_losses = 0

    def retry(self, unit: Unit, error: object) -> tuple[list[Unit], Ended]:
        """What to try next, and the run that is given up.

        Raises:
            RunsFailed: workers are lost before they begin to train: something is wrong with all of them.
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

    def _warn(self, unit: Unit, reason: str, then: str) -> None:
        count = len(unit.jobs)
        runs = f"its run {unit.jobs[0].directory.name} is" if count == 1 else f"its {count:,} runs are"
        self._watcher.warn(f"{self._who} was lost ({reason}); {runs} {then}")


@contextmanager
def opened(settings: Settings, directory: Path, prepare: Callable[[], None] | None) -> Iterator[Backend]:
    """The backend that `settings` name, for the sweep in `directory`; its workers end with the block.

    Args:
        prepare: a function of a module, called in each worker process before it works.

    Raises:
        UserError: the backend is not available.
    """
    if settings.backend == "process":
        yield InProcess()
        return
    with worker_session.conducting(directory) as session:
        match settings.backend:
            case "fork" | "loky":
                from mlpexp.sweep.process_pool import ProcessPool

                yield ProcessPool(settings, session, prepare)
            case "dask":
                from mlpexp.sweep.dask_backend import connected

                with connected(settings, session, prepare) as cluster:
                    yield cluster
            case "submitit":
                from mlpexp.sweep.submitit_backend import Submitit

                yield Submitit(settings, session, prepare)
            case unknown:
                raise ValueError(f"unknown backend {unknown!r}")


def report_progress(session: Session, units: Sequence[Unit], watcher: Watcher) -> None:
    """Show how far workers are with their units."""
    for unit in units:
        if (runs := session.progress(unit.origin)) is not None:
            watcher.progress(unit.origin, runs)


def _epochs_saved(unit: Unit) -> int:
    saved = {} if unit.sweep is None or unit.alone else stack_states.saved_runs(unit.sweep)
    return sum(saved[identity].epochs for identity in identities(unit) if identity in saved) if saved else 0
