"""Worker processes on this machine, by joblib's loky: copies of this one, or new ones that import everything."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from joblib.externals.loky import process_executor as loky

from mlpexp.store.worker_session import Session
from mlpexp.sweep.backends.base import Watcher
from mlpexp.sweep.backends.launcher_settings import Settings
from mlpexp.sweep.backends.lost_workers import Losses, again, told
from mlpexp.sweep.backends.remote_work import Away, Ended, Lost, begin
from mlpexp.sweep.run_jobs import Outcome
from mlpexp.sweep.work_unit import Unit

# a worker's libraries start with one thread; a stack then sets what its configuration says
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Workers:
    """A `Backend`. Each worker is a pool of its own: loky gives up a whole pool when one of its workers dies."""

    def __init__(self, settings: Settings, session: Session, prepare: Callable[[], None] | None) -> None:
        self.workers = settings.num_workers
        self._copies = settings.backend == "fork"
        self._away = Away(session=session, home=str(Path.cwd()), prepare=prepare, is_ours=True)

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        waiting = deque(sorted(units, key=lambda unit: -unit.cost))  # the long ones first, for an even end
        free = [self._pool() for _ in range(min(self.workers, len(units)))]
        working: dict[Future[Ended], tuple[Unit, Any]] = {}
        pools, losses = list(free), Losses()
        try:
            while waiting or working:
                while free and waiting:
                    unit, pool = waiting.popleft(), free.pop()
                    working[pool.submit(self._away, unit.packed())] = unit, pool
                for future in wait(working, return_when=FIRST_COMPLETED).done:
                    unit, pool = working.pop(future)
                    try:
                        yield from future.result()
                        losses.succeeded()
                    except (BrokenProcessPool, Lost) as error:
                        losses.lost(error)
                        watcher.warn(told(unit, "a worker process", error))
                        pool.shutdown(wait=True, kill_workers=True)
                        pools.remove(pool)
                        pool = self._pool()
                        pools.append(pool)
                        pieces, failures = again(unit)
                        waiting.extend(pieces)
                        yield from failures
                    free.append(pool)
        finally:
            for pool in pools:
                pool.shutdown(wait=True, kill_workers=True)

    def _pool(self) -> Any:
        if self._copies:
            context = multiprocessing.get_context("fork")
            return _Copy(max_workers=1, mp_context=context, initializer=begin, initargs=(os.getpid(),))
        return loky.ProcessPoolExecutor(max_workers=1, initializer=begin, initargs=(os.getpid(),), env=ONE_THREAD)


class _Copy(futures.ProcessPoolExecutor):
    """A copy of this process, which has imported everything. (loky does not copy; the standard pool does not kill.)"""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        if kill_workers:
            for process in list((self._processes or {}).values()):
                process.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)
