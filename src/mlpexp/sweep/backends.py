"""Where the stacks of a sweep are trained: in this process, by several processes, or on a cluster.

The files and their bits are the same everywhere.
"""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime import signals
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.process_pool import ForkPool, begin, missing_semaphores
from mlpexp.store import worker_session
from mlpexp.store.worker_session import Session
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.remote_workers import Ended, Lost, LostWorkers, RemoteWorker, Watcher, report_progress
from mlpexp.sweep.work_unit import Unit, work

# a worker's libraries start with one thread; a stack then sets what its configuration says
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
POLL_S = 0.5


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


class ProcessPool:
    """A `Backend`. Each worker is a pool of its own: loky gives up a whole pool when one of its workers ends.

    Raises:
        UserError: this system has no semaphores to spare.
    """

    def __init__(self, settings: Settings, session: Session, prepare: Callable[[], None] | None) -> None:
        if reason := missing_semaphores():
            raise UserError(
                f"hydra.launcher.backend={settings.backend} needs semaphores, and there are none ({reason}); make room "
                "in /dev/shm, or train in this process with hydra.launcher.backend=process"
            )
        self.workers = settings.num_workers
        self._forks = settings.backend == "fork"
        self._session = session
        self._worker = RemoteWorker(session=session, home=str(Path.cwd()), prepare=prepare, is_ours=True)

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        waiting = deque(sorted(units, key=lambda unit: -unit.cost))  # the long ones first, for an even end
        free = [self._pool() for _ in range(min(self.workers, len(units)))]
        working: dict[Future[Ended], tuple[Unit, Any]] = {}
        pools, lost = list(free), LostWorkers(self._session, watcher, "a worker process")
        try:
            while waiting or working:
                while free and waiting:
                    unit, pool = waiting.popleft(), free.pop()
                    with signals.blocked():  # until a worker that starts now has its handlers
                        working[pool.submit(self._worker, unit.packed())] = unit, pool
                done = wait(working, timeout=POLL_S, return_when=FIRST_COMPLETED).done
                report_progress(self._session, [unit for unit, _ in working.values()], watcher)
                for future in done:
                    unit, pool = working.pop(future)
                    try:
                        yield from future.result()
                    except (BrokenProcessPool, Lost) as error:
                        pool.shutdown(wait=True, kill_workers=True)
                        pools.remove(pool)
                        pool = self._pool()
                        pools.append(pool)
                        again, failures = lost.retry(unit, error)
                        waiting.extend(again)
                        yield from failures
                    free.append(pool)
        finally:
            self._session.dismiss()
            for pool in pools:
                pool.shutdown(wait=True, kill_workers=True)

    def _pool(self) -> Any:
        if self._forks:
            gc.freeze()  # a collection in a worker would copy every page that it shares with this process
            context = multiprocessing.get_context("fork")
            return ForkPool(max_workers=1, mp_context=context, initializer=begin, initargs=(os.getpid(),))
        from joblib.externals.loky import process_executor as loky

        return loky.ProcessPoolExecutor(max_workers=1, initializer=begin, initargs=(os.getpid(),), env=ONE_THREAD)
