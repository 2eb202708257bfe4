"""The protocol of a backend, and the choice of one by the configuration.

The files of a sweep and their bits are the same with every backend.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mlpexp.config.launcher_settings import Settings
from mlpexp.store import worker_session
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.work_unit import Unit, work


class Watcher(Protocol):
    """Receives the progress of a backend, for display."""

    def progress(self, unit: int, trained: float, written: int = 0, seconds: float | None = None) -> None:
        """Report how much of the unit with this origin is done.

        Args:
            trained: in runs.
            written: runs that a worker process has written, whose outcomes come later.
            seconds: since the worker process began with the unit.
        """

    def warn(self, line: str) -> None:
        """Display a warning, e.g. that a worker was lost."""


class Backend(Protocol):
    """Works on units, in any order.

    Attributes:
        workers: how many units it works on at once.
    """

    workers: int

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        """Yield each run's place and outcome soon after it has ended; closing the iterator stops the remaining units.

        Raises:
            Interrupted: stopped by a signal.
        """
        ...


class InProcess:
    """A `Backend`: one unit after the other, in this process."""

    workers = 1

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        return work(units, watcher.progress)


@contextmanager
def open_backend(settings: Settings, directory: Path, prepare: Callable[[], None] | None) -> Iterator[Backend]:
    """The backend that `settings` name, for the sweep in `directory`; its workers end at the end of the block.

    Args:
        prepare: a module-level function that each worker process calls before its first unit.

    Raises:
        UserError: the backend is not available.
    """
    if settings.backend == "process":
        yield InProcess()
        return
    with worker_session.open_session(directory) as session:
        match settings.backend:
            case "fork" | "loky":
                from mlpexp.sweep.backends.process_backend import ProcessPool

                yield ProcessPool(settings, session, prepare)
            case "dask":
                from mlpexp.sweep.backends.dask_backend import open_dask

                with open_dask(settings, session, prepare) as cluster:
                    yield cluster
            case "submitit":
                from mlpexp.sweep.backends.submitit_backend import Submitit

                yield Submitit(settings, session, prepare)
            case unknown:
                raise ValueError(f"unknown backend {unknown!r}")
