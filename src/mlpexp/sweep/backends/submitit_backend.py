"""Array jobs of Slurm by submitit, or local processes in place of them; all share a file system."""

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError

from mlpexp.config.launcher_settings import Settings
from mlpexp.runtime.errors import UserError
from mlpexp.store.file_names import WORKERS
from mlpexp.store.worker_session import SUBMITIT, Session
from mlpexp.sweep.backends.backend import Watcher
from mlpexp.sweep.backends.remote_workers import LostWorkers, PlacedOutcomes, RemoteWorker, report_progress
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.work_unit import Unit

MAX_JOBS = 500  # of one array; the default limit of Slurm is 1,001
DEFAULTS = {"name": "mlpexp", "timeout_min": 240, "cpus_per_task": 1}
POLL_S = {"slurm": 2.0, "local": 0.2}
QUEUE_S = 5.0


class Submitit:
    """A `Backend`."""

    def __init__(self, settings: Settings, session: Session, prepare: Callable[[], None] | None) -> None:
        logging.getLogger("submitit").setLevel(logging.ERROR)
        self._slurm = settings.executor == "slurm"
        self._limit = settings.workers if self._slurm else settings.num_workers
        self.workers = self._limit or 1
        self._worker = RemoteWorker(session=session, home=str(Path.cwd()), prepare=prepare, is_ours=True)
        self._poll_s = POLL_S[settings.executor]
        try:
            self._executor = submitit.AutoExecutor(session.directory / WORKERS / SUBMITIT, cluster=settings.executor)
            parallel = {"slurm_array_parallelism": self._limit} if self._slurm and self._limit else {}
            self._executor.update_parameters(**(DEFAULTS | parallel | dict(settings.slurm)))
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            raise UserError(f"hydra.launcher.executor={settings.executor}: {' '.join(str(error).split())}") from error

    def run(self, units: Sequence[Unit], watcher: Watcher) -> Iterator[tuple[int, Outcome]]:
        # several stacks in one job, since a scheduler takes seconds for each; a stack that was lost gets its own job
        waiting = _chunks(units, min(len(units), self._limit or MAX_JOBS))
        working: dict[Any, list[Unit]] = {}
        queue = _Queue() if self._slurm else None
        lost = LostWorkers(self._worker.session, watcher, "a job")
        try:
            while waiting or working:
                room = len(waiting) if self._slurm else self.workers - len(working)
                for job, chunk in zip(self._submitted(waiting[:room]), waiting[:room], strict=True):
                    working[job] = chunk
                del waiting[:room]
                ended = [job for job in working if self._has_ended(job, queue)]
                report_progress(self._worker.session, [unit for chunk in working.values() for unit in chunk], watcher)
                for job in ended:
                    chunk = working.pop(job)
                    try:
                        if self._slurm and not job.paths.result_pickle.exists():
                            raise UncompletedJobError("it left the queue without a result")
                        yield from job.result()
                    except (UncompletedJobError, FailedJobError) as error:
                        lines = [line for line in str(error).splitlines() if line.strip(" -")] or [""]
                        session = self._worker.session
                        tried = [unit for unit in chunk if session.progress(unit.origin) is not None] or chunk[:1]
                        waiting += [[unit] for unit in chunk if unit not in tried]
                        for unit in tried:
                            retries, failures = lost.retry(unit, f"job {job.job_id}: {lines[-1]}")
                            waiting += [[unit] for unit in retries]
                            yield from failures
                if not ended:
                    time.sleep(self._poll_s)
        finally:
            self._worker.session.dismiss()
            for job in working:
                with suppress(Exception):
                    job.cancel(check=False)

    def _submitted(self, chunks: list[list[Unit]]) -> list[Any]:
        jobs = []
        for start in range(0, len(chunks), MAX_JOBS):
            with self._executor.batch():
                jobs += [
                    self._executor.submit(_Chunk(self._worker), [unit.packed() for unit in chunk])
                    for chunk in chunks[start : start + MAX_JOBS]
                ]
        return jobs

    def _has_ended(self, job: Any, queue: "_Queue | None") -> bool:
        if job.paths.result_pickle.exists():
            return True
        return queue.has_left(job.job_id) if queue else job.done(force_check=True)


class _Chunk:
    """A job: several units, one after the other."""

    def __init__(self, worker: RemoteWorker) -> None:
        self._worker = worker

    def __call__(self, units: list[Unit]) -> PlacedOutcomes:
        return [ended for unit in units for ended in self._worker(unit)]


class _Queue:
    """The jobs of this user in the queue of Slurm. `sacct` would say more, but not every cluster keeps accounts."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")
        self._jobs: set[str] = set()
        self._missed: dict[str, float] = {}

    def has_left(self, job_id: str) -> bool:
        """Whether the job left the queue so long ago that its result file should exist."""
        if time.monotonic() - self._asked_at > QUEUE_S:
            answer = subprocess.run(
                ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"],
                capture_output=True,
                text=True,
                check=False,
            )
            self._asked_at = time.monotonic()
            if answer.returncode != 0:  # e.g. the controller is restarting
                self._missed.clear()
                return False
            self._jobs = set(answer.stdout.split())
        if job_id in self._jobs:
            self._missed.pop(job_id, None)
            return False
        missed_at = self._missed.setdefault(job_id, time.monotonic())
        return time.monotonic() - missed_at > 2 * QUEUE_S


def _chunks(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    """Divide units into `count` lists of about equal cost."""
    chunks: list[list[Unit]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for unit in sorted(units, key=lambda unit: -unit.cost):
        least = loads.index(min(loads))
        chunks[least].append(unit)
        loads[least] += unit.cost + 1e-9
    return chunks
