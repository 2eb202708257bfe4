"""The mathematics of a multilayer perceptron, with an optional leading runs axis.

Letters: R runs (the axis may be absent), B batch, I inputs, O outputs of a layer, C classes.
A network is a list of layers, each a weight (R, O, I) and a bias (R, O); hidden layers apply the
activation, the last one gives the logits. Nothing here knows autograd, optimizers or Lightning.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mlpexp.nn.activations import Activation


class Layer(NamedTuple):
    """Parameters of one layer, or their gradients."""

    weight: Tensor  # (R, O, I)
    bias: Tensor  # (R, O)


class Trace(NamedTuple):
    """What a forward pass leaves behind for the backward pass."""

    pre: list[Tensor]  # of each hidden layer before the activation, (R, B, O)
    hidden: list[Tensor]  # and after it
    logits: Tensor  # (R, B, C)


def forward(layers: Sequence[Layer], inputs: Tensor, activation: Activation) -> Trace:
    """The network's answer to `inputs` (R, B, I), with all that happened on the way."""
    pre, hidden = [], []
    h = inputs
    for weight, bias in layers[:-1]:
        x = affine(h, weight, bias)  # (R, B, O)
        h = activation.function(x)
        pre.append(x)
        hidden.append(h)
    return Trace(pre, hidden, affine(h, *layers[-1]))


def affine(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A dense layer without its activation: (R, B, I) -> (R, B, O)."""
    return inputs @ weight.mT + bias.unsqueeze(-2)


def backward(
    layers: Sequence[Layer], inputs: Tensor, trace: Trace, logits_gradient: Tensor, activation: Activation
) -> list[Layer]:
    """The gradient of every weight and bias, derived by hand: the chain rule from the logits to the inputs.

    Args:
        logits_gradient: the loss's derivative by the logits, (R, B, C).

    Returns:
        One `Layer` of gradients for each layer, first to last, in the parameters' shapes.
    """
    return by_parameter(inputs, trace, backpropagate(layers, trace, logits_gradient, activation))


def backpropagate(
    layers: Sequence[Layer], trace: Trace, logits_gradient: Tensor, activation: Activation
) -> list[Tensor]:
    """The loss's derivative by what each layer computes before its activation, first to last, each (R, B, O)."""
    arriving = [logits_gradient]
    for depth in reversed(range(1, len(layers))):
        slope = activation.derivative(trace.pre[depth - 1], trace.hidden[depth - 1])
        arriving.append((arriving[-1] @ layers[depth].weight) * slope)  # (R, B, I)
    return arriving[::-1]


def by_parameter(inputs: Tensor, trace: Trace, arriving: Sequence[Tensor]) -> list[Layer]:
    """The gradients of weights and biases from what arrives at each layer."""
    # h = x W' + b: each weight sees its input times what arrives from above, summed over the batch
    pairs = zip([inputs, *trace.hidden], arriving, strict=True)
    return [Layer(gradient.mT @ below, gradient.sum(-2)) for below, gradient in pairs]
