"""Stacks of a search trained at once by copies of this process, which have imported everything and have the data."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mlpexp.runtime import portable, signals
from mlpexp.runtime.process_pool import ForkPool, begin, missing_semaphores
from mlpexp.training.planner import Stack

Train = Callable[[list[int]], list[Any]]

_given: list[Train] = []  # in a worker, what it does


def are_possible() -> bool:
    """Whether copies of this process can be made here."""
    return (
        portable.can_fork()
        and not multiprocessing.current_process().daemon  # such a process may not start others
        and missing_semaphores() is None
    )


def trained(train: Train, stacks: Sequence[Stack], workers: int) -> Iterator[tuple[list[int], list[Any]]]:
    """The runs of each stack with what `train` returns for them, in the order in which they end.

    Raises:
        RuntimeError: a worker was ended from outside.
    """
    gc.freeze()  # a collection in a worker would copy every page that it shares with this process
    pool = ForkPool(
        max_workers=min(workers, len(stacks)),
        mp_context=multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(os.getpid(), train),  # copied, and not pickled
    )
    try:
        longest_first = sorted(stacks, key=lambda stack: -stack.cost)  # for an even end
        with signals.blocked():  # until the workers have their handlers
            working = {pool.submit(_work, stack.runs): stack for stack in longest_first}
        for future in as_completed(working):
            yield working[future].runs, future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker process of the search was ended before its training, from outside or for want of memory; with "
            "n_jobs=1 this process trains"
        ) from None
    finally:
        pool.shutdown(wait=True, kill_workers=True)
        gc.unfreeze()


def _begin(parent: int, train: Train) -> None:
    begin(parent)
    _given[:] = [train]


def _work(runs: list[int]) -> list[Any]:
    return _given[0](runs)
