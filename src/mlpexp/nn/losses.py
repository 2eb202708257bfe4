"""The losses: each as torch computes it, by hand with its gradient, and in place over a stack.

Letters: R runs (the axis may be absent), S steps, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpexp.runtime.lazy_import import LazyModule
from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional as F
else:
    torch, F = LazyModule("torch"), LazyModule("torch.nn.functional")

EPSILON = 1e-8  # inside the logarithm of the cross-entropy by hand, as in the course notebook


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss.

    Attributes:
        label, unit: for axes and tables.
        samples: (logits (B, C), labels (B,)) -> the loss of each sample, (B,), by torch's own function.
        by_hand: (logits (R, B, C), one-hot targets (R, B, C)) -> the loss of each sample, (R, B).
        by_hand_gradient: (logits, targets, class weights (C,) or None) -> the derivative of the batch's mean of
            `by_hand` (see `batch_mean`) with respect to the logits, (R, B, C).
        stacked: makes the in-place kernel of a stack, with the bits of `samples` and its mean for a run alone.
    """

    label: str
    unit: str
    samples: Callable[[Tensor, Tensor], Tensor]
    by_hand: Callable[[Tensor, Tensor], Tensor]
    by_hand_gradient: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    stacked: Callable[[Tensor, Tensor | None], CrossEntropy]


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis; the maximum is subtracted first, so that nothing overflows."""
    exponentials = torch.exp(logits - logits.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


def batch_mean(losses: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the batch of the samples' losses, (R, B) -> (R,).

    Args:
        targets: one-hot, (R, B, C).
        weights: of the classes, (C,): the divisor is then the sum of the samples' weights.
    """
    if weights is None:
        return losses.mean(-1)
    each = targets @ weights  # (R, B)
    return (each * losses).sum(-1) / each.sum(-1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`-sum(targets * log(softmax(logits) + 1e-8))` in nats: (R, B, C), (R, B, C) -> (R, B)."""
    return -(targets * torch.log(softmax(logits) + EPSILON)).sum(-1)


def cross_entropy_gradient(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The derivative of the mean of `cross_entropy` over the batch with respect to the logits, (R, B, C).

    Without the 1e-8 it would be (p - targets) / B; it is kept, so that the gradient is that of the loss.
    """
    probabilities = softmax(logits)
    by_probability = -targets / (probabilities + EPSILON)
    if weights is None:
        by_probability = by_probability / targets.shape[-2]
    else:
        each = targets @ weights  # (R, B)
        by_probability = by_probability * (each / each.sum(-1, keepdim=True)).unsqueeze(-1)
    # softmax's Jacobian is diag(p) - p p'
    return probabilities * (by_probability - (by_probability * probabilities).sum(-1, keepdim=True))


def sample_weights(labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of each sample, and the derivative of a batch's weighted mean with respect to its log-likelihood.

    Args:
        labels: (S, R, B), of S batches.
        class_weights: (R, C).

    Returns:
        Both in the shape of `labels`.
    """
    weights = class_weights.expand(len(labels), *class_weights.shape).gather(2, labels)
    size = weights.sum(2, keepdim=True)
    return weights, -weights * (torch.ones_like(size) / size)  # in autograd's order: its bits


class CrossEntropy:
    """Softmax cross-entropy of a stack, into buffers that are made once, with the bits of a run alone.

    The class axis stays last, as in a run alone: torch sums over it in another order than over any other axis.

    Args:
        logits: (R, B, C), contiguous; read at each call.
        gradient: (R, B, C) for dL/dlogits, where L is the mean over the batch; None to go forward only.
    """

    def __init__(self, logits: Tensor, gradient: Tensor | None = None) -> None:
        self._logits = logits
        self._gradient = gradient
        self._log_probabilities = torch.empty_like(logits)
        if gradient is not None:
            num_classes = logits.shape[2]
            # row y: the gradient with respect to the log-probabilities of a sample of class y
            self._rows = logits.new_zeros(num_classes, num_classes)
            self._rows.fill_diagonal_(-1.0 / logits.shape[1])
            self._targets = torch.empty_like(logits)
            self._flat_targets = self._targets.view(-1, num_classes)

    def forward(self, labels: Tensor, log_likelihoods: Tensor, predictions: Tensor) -> None:
        """Write each sample's log-likelihood (R, B, 1), which is minus its loss, and its predicted class (R, B).

        Args:
            labels: (R, B, 1).
        """
        torch.ops.aten._log_softmax.out(self._logits, 2, False, out=self._log_probabilities)
        torch.gather(self._log_probabilities, 2, labels, out=log_likelihoods)
        torch.argmax(self._logits, 2, out=predictions)

    def backward(self, labels: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradient; `forward` has been called.

        Args:
            slopes: of the loss by each sample's log-likelihood, (R, B); None where all samples have weight 1.
        """
        if slopes is None:
            torch.index_select(self._rows, 0, labels.view(-1), out=self._flat_targets)
        else:
            self._targets.zero_().scatter_(2, labels, slopes.unsqueeze(2))
        torch.ops.aten._log_softmax_backward_data.out(
            self._targets, self._log_probabilities, 2, self._logits.dtype, out=self._gradient
        )


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(
            label="loss",
            unit="nats",
            samples=lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"),
            by_hand=cross_entropy,
            by_hand_gradient=cross_entropy_gradient,
            stacked=CrossEntropy,
        )
    },
)
