"""The losses of a stack, with the bits of each run alone.

Letters: R runs, S steps, B batch, C outputs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mlpexp.nn.losses import CROSS_ENTROPY, LossFunction, total_weight


class StackedLoss(Protocol):
    """The loss of a stack for buffers of one batch size, see `make_stacked_loss`."""

    def forward(self, targets: Tensor, negative_losses: Tensor, predictions: Tensor | None) -> None:
        """Write minus each sample's loss (R, B, 1) and, unless None, its predicted class (R, B).

        Args:
            targets: classes (R, B, 1) int64, or values (R, B, C).
        """

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradient; `forward` has been called.

        Args:
            slopes: of the batch's loss by minus each sample's loss, (R, B); None where all samples have weight 1.
        """


def make_stacked_loss(loss: LossFunction, outputs: Tensor, gradient: Tensor | None = None) -> StackedLoss:
    """The kernel of a loss: of the plain cross-entropy one of its own, of any other one by autograd.

    Args:
        outputs: (R, B, C), contiguous; read at each call.
        gradient: (R, B, C) for the derivative of the mean over the batch; None to go forward only.
    """
    if loss == CROSS_ENTROPY:
        return CrossEntropy(outputs, gradient)
    return DifferentiatedLoss(loss, outputs, gradient)


def slopes_of(weights: Tensor) -> Tensor:
    """The derivative of a batch's weighted mean with respect to minus each sample's loss.

    Args:
        weights: of the samples, (S, R, B), of S batches; the result has the same shape.
    """
    size = total_weight(weights, 2)
    return -weights * (torch.ones_like(size) / size)  # in autograd's order: its bits


class CrossEntropy:
    """Softmax cross-entropy of a stack, into buffers that are made once, with the bits of a run alone.

    The class axis stays last, as in a run alone: torch sums over it in another order than over any other axis.
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

    def forward(self, targets: Tensor, negative_losses: Tensor, predictions: Tensor | None) -> None:
        torch.ops.aten._log_softmax.out(self._logits, 2, False, out=self._log_probabilities)
        torch.gather(self._log_probabilities, 2, targets, out=negative_losses)
        if predictions is not None:
            torch.argmax(self._logits, 2, out=predictions)

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        if slopes is None:
            torch.index_select(self._rows, 0, targets.view(-1), out=self._flat_targets)
        else:
            self._targets.zero_().scatter_(2, targets, slopes.unsqueeze(2))
        torch.ops.aten._log_softmax_backward_data.out(
            self._targets, self._log_probabilities, 2, self._logits.dtype, out=self._gradient
        )


class DifferentiatedLoss:
    """Any loss of the registry, differentiated by autograd: as a run alone does it, for all samples of the stack."""

    def __init__(self, loss: LossFunction, outputs: Tensor, gradient: Tensor | None = None) -> None:
        self._loss, self._outputs, self._gradient = loss, outputs, gradient
        self._leaf: Tensor | None = None
        self._losses: Tensor | None = None

    def forward(self, targets: Tensor, negative_losses: Tensor, predictions: Tensor | None) -> None:
        flat = self._outputs.detach().flatten(0, 1)  # (R * B, C)
        flat_targets = targets.reshape(-1) if predictions is not None else targets.reshape(flat.shape)
        if self._gradient is None:
            losses = self._loss.samples(flat, flat_targets)
        else:
            with torch.enable_grad():
                self._leaf = flat.requires_grad_()
                self._losses = losses = self._loss.samples(flat, flat_targets)
        torch.neg(losses.detach().view(negative_losses.shape), out=negative_losses)
        if predictions is not None:
            torch.argmax(self._outputs, 2, out=predictions)

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        assert self._leaf is not None and self._losses is not None and self._gradient is not None
        equal = torch.ones_like(self._losses) / self._gradient.shape[1]
        sample_slopes = equal if slopes is None else slopes.reshape(-1).neg()
        [gradient] = torch.autograd.grad(self._losses, self._leaf, sample_slopes)
        self._gradient.copy_(gradient.view_as(self._gradient))
        self._leaf = self._losses = None
