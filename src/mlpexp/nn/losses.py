"""The losses: each as torch computes it, by hand with its gradient, and in place over a stack.

A network has one output for each class, or in regression one for each target. Losses other than the cross-entropy take
the one-hot encoding of a class as the target of its outputs.

Letters: R runs (the axis may be absent), B batch, C outputs, M samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlpexp.nn.lazy_torch import F, Tensor, torch
from mlpexp.runtime.declared_options import Options
from mlpexp.runtime.registry import Registry

Task = Literal["classification", "regression"]
BOTH: tuple[Task, ...] = ("classification", "regression")
DEFAULTS: dict[Task, str] = {"classification": "cross_entropy", "regression": "mse"}
_NO_OPTIONS = Options()
EPSILON = 1e-8  # inside the logarithm of the cross-entropy by hand, as in the course notebook


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss.

    Attributes:
        unit, label: for axes and tables.
        samples: (outputs (M, C), targets, settings) -> the loss of each sample, (M,), by torch's own functions; targets
            are classes (M,) int64 or values (M, C), see `LossFunction.dense`.
        by_hand: (outputs (R, B, C), dense targets (R, B, C), settings) -> the loss of each sample, (R, B).
        gradient: (outputs, dense targets, settings) -> the derivative of each sample's loss with respect to its
            outputs, (R, B, C).
        by_hand_gradient: (outputs, dense targets, sample weights (R, B) or None) -> the derivative of the batch's mean
            of `by_hand`, (R, B, C); by default `gradient`, divided as `batch_mean` does.
        tasks: for which it is defined.
        keys: keys of the configuration that only such losses read.
        of_shares: (shares of the classes, label smoothing) -> the least loss that equal outputs for all samples have;
            None where the loss is a mean over outputs of convex functions, of which it is found by search.
        power: of the target's unit in the unit of the loss.
    """

    unit: str
    samples: Callable[[Tensor, Tensor, LossFunction], Tensor]
    by_hand: Callable[[Tensor, Tensor, LossFunction], Tensor]
    gradient: Callable[[Tensor, Tensor, LossFunction], Tensor]
    by_hand_gradient: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
    tasks: tuple[Task, ...] = BOTH
    keys: tuple[str, ...] = ()
    of_shares: Callable[[Sequence[float], float], float] | None = None
    power: int = 0
    label: str = "loss"


