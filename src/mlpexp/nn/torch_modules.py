"""Modules of torch for layers that torch's own do not cover; the files of layers import them late.

Masks of dropout are functions of a run's seed, epoch, step and a layer's number, or in a user's module a call's number.

Letters: B batch, H units.
"""

from collections.abc import Sequence
from typing import Any

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


Call = tuple[float, tuple[int, ...]]  # rate and shape of the input, with the batch


class Draws:
    """The masks of one user-defined module, numbered in the order of the calls of its forward pass.

    Attributes:
        seed, epoch, step: of the next training step of a run alone; set by the training loop.
        stack_masks: the masks of a step of a stack, in the order of the calls; None for a run alone.
        recorded_calls: the calls of a forward pass; None where they are not recorded.
    """

    def __init__(self) -> None:
        self.seed = self.epoch = self.step = 0
        self.stack_masks: Sequence[Tensor] | None = None
        self.recorded_calls: list[Call] | None = None
        self._calls = 0

    def begin(self, *_: Any) -> None:
        """Begin a forward pass of the whole module; a pre-hook."""
        self._calls = 0

    def mask(self, rate: float, x: Tensor) -> Tensor:
        """The mask for the next call, in the shape of its input: 0, or 1 / (1 - rate)."""
        call, self._calls = self._calls, self._calls + 1
        if self.recorded_calls is not None:
            self.recorded_calls.append((rate, tuple(x.shape)))
            return torch.ones_like(x)
        if self.stack_masks is not None:
            return self.stack_masks[call]
        rows = x.reshape(len(x), -1)
        return draw(Dropout(rows.shape[1], rate, call), rows, self.seed, self.epoch, self.step).view(x.shape)


class ModuleDropout(nn.Dropout):
    """`nn.Dropout` with the masks of `Draws`."""

    def __init__(self, rate: float, draws: Draws) -> None:
        super().__init__(rate)
        self.draws = draws

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        return input * self.draws.mask(self.p, input)


def replace_dropouts(module: nn.Module) -> Draws:
    """Put `ModuleDropout` in the place of each `nn.Dropout`, in place."""
    draws = Draws()
    replacements: dict[int, ModuleDropout] = {}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is nn.Dropout:
                parent._modules[name] = replacements.setdefault(id(child), ModuleDropout(child.p, draws))
    module.register_forward_pre_hook(draws.begin)
    return draws
