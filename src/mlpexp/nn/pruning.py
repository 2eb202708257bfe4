"""Pruning of weights by magnitude, per run: the same code for a run alone (R = 1) and for a stack.

In each of `rounds` rounds the smallest weights of all weight matrices together are removed, until the share `fraction`
is gone after the last one; the share that is left shrinks by the same factor in each round. Masks of 0 and 1 keep
removed weights at zero. With `rewind=initial` all parameters return to their initial values after each pruning, and
training begins again with the masks and a new optimizer: the lottery tickets of Frankle & Carbin 2019. With `rewind=k`
they return to what they were after k epochs (Frankle et al. 2020).

Letters: R runs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SPARSITY = "train/sparsity"  # the column of metrics.csv
MASK = "mask"  # the name of the masks among an optimizer's state
REWOUND = "rewound"  # that of the weights to which prunings return


def pruned_share(fraction: float | None, rounds: int, done: int) -> float:
    """The share of the weights that is gone after `done` of the rounds; 0 without a fraction."""
    return 0.0 if fraction is None else float(1 - (1 - fraction) ** (done / rounds))


@torch.no_grad()
def prune_(weights: Sequence[Tensor], masks: Sequence[Tensor], share: float) -> None:
    """Set the smallest weights of one run and their masks to zero, in place, so that `share` of all is zero.

    Args:
        weights, masks: of each weight matrix; biases and norms are not pruned.
    """
    pairs = zip(weights, masks, strict=True)
    sizes = torch.cat([weight.abs().masked_fill(mask == 0, -1.0).flatten() for weight, mask in pairs])
    count = round(share * len(sizes))
    removed = torch.zeros_like(sizes, dtype=torch.bool)
    removed[sizes.argsort(stable=True)[:count]] = True
    for weight, mask, part in zip(weights, masks, removed.split([weight.numel() for weight in weights]), strict=True):
        mask.masked_fill_(part.view(mask.shape), 0.0)
        weight.mul_(mask)


def sparsity(masks: Sequence[Tensor]) -> float:
    """The share of the weights of one run that is pruned; the masks of its weight matrices."""
    return 1 - sum(mask.count_nonzero().item() for mask in masks) / sum(mask.numel() for mask in masks)


@torch.no_grad()
def rewind_(parameters: Mapping[str, Tensor], earlier: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Return one run's parameters to earlier values, those of removed weights to zero."""
    for name, parameter in parameters.items():
        parameter.copy_(earlier[name])
        if name in masks:
            parameter.mul_(masks[name])
