"""The metrics of an epoch: one registry entry each, from which columns, labels and directions follow.

A metric is a function of sums over samples. So it needs one pass, has a leading run axis for free, and the sums of
several processes add up. Columns are named PART/METRIC, e.g. `val/acc`.

Letters: R runs (the axis may be absent), n samples, C classes, K sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mlpexp.nn.losses import LOSSES
from mlpexp.runtime.lazy_import import LazyModule
from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

PARTS = {"train": "training", "val": "validation", "test": "test"}


class Outcomes(NamedTuple):
    """Losses and predictions of a network for n samples."""

    losses: Tensor  # (R, n), each multiplied by its weight
    predictions: Tensor  # (R, n) int64: the class of the largest logit
    labels: Tensor  # (R, n) or (n,) int64
    num_classes: int  # C
    weights: Tensor | None = None  # (R, n); None where all samples have weight 1


def labels_at(labels: Tensor, index: Tensor) -> Tensor:
    """Labels (N,) or (R, N) of the samples of an index, (n,) or (R, n)."""
    return labels[index] if labels.ndim == 1 else labels.gather(1, index.expand(len(labels), -1))


def joined(batches: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of all samples of some batches, in their order."""
    losses, predictions, labels, num_classes, weights = zip(*batches, strict=True)
    known = [one for one in weights if one is not None]
    return Outcomes(
        torch.cat(losses, -1),
        torch.cat(predictions, -1),
        torch.cat(labels, -1),
        num_classes[0],
        torch.cat(known, -1) if known else None,
    )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        label, unit: for axes and tables, e.g. "loss", "nats"; no unit for shares.
        higher_is_better: which of two values is better.
        sums: outcomes -> (R, K) float64, added up over samples.
        value: (R, K) -> the metric, (R,) float64.
        reference: the class of torchmetrics that computes the same, for tests.
        recorded: computed for every part and written to every file.
    """

    label: str
    unit: str
    higher_is_better: bool
    sums: Callable[[Outcomes], Tensor]
    value: Callable[[Tensor], Tensor]
    reference: str = ""
    recorded: bool = True

    @property
    def title(self) -> str:
        """E.g. "loss (nats)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def confusion(outcomes: Outcomes) -> Tensor:
    """The number of samples by true (rows) and by predicted class, (R, C, C) int64."""
    classes, predictions = outcomes.num_classes, outcomes.predictions
    pairs = outcomes.labels.expand_as(predictions) * classes + predictions  # (R, n)
    counts = torch.zeros(*pairs.shape[:-1], classes**2, dtype=torch.int64, device=pairs.device)
    return counts.scatter_add_(-1, pairs, torch.ones_like(pairs)).unflatten(-1, (classes, classes))


def _loss_sums(outcomes: Outcomes) -> Tensor:
    total = outcomes.losses.sum(-1, dtype=torch.float64)
    if outcomes.weights is None:
        size = torch.full_like(total, outcomes.losses.shape[-1])
    else:
        size = outcomes.weights.sum(-1, dtype=torch.float64)
    return torch.stack([total, size], -1)


def _hit_sums(outcomes: Outcomes) -> Tensor:
    hits = (outcomes.predictions == outcomes.labels).sum(-1).double()
    return torch.stack([hits, torch.full_like(hits, outcomes.predictions.shape[-1])], -1)


def _ratio(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "loss": Metric(
            label=LOSSES["cross_entropy"].label,
            unit=LOSSES["cross_entropy"].unit,
            higher_is_better=False,
            sums=_loss_sums,
            value=_ratio,
            reference="aggregation.MeanMetric",
        ),
        "acc": Metric(
            label="accuracy",
            unit="",
            higher_is_better=True,
            sums=_hit_sums,
            value=_ratio,
            reference="classification.MulticlassAccuracy",
        ),
    },
)


def recorded() -> tuple[str, ...]:
    """The metrics that every run records, in the order of its columns."""
    return tuple(name for name, metric in METRICS.items() if metric.recorded)


def columns(*parts: str) -> tuple[str, ...]:
    """The columns of the recorded metrics of these parts, e.g. `train/loss`, `train/acc` for "train"."""
    return tuple(f"{part}/{name}" for part in parts for name in recorded())


def epoch_columns() -> tuple[str, ...]:
    """The columns that are measured once per epoch."""
    return columns("train", "val")


def final_columns() -> tuple[str, ...]:
    """The columns that are measured once, after training."""
    return columns("test")


def is_column(name: str) -> bool:
    """Whether a column's name is that of a metric, recorded by this program or by a version with further metrics."""
    part, _, metric = name.partition("/")
    return part in PARTS and metric != ""


def metric_of(column: str) -> Metric:
    """The entry of a column such as `val/acc`.

    Raises:
        UserError: there is no such metric.
    """
    return METRICS[column.partition("/")[2]]


def higher_is_better(column: str) -> bool:
    """Which of two values of a column is better; raises as `metric_of`."""
    return metric_of(column).higher_is_better


def is_share(metric: str) -> bool:
    """Whether the values of a metric such as `acc` lie in [0, 1]."""
    return not METRICS[metric].unit


def label(column: str) -> str:
    """A column in words, e.g. "validation accuracy"; a metric that is not registered (any more) goes by its name."""
    part, _, name = column.partition("/")
    return f"{PARTS[part]} {METRICS[name].label if name in METRICS else name}"


def measure(part: str, outcomes: Outcomes, add_up: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """The recorded metrics of a part by column, each (R,) float64.

    Args:
        add_up: (K,) -> (K,), over processes that each saw some of the samples.
    """
    metrics = [METRICS[name] for name in recorded()]
    sums = [metric.sums(outcomes) for metric in metrics]
    if add_up is not None:
        sums = list(add_up(torch.cat(sums, -1)).split([one.shape[-1] for one in sums], -1))
    return {column: metric.value(one) for column, metric, one in zip(columns(part), metrics, sums, strict=True)}
