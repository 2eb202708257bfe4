"""What a backend is, and which one a configuration names.

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
        return work(units, watcher.progress)


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
                from mlpexp.sweep.backends.process_backend import ProcessPool

                yield ProcessPool(settings, session, prepare)
            case "dask":
                from mlpexp.sweep.backends.dask_backend import connected

                with connected(settings, session, prepare) as cluster:
                    yield cluster
            case "submitit":
                from mlpexp.sweep.backends.submitit_backend import Submitit

                yield Submitit(settings, session, prepare)
            case unknown:
                raise ValueError(f"unknown backend {unknown!r}")
