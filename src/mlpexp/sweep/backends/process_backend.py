"""Worker processes of this machine, forked or started by loky."""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime import signals
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.process_pool import ForkPool, begin, missing_semaphores
from mlpexp.store.worker_session import Session
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.backends.remote_workers import Lost, LostWorkers, PlacedOutcomes, RemoteWorker, report_progress
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.work_unit import Unit

# libraries start with one thread in a worker; a stack then sets the number that its configuration gives
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
POLL_S = 0.5


class ProcessPool:
    """A `Backend` of worker processes. Each worker is a pool of its own: loky gives up a pool when one worker ends.

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
        waiting = deque(
            sorted(units, key=lambda unit: -unit.cost)
        )  # the longest first, so that all workers end at about the same time
        free = [self._pool() for _ in range(min(self.workers, len(units)))]
        working: dict[Future[PlacedOutcomes], tuple[Unit, Any]] = {}
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
                        retries, failures = lost.retry(unit, error)
                        waiting.extend(retries)
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
