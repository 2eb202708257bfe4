"""The metrics of an epoch: one registry entry each, from which columns, labels and directions follow.

A metric is a function of sums over samples. So it needs one pass, has a leading run axis for free, and the sums of
several processes add up. Columns are named PART/METRIC, e.g. `val/acc`; a metric with one value for each class has
columns such as `val/recall_0`.

Letters: R runs (the axis may be absent), n samples, C outputs (classes or targets), K sums.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpexp.nn import classification_scores, regression_scores
from mlpexp.nn.losses import BOTH, LOSSES, Task
from mlpexp.nn.outcomes import Outcomes, confusion, joined, labels_at, ratio
from mlpexp.runtime.lazy_import import LazyModule
from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

__all__ = ["METRICS", "Metric", "Outcomes", "confusion", "joined", "labels_at", "measure"]

PARTS = {"train": "training", "val": "validation", "test": "test"}
_OF_CLASS = re.compile(r"(.+)_(0|[1-9]\d*)")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        label, unit: for axes and tables, e.g. "loss", "nats"; no unit for shares.
        higher_is_better: which of two values is better.
        sums: outcomes -> (R, K) float64, added up over samples.
        value: (R, K) -> the metric, (R,) float64; (R, C) where there is one for each class.
        of_all_samples: outcomes -> (R,) float64, for a metric that is no function of sums; instead of the two above.
        reference: the class of torchmetrics that computes the same, for tests.
        recorded: computed for every run of its tasks and written to every file; others are chosen by `metrics`.
        tasks: for which it is defined.
        needs_outputs: it is computed from the network's outputs, not only from losses and predicted classes.
        per_class: it has one value for each class.
        bounded: without a unit, its values lie in [0, 1].
        least_classes: with fewer it is 1 for every network.
    """

    label: str
    unit: str
    higher_is_better: bool
    sums: Callable[[Outcomes], Tensor] | None = None
    value: Callable[[Tensor], Tensor] = ratio
    of_all_samples: Callable[[Outcomes], Tensor] | None = None
    reference: str = ""
    recorded: bool = True
    tasks: tuple[Task, ...] = ("classification",)
    needs_outputs: bool = False
    per_class: bool = False
    bounded: bool = True
    least_classes: int = 2

    @property
    def title(self) -> str:
        """E.g. "loss (nats)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _loss_sums(outcomes: Outcomes) -> Tensor:
    total = outcomes.losses.sum(-1, dtype=torch.float64)
    if outcomes.weights is None:
        size = torch.full_like(total, outcomes.losses.shape[-1])
    else:
        size = outcomes.weights.sum(-1, dtype=torch.float64)
    return torch.stack([total, size], -1)


def _chosen(label: str, **fields: object) -> Metric:
    """A metric of classifications that is recorded where it is chosen; larger is better unless said otherwise."""
    defaults: dict[str, object] = {"unit": "", "higher_is_better": True, "recorded": False}
    return Metric(label=label, **{**defaults, **fields})  # type: ignore[arg-type]


def _top(k: int) -> Metric:
    return _chosen(
        f"top-{k} accuracy",
        sums=classification_scores.top(k),
        needs_outputs=True,
        reference="classification.MulticlassAccuracy",
        least_classes=k + 1,
    )


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "loss": Metric(
            label=LOSSES["cross_entropy"].label,
            unit=LOSSES["cross_entropy"].unit,
            higher_is_better=False,
            sums=_loss_sums,
            reference="aggregation.MeanMetric",
            tasks=BOTH,
        ),
        "acc": Metric(
            label="accuracy",
            unit="",
            higher_is_better=True,
            sums=classification_scores.hits,
            reference="classification.MulticlassAccuracy",
        ),
        "f1": _chosen(
            "macro F1",
            sums=classification_scores.counts,
            value=classification_scores.macro_f1,
            reference="classification.MulticlassF1Score",
        ),
        "balanced_acc": _chosen(
            "balanced accuracy",
            sums=classification_scores.counts,
            value=classification_scores.balanced_accuracy,
            reference="classification.MulticlassRecall",
        ),
        "recall": _chosen(
            "recall",
            sums=classification_scores.counts,
            value=classification_scores.recall,
            per_class=True,
            reference="classification.MulticlassRecall",
        ),
        "top2": _top(2),
        "top3": _top(3),
        "top5": _top(5),
        "auroc": _chosen(
            "area under the ROC curve",
            of_all_samples=classification_scores.area_under_curve,
            needs_outputs=True,
            reference="classification.MulticlassAUROC",
        ),
        "nll": _chosen(
            "negative log-likelihood",
            unit="nats",
            higher_is_better=False,
            sums=classification_scores.negative_log_likelihood,
            needs_outputs=True,
        ),
        "brier": _chosen(
            "Brier score",
            higher_is_better=False,
            sums=classification_scores.brier,
            needs_outputs=True,
            bounded=False,
        ),
        "ece": _chosen(
            "calibration error",
            higher_is_better=False,
            sums=classification_scores.by_confidence,
            value=classification_scores.calibration_error,
            needs_outputs=True,
            reference="classification.MulticlassCalibrationError",
        ),
        "rmse": Metric(
            label="RMSE",
            unit="target units",
            higher_is_better=False,
            sums=regression_scores.squared,
            value=regression_scores.root_mean,
            tasks=("regression",),
            needs_outputs=True,
            reference="regression.MeanSquaredError",
        ),
        "mae": Metric(
            label="mean absolute error",
            unit="target units",
            higher_is_better=False,
            sums=regression_scores.absolute,
            recorded=False,
            tasks=("regression",),
            needs_outputs=True,
            reference="regression.MeanAbsoluteError",
        ),
        "r2": Metric(
            label="R²",
            unit="",
            higher_is_better=True,
            sums=regression_scores.moments,
            value=regression_scores.determination,
            recorded=False,
            tasks=("regression",),
            needs_outputs=True,
            bounded=False,
            reference="regression.R2Score",
        ),
    },
)


def recorded(task: Task = "classification", chosen: Iterable[str] = ()) -> tuple[str, ...]:
    """The metrics that a run of this task records, in the order of its columns.

    Args:
        chosen: beside those that every run of the task has.
    """
    wanted = set(chosen)
    return tuple(
        name for name, metric in METRICS.items() if task in metric.tasks and (metric.recorded or name in wanted)
    )


def columns(*parts: str, names: Sequence[str] | None = None, num_outputs: int = 0) -> tuple[str, ...]:
    """The columns of metrics (by default those that every classification records) of these parts, e.g. `train/loss`."""
    each = [
        column
        for name in (recorded() if names is None else names)
        for column in ([f"{name}_{k}" for k in range(num_outputs)] if METRICS[name].per_class else [name])
    ]
    return tuple(f"{part}/{name}" for part in parts for name in each)


def all_parts(found: Iterable[str]) -> list[str]:
    """For columns of some parts those of every part, in order; where there are none, the usual ones.

    What is not a metric of the registry, such as the share of pruned weights, keeps the parts that it has.
    """
    found = list(found)
    names = {name for column in found if _split(name := column.partition("/")[2])[0] in METRICS}
    wanted = [*(f"{part}/{name}" for part in PARTS for name in names), *found]
    return in_order(wanted) if names else list(columns(*PARTS))


def in_order(found: Iterable[str]) -> list[str]:
    """Columns of metrics by part, then in the order of the registry; those of unknown metrics last."""
    parts, names = list(PARTS), list(METRICS)

    def place(column: str) -> tuple[int, int, int]:
        part, _, name = column.partition("/")
        base, k = _split(name)
        return parts.index(part), names.index(base) if base in METRICS else len(names), k

    return sorted(dict.fromkeys(found), key=place)


def headline(found: Collection[str]) -> str:
    """The metric that people read first, of those with a validation column: accuracy, or RMSE, or the loss."""
    usual = (recorded(task)[1] for task in BOTH)
    return next((name for name in usual if f"val/{name}" in found), "loss")


def is_column(name: str) -> bool:
    """Whether a column's name is that of a metric, recorded by this program or by a version with further metrics."""
    part, _, metric = name.partition("/")
    return part in PARTS and metric != ""