@dataclass(frozen=True)
class LossFunction:
    """A loss with its settings.

    Attributes:
        name: of the entry.
        label_smoothing: share of each one-hot target that is spread evenly over all classes (Szegedy et al. 2016).
        delta: of the Huber loss: the absolute error from which it is linear.
        options: of a user-defined loss.
    """

    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    delta: float = 1.0
    options: Options = _NO_OPTIONS

    @property
    def entry(self) -> Loss:
        return LOSSES.entry_with(self.name, self.options) if self.options else LOSSES[self.name]

    @property
    def without_smoothing(self) -> LossFunction:
        """The loss of validation and test: runs of different smoothing stay comparable."""
        return replace(self, label_smoothing=0.0) if self.label_smoothing else self

    def samples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, (M,), see `Loss.samples`."""
        return self.entry.samples(outputs, targets, self)

    def by_hand(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, (R, B), of dense targets (R, B, C)."""
        return self.entry.by_hand(outputs, targets, self)

    def gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The derivative of the batch's mean with respect to the outputs, (R, B, C), of dense targets."""
        return averaged(self.entry.gradient(outputs, targets, self), weights)

    def by_hand_gradient(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The derivative of the batch's mean of `by_hand`, (R, B, C), of dense targets and weights (R, B)."""
        if self.entry.by_hand_gradient is not None:
            return self.entry.by_hand_gradient(outputs, targets, weights)
        return self.gradient(outputs, targets, weights)

    def dense(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Targets in the shape of the outputs: classes as (smoothed) one-hot vectors, values as they are."""
        if targets.is_floating_point():
            return targets
        encoded = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        if self.label_smoothing == 0:
            return encoded
        return encoded * (1 - self.label_smoothing) + self.label_smoothing / outputs.shape[-1]


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis; the maximum is subtracted first, so that nothing overflows."""
    exponentials = torch.exp(logits - logits.amax(-1, keepdim=True))
    return exponentials / exponentials.sum(-1, keepdim=True)


def batch_mean(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the batch of the samples' losses, (R, B) -> (R,).

    Args:
        weights: of the samples, (R, B): the divisor is then their sum.
    """
    return losses.mean(-1) if weights is None else (weights * losses).sum(-1) / total_weight(weights).squeeze(-1)


def averaged(gradient: Tensor, weights: Tensor | None = None) -> Tensor:
    """Derivatives of the samples' losses (R, B, C) as derivatives of their `batch_mean`."""
    if weights is None:
        return gradient / gradient.shape[-2]
    return gradient * (weights / total_weight(weights)).unsqueeze(-1)


def total_weight(weights: Tensor, axis: int = -1) -> Tensor:
    """The sum over a batch, (R, B) -> (R, 1); positive also where all are 0: loss and gradient are 0 then, not NaN."""
    return weights.sum(axis, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`-sum(targets * log(softmax(logits) + 1e-8))` in nats: (R, B, C), (R, B, C) -> (R, B)."""
    return -(targets * torch.log(softmax(logits) + EPSILON)).sum(-1)


def cross_entropy_gradient(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The derivative of the mean of `cross_entropy` over the batch with respect to the logits, (R, B, C).

    Without the 1e-8 it would be (p - targets) / B; it is kept, so that the gradient is that of the loss.
    """
    probabilities = softmax(logits)
    by_probability = averaged(-targets / (probabilities + EPSILON), weights)
    return _through_softmax(probabilities, by_probability)


def _through_softmax(probabilities: Tensor, gradient: Tensor) -> Tensor:
    # softmax's Jacobian is diag(p) - p p'
    return probabilities * (gradient - (gradient * probabilities).sum(-1, keepdim=True))


def _brier_gradient(logits: Tensor, targets: Tensor, loss: LossFunction) -> Tensor:
    probabilities = softmax(logits)
    return _through_softmax(probabilities, 2 * (probabilities - targets))


def _entropy(shares: Sequence[float], smoothing: float) -> float:
    smoothed = [(1 - smoothing) * share + smoothing / len(shares) for share in shares]
    return sum(-share * math.log(share) for share in smoothed if share)


def _huber(outputs: Tensor, targets: Tensor, loss: LossFunction) -> Tensor:
    # not torch's huber_loss, whose bits depend on the place of a sample in its batch
    error = (outputs - targets).abs()
    quadratic = error.clamp(max=loss.delta)
    return (quadratic * (error - 0.5 * quadratic)).mean(-1)


CROSS_ENTROPY = LossFunction()

LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(
            unit="nats",
            samples=lambda logits, labels, loss: F.cross_entropy(
                logits, labels, reduction="none", label_smoothing=loss.label_smoothing
            ),
            by_hand=lambda logits, targets, loss: cross_entropy(logits, targets),
            gradient=lambda logits, targets, loss: softmax(logits) - targets,
            by_hand_gradient=cross_entropy_gradient,
            of_shares=_entropy,
            tasks=("classification",),
        ),
        # the three below are means over outputs, as torch's own
        "mse": Loss(
            unit="squared error",
            samples=lambda outputs, targets, loss: F.mse_loss(
                outputs, loss.dense(targets, outputs), reduction="none"
            ).mean(-1),
            by_hand=lambda outputs, targets, loss: ((outputs - targets) ** 2).mean(-1),
            gradient=lambda outputs, targets, loss: 2 * (outputs - targets) / outputs.shape[-1],
            power=2,
        ),
        "mae": Loss(
            unit="absolute error",
            samples=lambda outputs, targets, loss: F.l1_loss(
                outputs, loss.dense(targets, outputs), reduction="none"
            ).mean(-1),
            by_hand=lambda outputs, targets, loss: (outputs - targets).abs().mean(-1),
            gradient=lambda outputs, targets, loss: torch.sign(outputs - targets) / outputs.shape[-1],
            power=1,
        ),
        "huber": Loss(
            unit="Huber",
            samples=lambda outputs, targets, loss: _huber(outputs, loss.dense(targets, outputs), loss),
            by_hand=_huber,
            gradient=lambda outputs, targets, loss: (
                (outputs - targets).clamp(-loss.delta, loss.delta) / outputs.shape[-1]
            ),
            keys=("delta",),
            power=2,
        ),
        # of probabilities (Brier 1950): the sum over classes, from 0 to 2
        "brier": Loss(
            unit="Brier score",
            samples=lambda logits, labels, loss: ((torch.softmax(logits, -1) - loss.dense(labels, logits)) ** 2).sum(
                -1
            ),
            by_hand=lambda logits, targets, loss: ((softmax(logits) - targets) ** 2).sum(-1),
            gradient=_brier_gradient,
            of_shares=lambda shares, smoothing: (1 - smoothing) ** 2 * sum(share * (1 - share) for share in shares),
            tasks=("classification",),
        ),
    },
)
