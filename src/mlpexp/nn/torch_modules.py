"""Modules of torch for layers that torch's own do not cover; `layers.py` and `normalisation.py` import them late.

Letters: B batch, H units.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp.nn.dropout_masks import draw
from mlpexp.nn.layers import Dropout


class DropoutModule(nn.Module):
    """`nn.Dropout` whose masks are those of `draw`.

    Attributes:
        seed, epoch, step: of the next training step; set by the training loop.
    """

    def __init__(self, layer: Dropout) -> None:
        super().__init__()
        self.layer = layer
        self.seed = self.epoch = self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        return x * draw(self.layer, x, self.seed, self.epoch, self.step) if self.training else x

    def extra_repr(self) -> str:
        return f"p={self.layer.rate}"


class BatchNormModule(nn.Module):
    """`nn.BatchNorm1d` that takes a batch of one sample in training, and does not count batches."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, units: int, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(units)), nn.Parameter(torch.zeros(units))
        self.register_buffer("running_mean", torch.zeros(units))
        self.register_buffer("running_var", torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        by_batch = self.training and len(x) > 1
        return F.batch_norm(x, *statistics, self.weight, self.bias, by_batch, self.momentum, self.eps)
