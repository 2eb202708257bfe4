"""Which share of a data-parallel training this process has: rank r of `count`; 0 of 1 where it trains alone.

Each rank takes its slice of every batch, and its loss is weighted so that the gradient, averaged over ranks, is that
of the whole batch.
"""

import ctypes
import signal
import sys
from typing import NamedTuple

import torch
from torch import Tensor, distributed

PR_SET_PDEATHSIG = 1


class Share(NamedTuple):
    rank: int
    ranks: int

    def slice(self, start: int, stop: int) -> slice:
        """This rank's part of the samples from `start` to `stop`; sizes differ by one at most."""
        size = stop - start
        return slice(start + self.rank * size // self.ranks, start + (self.rank + 1) * size // self.ranks)


def share() -> Share:
    if distributed.is_available() and distributed.is_initialized():
        return Share(distributed.get_rank(), distributed.get_world_size())
    return Share(0, 1)


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return share().rank == 0


def total(numbers: Tensor) -> Tensor:
    """The sum over ranks of what each has counted."""
    if share().ranks > 1:
        distributed.all_reduce(numbers)
    return numbers


def mean_over_batch(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss to differentiate: the mean over the whole batch, of which the ranks hold parts, times their number.

    Args:
        weights: of the samples, by which `losses` are multiplied already: their sum is what is divided by.
    """
    count = share().ranks
    if weights is None and count == 1:
        return losses.mean()
    size = total(torch.tensor(len(losses), device=losses.device) if weights is None else weights.sum())
    return losses.sum() * count / size  # averaged over ranks afterwards


def end_with_parent() -> None:
    """A rank that was forked does not outlive the process that it belongs to."""
    if share().ranks > 1 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
