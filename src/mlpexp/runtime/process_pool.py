"""Worker processes that are forked from this one, and the set-up of every worker process."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from mlpexp.runtime import portable, signals

GRACE_S = 2.5  # of a worker whose parent has gone, to finish an epoch and save


class ForkPool(ProcessPoolExecutor):
    """Forked processes, with all imports of this one. loky does not fork; the standard pool kills no workers."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False) -> None:
        if kill_workers:
            for process in list((self._processes or {}).values()):
                process.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)


def missing_semaphores() -> str | None:
    """Why processes cannot share semaphores here, e.g. because /dev/shm is full; None where they can."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def begin(parent: int) -> None:
    """Set up a worker process: its parent handles Ctrl-C, and the process ends when its parent ends."""
    signals.let_parent_stop()
    import torch

    torch.set_num_threads(1)  # of a forked process no other thread is left; a unit sets what its runs say
    portable.watch_parent(parent, grace_s=GRACE_S)
