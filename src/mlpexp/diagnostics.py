"""What happens inside the layers: measured on one fixed batch after each epoch, with an optional runs axis.

Letters: R runs (the axis may be absent), L layers, H hidden layers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mlpexp.activations import Activation
from mlpexp.functional import Layer, backward, forward, softmax

PROBE_SAMPLES = 256  # of the training part, its first ones
SATURATED = 0.05  # share of the activation's steepest slope below which a unit hardly passes a gradient


class LayerNumbers(NamedTuple):
    """One row of the run's `layers.csv` for each layer."""

    gradient_norm: Tensor  # (R, L): Euclidean, of the mean loss by the weight
    weight_norm: Tensor  # (R, L): Euclidean
    saturated: Tensor  # (R, H): share of (sample, unit) pairs with a slope below 5 % of the steepest


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
    gradients = backward(layers, inputs, trace, (softmax(trace.logits) - targets) / labels.shape[-1], activation)
    slopes = [activation.derivative(x, h).abs() for x, h in zip(trace.pre, trace.hidden, strict=True)]
    flat = [(slope < SATURATED * activation.steepest).flatten(-2).to(inputs.dtype).mean(-1) for slope in slopes]
    numbers = LayerNumbers(
        gradient_norm=torch.stack([layer.weight.flatten(-2).norm(dim=-1) for layer in gradients], -1),
        weight_norm=torch.stack([layer.weight.flatten(-2).norm(dim=-1) for layer in layers], -1),
        saturated=torch.stack(flat, -1) if flat else inputs.new_zeros((*inputs.shape[:-2], 0)),
    )
    return numbers, gradients