def metric_of(column: str) -> Metric:
    """The entry of a column such as `val/acc`.

    Raises:
        UserError: there is no such metric.
    """
    return METRICS[_split(column.partition("/")[2])[0]]


def higher_is_better(column: str) -> bool:
    """Which of two values of a column is better; raises as `metric_of`."""
    return metric_of(column).higher_is_better


def is_share(metric: str) -> bool:
    """Whether the values of a metric such as `acc` lie in [0, 1]."""
    entry = METRICS[_split(metric)[0]]
    return not entry.unit and entry.bounded


def title(metric: str, losses: Collection[str] = ("cross_entropy",)) -> str:
    """A metric's label and unit, e.g. "loss (nats)"; where several losses are minimised, the loss has no unit."""
    if metric != "loss":
        return METRICS[metric].title if metric in METRICS else label(f"val/{metric}").removeprefix("validation ")
    if len(losses) != 1:
        return METRICS["loss"].label
    [loss] = losses
    return f"{LOSSES[loss].label} ({LOSSES[loss].unit})"


def label(column: str) -> str:
    """A column in words, e.g. "validation accuracy"; a metric that is not registered (any more) goes by its name."""
    part, _, name = column.partition("/")
    base, k = _split(name)
    words = METRICS[base].label if base in METRICS else name
    return f"{PARTS[part]} {words}" + (f" of class {k}" if base != name else "")


def _split(name: str) -> tuple[str, int]:
    """A metric's name and the class of a column such as `recall_3`; -1 for metrics without classes."""
    if name not in METRICS and (match := _OF_CLASS.fullmatch(name)) and match[1] in METRICS:
        return match[1], int(match[2])
    return name, -1


def measure(
    part: str,
    outcomes: Outcomes,
    add_up: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """The metrics of a part by column, each (R,) float64.

    Args:
        add_up: (K,) -> (K,), over processes that each saw some of the samples.
        names: of the metrics; by default those that every run of the task records.
    """
    if names is None:
        names = recorded("regression" if outcomes.predictions is None else "classification")
    entries = [METRICS[name] for name in names]
    sums = [entry.sums(outcomes) for entry in entries if entry.sums is not None]
    if add_up is not None:
        sums = list(add_up(torch.cat(sums, -1)).split([one.shape[-1] for one in sums], -1))
    remaining = iter(sums)
    found: dict[str, Tensor] = {}
    for name, entry in zip(names, entries, strict=True):
        if entry.sums is not None:
            value = entry.value(next(remaining))
        elif entry.of_all_samples is not None:
            value = entry.of_all_samples(outcomes)
        else:
            raise ValueError(f"the metric {name!r} has neither sums nor of_all_samples")
        each = value.unbind(-1) if entry.per_class else [value]
        found |= dict(zip(columns(part, names=[name], num_outputs=len(each)), each, strict=True))
    return found
