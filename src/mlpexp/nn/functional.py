"""The mathematics of a multilayer perceptron, with an optional leading runs axis.

Letters: R runs (the axis may be absent), B batch, I inputs, O outputs of a layer, C classes.
A network is a list of layers, each a weight (R, O, I) and a bias (R, O); hidden layers apply the
activation, the last one gives the logits. Nothing here knows autograd, optimizers or Lightning.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mlpexp.nn.activations import Activation

EPSILON = 1e-8  # inside the logarithm of `cross_entropy`, as in the course notebook


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


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis; the maximum is subtracted first, so that nothing overflows."""
    exponentials = torch.exp(logits - logits.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


def cross_entropy(probabilities: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of `-sum(targets * log(p + 1e-8))`, in nats.

    Args:
        probabilities: (R, B, C).
        targets: one-hot, (R, B, C).
        weights: of the classes, (C,): what is divided by is then the sum of the samples' weights.

    Returns:
        One number for each run, (R,).
    """
    return batch_mean(sample_cross_entropy(probabilities, targets), targets, weights)


def batch_mean(losses: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the batch of the samples' losses, (R, B) to (R,); targets and weights as in `cross_entropy`."""
    if weights is None:
        return losses.mean(-1)
    each = targets @ weights  # (R, B)
    return (each * losses).sum(-1) / each.sum(-1)


def sample_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The same before the mean, (R, B)."""
    return -(targets * torch.log(probabilities + EPSILON)).sum(-1)


def cross_entropy_backward(probabilities: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The derivative of `cross_entropy(softmax(logits), targets, weights)` by the logits, (R, B, C).

    Without the 1e-8 it would be (p - targets) / B; it is kept, so that the gradient is the loss's own.
    """
    by_probability = -targets / (probabilities + EPSILON)
    if weights is None:
        by_probability = by_probability / targets.shape[-2]
    else:
        each = targets @ weights  # (R, B)
        by_probability = by_probability * (each / each.sum(-1, keepdim=True)).unsqueeze(-1)
    # softmax's Jacobian is diag(p) - p p'
    return probabilities * (by_probability - (by_probability * probabilities).sum(-1, keepdim=True))


def sample_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample in nats: logits (B, C), labels (B,) -> (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def mean_loss(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the last axis in double precision, so that it depends on no order of summation worth naming.

    Args:
        weights: by which `losses` are multiplied already: their sum is what is divided by.
    """
    size = losses.shape[-1] if weights is None else weights.sum(-1, dtype=torch.float64)
    return losses.sum(-1, dtype=torch.float64) / size
