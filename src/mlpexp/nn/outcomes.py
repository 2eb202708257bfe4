"""Losses and predictions of a network for some samples, from which every metric is computed.

Letters: R runs (the axis may be absent), N samples of the data, n samples, C outputs (classes or targets).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mlpexp.nn.lazy_torch import Tensor, torch


class Outcomes(NamedTuple):
    """Losses and predictions of a network for n samples.

    Attributes:
        losses: each multiplied by its weight, (R, n).
        predictions: the class of the largest logit, (R, n) int64; None in regression.
        labels: classes, (R, n) or (n,) int64; in regression standardised values, (R, n, C) or (n, C).
        num_classes: C.
        weights: (R, n); None where all samples have weight 1.
        outputs: of the network, (R, n, C); None where no metric needs them.
        scale: in regression the standard deviation by which each target was divided, (R, C) or (C,); None for 1.
    """

    losses: Tensor
    predictions: Tensor | None
    labels: Tensor
    num_classes: int
    weights: Tensor | None = None
    outputs: Tensor | None = None
    scale: Tensor | None = None

    def in_target_units(self, scale: Tensor, power: int) -> Outcomes:
        """Outcomes of a regression with the scale of the targets; losses in the unit of the target.

        Losses of several targets stay as they are minimised: means over targets in standard deviations.

        Args:
            scale: (R, C) or (C,) float64.
            power: of the target's unit in the unit of the loss.
        """
        losses = self.losses.double() * scale**power if scale.shape[-1] == 1 else self.losses
        return self._replace(losses=losses, scale=scale)

    def classes(self) -> Tensor:
        """The predicted classes; raises `ValueError` in a regression."""
        if self.predictions is None:
            raise ValueError("a regression predicts no classes")
        return self.predictions

    def logits(self) -> Tensor:
        """The outputs (R, n, C) in double precision; raises `ValueError` where they were not kept."""
        if self.outputs is None:
            raise ValueError("the outputs of the network were not kept")
        return self.outputs.double()


def labels_at(labels: Tensor, index: Tensor) -> Tensor:
    """Labels of the samples of an index (n,) or (R, n).

    Args:
        labels: classes, (N,) or (R, N) int64, or values, (N, C) or (R, N, C).
    """
    if labels.ndim == 1 + labels.is_floating_point():
        return labels[index]
    index = index.expand(len(labels), -1)
    return (
        labels.gather(1, index)
        if labels.ndim == 2
        else labels.gather(1, index.unsqueeze(2).expand(-1, -1, labels.shape[2]))
    )


def joined(batches: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of all samples of some batches, in their order."""

    def together(tensors: Sequence[Tensor | None], axis: int) -> Tensor | None:
        present = [part for part in tensors if part is not None]
        return torch.cat(present, axis) if present else None

    first = batches[0]
    return first._replace(
        losses=torch.cat([batch.losses for batch in batches], -1),
        predictions=together([batch.predictions for batch in batches], -1),
        labels=torch.cat([batch.labels for batch in batches], -1 - first.labels.is_floating_point()),
        weights=together([batch.weights for batch in batches], -1),
        outputs=together([batch.outputs for batch in batches], -2),
    )


def confusion(outcomes: Outcomes) -> Tensor:
    """The number of samples by true (rows) and by predicted class, (R, C, C) int64."""
    classes, predictions = outcomes.num_classes, outcomes.classes()
    pairs = outcomes.labels.expand_as(predictions) * classes + predictions  # (R, n)
    counts = torch.zeros(*pairs.shape[:-1], classes**2, dtype=torch.int64, device=pairs.device)
    return counts.scatter_add_(-1, pairs, torch.ones_like(pairs)).unflatten(-1, (classes, classes))


def total_and_size(values: Tensor) -> Tensor:
    """The sum of values (R, n) and their number, (R, 2) float64, whose `ratio` is the mean."""
    total = values.sum(-1, dtype=torch.float64)
    return torch.stack([total, torch.full_like(total, values.shape[-1])], -1)


def ratio(sums: Tensor) -> Tensor:
    """The first of two sums (R, 2) divided by the second."""
    return sums[..., 0] / sums[..., 1]
