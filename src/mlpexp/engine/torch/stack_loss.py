"""Cross-entropy of a stack's logits and its gradient, with the bits of `F.cross_entropy` for a run alone.

Letters: R runs, B batch, C classes.
"""

from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def weigh(labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """What each sample counts, and the slope of a batch's weighted mean by its log-likelihood, both as `labels`.

    Args:
        labels: (S, R, B), of S batches.
        class_weights: (R, C).
    """
    weights = class_weights.expand(len(labels), *class_weights.shape).gather(2, labels)
    size = weights.sum(2, keepdim=True)
    return weights, -weights * (torch.ones_like(size) / size)  # in autograd's order: its bits


class CrossEntropy:
    """Softmax cross-entropy into buffers that are made once.

    The class axis stays last, as in a run alone: torch sums over it in another order than over any other axis.

    Args:
        logits: (R, B, C), contiguous; read at each call.
        gradient: (R, B, C) for dL/dlogits, where L is the mean over the batch; None to go forward only.
    """

    def __init__(self, logits: Tensor, gradient: Tensor | None = None) -> None:
        self._logits = logits
        self._gradient = gradient
        self._log_probabilities = torch.empty_like(logits)
        self._choices = torch.empty(logits.shape[:2], dtype=torch.int64, device=logits.device)
        if gradient is not None:
            num_classes = logits.shape[2]
            # row y: the gradient by the log-probabilities of a sample of class y
            self._rows = logits.new_zeros(num_classes, num_classes)
            self._rows.fill_diagonal_(-1.0 / logits.shape[1])
            self._targets = torch.empty_like(logits)
            self._flat_targets = self._targets.view(-1, num_classes)

    def forward(self, labels: Tensor, log_likelihoods: Tensor, hits: Tensor) -> None:
        """Write each sample's log-likelihood (R, B, 1), which is minus its loss, and whether it is a hit (R, B).

        Args:
            labels: (R, B, 1).
        """
        aten._log_softmax.out(self._logits, 2, False, out=self._log_probabilities)
        torch.gather(self._log_probabilities, 2, labels, out=log_likelihoods)
        torch.argmax(self._logits, 2, out=self._choices)
        torch.eq(self._choices, labels.squeeze(2), out=hits)

    def backward(self, labels: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradient; `forward` has been called.

        Args:
            slopes: of the loss by each sample's log-likelihood, (R, B); None where all count alike.
        """
        if slopes is None:
            torch.index_select(self._rows, 0, labels.view(-1), out=self._flat_targets)
        else:
            self._targets.zero_().scatter_(2, labels, slopes.unsqueeze(2))
        aten._log_softmax_backward_data.out(
            self._targets, self._log_probabilities, 2, self._logits.dtype, out=self._gradient
        )
