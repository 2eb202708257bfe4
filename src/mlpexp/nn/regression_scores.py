"""The mathematics of the metrics of regressions: sums over samples, and values of the sums.

Errors are in the units of the targets; of several targets the mean is taken. Letters: R runs (the axis may be absent),
n samples, C targets.
"""

from __future__ import annotations

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.outcomes import Outcomes, ratio, total_and_size


def _errors(outcomes: Outcomes) -> Tensor:
    """Prediction minus target in units of the targets, (R, n, C)."""
    found = outcomes.logits() - outcomes.labels.double()
    return found if outcomes.scale is None else found * outcomes.scale.unsqueeze(-2)


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
    sums = [each.sum(-2) for each in (errors**2, targets, targets**2, torch.ones_like(targets))]
    return torch.stack(sums, -2).flatten(-2)


def determination(sums: Tensor) -> Tensor:
    """The coefficient of determination, of several targets the mean, (R,); NaN where a target is constant."""
    errors, total, squares, size = sums.unflatten(-1, (4, -1)).unbind(-2)
    spread = squares - total**2 / size
    return (1 - errors / torch.where(spread > 1e-12 * squares, spread, torch.nan)).mean(-1)
