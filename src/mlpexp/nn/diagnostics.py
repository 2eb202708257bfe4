"""What happens inside the layers: measured on one fixed batch before the first step and after each epoch.

There may be a runs axis in front.

Letters: R runs (the axis may be absent), L layers, H hidden layers.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mlpexp.nn.activations import Activation
from mlpexp.nn.functional import Layer, backpropagate, by_parameter, forward
from mlpexp.nn.losses import softmax

PROBE_SAMPLES = 256  # of the training part, its first ones
SATURATED = 0.05  # share of the activation's steepest slope below which a unit hardly passes a gradient


class LayerNumbers(NamedTuple):
    """One row of the run's `layers.csv` for each layer, in the order of its columns."""

    gradient_norm: Tensor  # (R, L): Euclidean, of the mean loss by the weight
    weight_norm: Tensor  # (R, L): Euclidean
    saturated: Tensor  # (R, H): share of (sample, unit) pairs with a slope below 5 % of the steepest
    activation_mean: Tensor  # (R, H): over the same pairs
    activation_std: Tensor  # (R, H): their standard deviation
    gradient_std: Tensor  # (R, L): of a sample's loss by a unit's value before its activation, over the pairs

    def rows(self, epoch: int) -> Iterator[list[list[float | str]]]:
        """Of each run: epoch, layer, the numbers; nothing where the last layer has no activation."""
        layers = self.gradient_norm.shape[-1]
        together = torch.cat(self, -1)  # one transfer from the device
        for numbers in together.reshape(-1, together.shape[-1]).tolist():
            rest = iter(numbers)
            columns: list[list[float | str]] = [list(islice(rest, column.shape[-1])) for column in self]
            padded = [column + [""] * (layers - len(column)) for column in columns]
            yield [[epoch, i, *row] for i, row in enumerate(zip(*padded, strict=True))]


@torch.no_grad()
def inspect(
    layers: Sequence[Layer], inputs: Tensor, labels: Tensor, activation: Activation
) -> tuple[LayerNumbers, list[Layer]]:
    """The numbers of each layer, and the gradients that they come from.

    Args:
        inputs: (R, B, I); labels: (R, B).
    """
    trace = forward(layers, inputs, activation)
    targets = F.one_hot(labels, trace.logits.shape[-1]).to(inputs.dtype)
    samples = labels.shape[-1]
    arriving = backpropagate(layers, trace, (softmax(trace.logits) - targets) / samples, activation)
    gradients = by_parameter(inputs, trace, arriving)
    slopes = [activation.derivative(x, h).abs() for x, h in zip(trace.pre, trace.hidden, strict=True)]
    shares = [(slope < SATURATED * activation.steepest).flatten(-2).to(inputs.dtype).mean(-1) for slope in slopes]
    numbers = LayerNumbers(
        gradient_norm=torch.stack([layer.weight.flatten(-2).norm(dim=-1) for layer in gradients], -1),
        weight_norm=torch.stack([layer.weight.flatten(-2).norm(dim=-1) for layer in layers], -1),
        saturated=_columns(shares, inputs),
        activation_mean=_columns([h.mean((-2, -1)) for h in trace.hidden], inputs),
        activation_std=_columns([_spread(h) for h in trace.hidden], inputs),
        gradient_std=_columns([samples * _spread(gradient) for gradient in arriving], inputs),
    )
    return numbers, gradients


def _spread(values: Tensor) -> Tensor:
    """The standard deviation over samples and units, (R,)."""
    return values.std((-2, -1), correction=0)


def _columns(each: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """One column for each layer; none in a linear classifier."""
    return torch.stack(list(each), -1) if each else inputs.new_zeros((*inputs.shape[:-2], 0))
