"""What the conductor of a sweep asks of a place to train at, and how it gets one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mlpexp.store import worker_session
from mlpexp.sweep.backends.launcher_settings import Settings
from mlpexp.sweep.run_jobs import Outcome
from mlpexp.sweep.work_unit import Unit


class Watcher(Protocol):
    """Is told how it goes."""

    def epoch(self, runs: float) -> None:
        """A stack has advanced by so much, counted in whole runs; told only where that costs nothing."""

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


@contextmanager
def opened(settings: Settings, directory: Path, prepare: Callable[[], None] | None) -> Iterator[Backend]:
    """The backend that `settings` name, for the sweep in `directory`; its workers end with the block.

    Args:
        prepare: a function of a module, called in each worker process before it works.

    Raises:
        UserError: it cannot be had.
    """
    if settings.backend == "process":
        from mlpexp.sweep.backends.in_process import Here

        yield Here()
        return
    with worker_session.conducting(directory) as session:
        match settings.backend:
            case "fork" | "loky":
                from mlpexp.sweep.backends.process_pool import Workers

                yield Workers(settings, session, prepare)
            case "dask":
                from mlpexp.sweep.backends.dask_backend import connected

                with connected(settings, session, prepare) as cluster:
                    yield cluster
            case _:
                from mlpexp.sweep.backends.submitit_backend import Submitit

                yield Submitit(settings, session, prepare)
