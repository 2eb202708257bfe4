"""The mathematics of metrics: sums over samples, and values of the sums.

Errors of a regression are in the units of the targets; of several targets the mean is taken.

Letters: R runs (the axis may be absent), n samples, C classes or targets.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.outcomes import Outcomes, confusion, ratio, total_and_size

BINS = 15  # of confidence, equally wide: the usual number for the expected calibration error


def losses(outcomes: Outcomes) -> Tensor:
    """The sum of the losses, and of the weights that they were multiplied by, (R, 2)."""
    sums = total_and_size(outcomes.losses)
    if outcomes.weights is not None:
        sums[..., 1] = outcomes.weights.sum(-1, dtype=torch.float64)
    return sums


def hits(outcomes: Outcomes) -> Tensor:
    """Right predictions and samples, (R, 2)."""
    return total_and_size((outcomes.classes() == outcomes.labels).double())


def counts(outcomes: Outcomes) -> Tensor:
    """The confusion matrix, (R, C * C) float64."""
    return confusion(outcomes).flatten(-2).double()


def _square(sums: Tensor) -> Tensor:
    size = isqrt(sums.shape[-1])
    return sums.unflatten(-1, (size, size))


def recall(sums: Tensor) -> Tensor:
    """The share of each class's samples that are found, (R, C); NaN for a class without samples."""
    matrix = _square(sums)
    return matrix.diagonal(dim1=-2, dim2=-1) / matrix.sum(-1)


def balanced_accuracy(sums: Tensor) -> Tensor:
    """The mean recall of the classes that occur, (R,)."""
    return recall(sums).nanmean(-1)


def macro_f1(sums: Tensor) -> Tensor:
    """The mean F1 of the classes that occur or are predicted, (R,)."""
    matrix = _square(sums)
    size = matrix.sum(-1) + matrix.sum(-2)
    scores = 2 * matrix.diagonal(dim1=-2, dim2=-1) / size.clamp(min=1)
    return scores.sum(-1) / (size > 0).sum(-1)


def top(k: int) -> Callable[[Outcomes], Tensor]:
    """Sums of the share of samples whose class is among the k largest logits."""

    def sums(outcomes: Outcomes) -> Tensor:
        logits = outcomes.logits()
        larger = (~(logits <= _of_labels(logits, outcomes))).sum(-1)  # written so that a NaN is no hit
        return total_and_size((larger < k).double())

    return sums


def negative_log_likelihood(outcomes: Outcomes) -> Tensor:
    """Sums of the cross-entropy in nats without weights or smoothing, whatever the loss is."""
    logits = torch.log_softmax(outcomes.logits(), -1)
    return total_and_size(-_of_labels(logits, outcomes).squeeze(-1))


def brier(outcomes: Outcomes) -> Tensor:
    """Sums of the squared distance of the probabilities from the one-hot class, summed over classes (Brier 1950)."""
    probabilities = torch.softmax(outcomes.logits(), -1)
    return total_and_size((probabilities**2).sum(-1) - 2 * _of_labels(probabilities, outcomes).squeeze(-1) + 1)


def _of_labels(values: Tensor, outcomes: Outcomes) -> Tensor:
    """The values (R, n, C) of the samples' true classes, (R, n, 1)."""
    return values.gather(-1, outcomes.labels.expand(values.shape[:-1]).unsqueeze(-1))


def by_confidence(outcomes: Outcomes) -> Tensor:
    """For each bin of confidence its confidences, hits and samples, (R, 3 * BINS); bins are open below."""
    confidence, predicted = torch.softmax(outcomes.logits(), -1).max(-1)  # (R, n)
    edges = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype, device=confidence.device)
    bin_index = (torch.bucketize(confidence, edges, right=False) - 1).clamp(0, BINS - 1)
    bins = torch.zeros(*confidence.shape[:-1], 3, BINS, dtype=confidence.dtype, device=confidence.device)
    for row, values in enumerate((confidence, (predicted == outcomes.labels).double(), torch.ones_like(confidence))):
        bins[..., row, :].scatter_add_(-1, bin_index, values)
    return bins.flatten(-2)


def calibration_error(sums: Tensor) -> Tensor:
    """The expected calibration error (Guo et al. 2017), (R,)."""
    confidence, right, size = sums.unflatten(-1, (3, BINS)).unbind(-2)
    return (confidence - right).abs().sum(-1) / size.sum(-1)


def area_under_curve(outcomes: Outcomes) -> Tensor:
    """The area under the ROC curve of each class against the rest, and of them the mean, (R,).

    It is the share of pairs (sample of the class, other sample) that the probability orders rightly, a tie counting
    one half (Hanley & McNeil 1982). Classes without samples, or without others, do not count.
    """
    scores = torch.softmax(outcomes.logits(), -1).mT.contiguous()  # (R, C, n)
    labels = outcomes.labels.expand(*scores.shape[:-2], -1).unsqueeze(-2)
    is_positive = labels == torch.arange(scores.shape[-2], device=scores.device).unsqueeze(-1)  # (R, C, n)
    ordered = scores.sort(-1).values
    below = torch.searchsorted(ordered, scores) + torch.searchsorted(ordered, scores, right=True)
    ranks = (below + 1).double() / 2  # from 1, equal scores share their mean
    num_positive = is_positive.sum(-1).double()
    pairs = num_positive * (scores.shape[-1] - num_positive)
    areas = ((ranks * is_positive).sum(-1) - num_positive * (num_positive + 1) / 2) / pairs
    return torch.where(scores.isfinite().all((-2, -1)), areas.nanmean(-1), torch.nan)


def _errors(outcomes: Outcomes) -> Tensor:
    """Prediction minus target in units of the targets, (R, n, C)."""
    errors = outcomes.logits() - outcomes.labels.double()
    return errors if outcomes.scale is None else errors * outcomes.scale.unsqueeze(-2)


def squared(outcomes: Outcomes) -> Tensor:
    """The sum of squared errors and their number, (R, 2)."""
    return total_and_size((_errors(outcomes) ** 2).flatten(-2))


def absolute(outcomes: Outcomes) -> Tensor:
    """The sum of absolute errors and their number, (R, 2)."""
    return total_and_size(_errors(outcomes).abs().flatten(-2))


def root_mean(sums: Tensor) -> Tensor:
    """The root of the mean, (R,)."""
    return ratio(sums).sqrt()


def moments(outcomes: Outcomes) -> Tensor:
    """For each target squared errors, targets, their squares and samples, (R, 4 * C), in standard deviations."""
    targets = outcomes.labels.double()
    errors = outcomes.logits() - targets
    targets = targets.expand_as(errors)
    sums = [values.sum(-2) for values in (errors**2, targets, targets**2, torch.ones_like(targets))]
    return torch.stack(sums, -2).flatten(-2)


def determination(sums: Tensor) -> Tensor:
    """The coefficient of determination, of several targets the mean, (R,); NaN where a target is constant."""
    errors, total, squares, size = sums.unflatten(-1, (4, -1)).unbind(-2)
    squared_deviations = squares - total**2 / size
    return (1 - errors / torch.where(squared_deviations > 1e-12 * squares, squared_deviations, torch.nan)).mean(-1)
