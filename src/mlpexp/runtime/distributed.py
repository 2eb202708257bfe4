"""This process's share of a data-parallel training: rank `r` of `ranks`; 0 of 1 without data parallelism.

Each rank takes its slice of every batch. Its loss is weighted so that the gradient, averaged over the ranks by DDP, is
that of the whole batch.
"""

import os
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from mlpexp.runtime import portable


class Share(NamedTuple):
    rank: int
    ranks: int

    def slice(self, start: int, stop: int) -> slice:
        """This rank's part of the samples from `start` to `stop`; the parts' sizes differ by at most one."""
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
    """The sum of `numbers` over the ranks, in place."""
    if share().ranks > 1:
        distributed.all_reduce(numbers)
    return numbers


def mean_over_batch(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss to differentiate: the mean over the whole batch's samples, times the number of ranks.

    DDP averages gradients over ranks, which cancels that factor.

    Args:
        losses: of this rank's samples, shape (B,), multiplied by `weights` where they are given.
        weights: of this rank's samples, shape (B,); the sum of `losses` is then divided by the sum of all ranks'
            weights instead of the number of samples.
    """
    ranks = share().ranks
    if weights is None and ranks == 1:
        return losses.mean()
    if weights is None:
        return losses.sum() * ranks / total(torch.tensor(len(losses), device=losses.device))
    # positive also where all weights are 0: the loss is 0 then
    return losses.sum() * ranks / total(weights.sum()).clamp_min(torch.finfo(torch.float32).tiny)


def end_with_parent() -> None:
    """In a forked rank: end this process when the process that started it ends."""
    if share().ranks > 1:
        portable.end_with_parent(os.getppid())
