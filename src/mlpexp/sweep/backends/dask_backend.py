"""Workers of a dask cluster: of a running one, or of one that is started on this machine."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed.comm.core import connect

from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime.errors import RunsFailed, UserError
from mlpexp.store.worker_session import Session
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.backends.remote_workers import Lost, LostWorkers, RemoteWorker, report_progress
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.work_unit import Unit

CONNECT_S = 8
POLL_S = 1.0
AHEAD = 2  # units handed out per worker, so that none waits for the next


@contextmanager
def open_dask(settings: Settings, session: Session, prepare: Callable[[], None] | None) -> Iterator["Dask"]:
    """Raises `UserError`: no scheduler answers, or it has no workers."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # mlpexp has its own messages
    with ExitStack() as stack:
        address: Any = settings.address
        if address is None:
            # daemons could not start processes, as a run alone may. No failures are allowed, so that dask does not
            # repeat what a lost worker was doing: `LostWorkers` decides that.
            settings_of_dask = {"distributed.worker.daemon": False, "distributed.scheduler.allowed-failures": 0}
            stack.enter_context(dask.config.set(settings_of_dask))
            address = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=settings.num_workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            )
        else:
            _check_scheduler(address)
        client = stack.enter_context(distributed.Client(address, timeout=CONNECT_S))
        worker = RemoteWorker(session=session, home=str(Path.cwd()), prepare=prepare, is_ours=settings.address is None)
        yield Dask(client, worker)


def _check_scheduler(address: str) -> None:
    """Check that a dask scheduler listens there; `Client` would wait forever for a server of another kind.

    Raises:
        UserError: it is not a dask scheduler, or it does not answer.
    """

    async def server_type() -> str:
        security = distributed.Security().get_connection_args("client")
        comm = await connect(address, timeout=CONNECT_S, **security)
        try:
            await comm.write({"op": "identity", "reply": True})
            return str((await comm.read())["type"])
        finally:
            comm.abort()

    try:
        with ThreadPoolExecutor(1) as pool:  # this thread may have an event loop of its own, e.g. in a notebook
            server = pool.submit(lambda: asyncio.run(asyncio.wait_for(server_type(), CONNECT_S))).result()
        reason = f"it is a {server}"
    except Exception as error:  # whatever a server of another kind sends
        server, reason = "", str(error) or f"no answer within {CONNECT_S} s"
    if server != "Scheduler":
        reason = " ".join(reason.split())[:200]
        raise UserError(
            f"hydra.launcher.address={address} is not the address of a dask scheduler ({reason}); "
            "give the one that `dask scheduler` prints, or leave it out for a cluster on this machine"
        )


class Dask:
    """A `Backend`."""

    def __init__(self, client: distributed.Client, worker: RemoteWorker) -> None:
        self._client, self._worker = client, worker
        self._workers = self._present_workers()
        if not self._workers:
            raise UserError("the dask scheduler has no workers yet; start some, e.g. dask worker ADDRESS --nthreads 1")
        self.workers = len(self._workers)

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        waiting = deque(sorted(units, key=lambda unit: -unit.cost))
        working: dict[distributed.Future, Unit] = {}
        lost = LostWorkers(self._worker.session, watcher, "a dask worker")
        try:
            while waiting or working:
                while waiting and len(working) < AHEAD * max(1, len(self._workers)):
                    unit = waiting.popleft()
                    working[self._client.submit(self._worker, unit.packed(), pure=False)] = unit
                for future in self._ended(working, watcher):
                    unit = working.pop(future)
                    try:
                        yield from future.result()
                    except (Lost, distributed.KilledWorker, CancelledError) as error:
                        retries, failures = lost.retry(unit, error)
                        waiting.extend(retries)
                        yield from failures
        except OSError as error:
            raise RunsFailed(
                f"the dask scheduler is gone ({error}); finished runs are kept, the same command carries on"
            ) from error
        finally:
            self._worker.session.dismiss()
            with suppress(Exception):  # of a scheduler that is gone
                self._client.cancel(list(working))

    def _ended(self, working: dict[distributed.Future, Unit], watcher: Watcher) -> set[distributed.Future]:
        """Wait until at least one future has ended, and return those that have; warn of lost workers."""
        futures = list(working)
        while True:
            with suppress(TimeoutError):
                distributed.wait(futures, timeout=POLL_S, return_when="FIRST_COMPLETED")
            ended = {future for future in futures if future.done()}
            report_progress(self._worker.session, list(working.values()), watcher)
            workers = self._present_workers()
            for lost in self._workers - workers:
                watcher.warn(f"dask worker {lost} was lost; what it was working on is tried again elsewhere")
            if not workers and self._workers:
                watcher.warn("no dask worker is left; waiting for one")
            self._workers = workers
            if ended:
                return ended
            if not workers:
                time.sleep(POLL_S)

    def _present_workers(self) -> set[str]:
        return set(self._client.nthreads())
