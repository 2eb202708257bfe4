"""The metrics of an epoch: one registry entry each, from which columns, labels and directions follow.

A metric is a function of sums over samples. So it needs one pass, works with a leading run axis, and the sums of
several processes add up. Names and values of their columns: `metric_columns.py`.

Letters: R runs (the axis may be absent), n samples, C outputs (classes or targets), K sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlpexp.nn import metric_formulas as formulas
from mlpexp.nn.lazy_torch import Tensor
from mlpexp.nn.losses import BOTH, LOSSES, Task
from mlpexp.nn.outcomes import Outcomes, confusion, ratio
from mlpexp.runtime.registry import Registry

__all__ = ["METRICS", "Metric", "Outcomes", "confusion"]


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


def _optional_metric(label: str, **fields: object) -> Metric:
    """A metric that is recorded only where it is chosen; by default larger values are better."""
    defaults: dict[str, object] = {"unit": "", "higher_is_better": True, "recorded": False}
    return Metric(label=label, **{**defaults, **fields})  # type: ignore[arg-type]


def _top(k: int) -> Metric:
    return _optional_metric(
        f"top-{k} accuracy",
        sums=formulas.top(k),
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
            sums=formulas.losses,
            reference="aggregation.MeanMetric",
            tasks=BOTH,
        ),
        "acc": Metric(
            label="accuracy",
            unit="",
            higher_is_better=True,
            sums=formulas.hits,
            reference="classification.MulticlassAccuracy",
        ),
        "f1": _optional_metric(
            "macro F1",
            sums=formulas.counts,
            value=formulas.macro_f1,
            reference="classification.MulticlassF1Score",
        ),
        "balanced_acc": _optional_metric(
            "balanced accuracy",
            sums=formulas.counts,
            value=formulas.balanced_accuracy,
            reference="classification.MulticlassRecall",
        ),
        "recall": _optional_metric(
            "recall",
            sums=formulas.counts,
            value=formulas.recall,
            per_class=True,
            reference="classification.MulticlassRecall",
        ),
        "top2": _top(2),
        "top3": _top(3),
        "top5": _top(5),
        "auroc": _optional_metric(
            "area under the ROC curve",
            of_all_samples=formulas.area_under_curve,
            needs_outputs=True,
            reference="classification.MulticlassAUROC",
        ),
        "nll": _optional_metric(
            "negative log-likelihood",
            unit="nats",
            higher_is_better=False,
            sums=formulas.negative_log_likelihood,
            needs_outputs=True,
        ),
        "brier": _optional_metric(
            "Brier score",
            higher_is_better=False,
            sums=formulas.brier,
            needs_outputs=True,
            bounded=False,
        ),
        "ece": _optional_metric(
            "calibration error",
            higher_is_better=False,
            sums=formulas.by_confidence,
            value=formulas.calibration_error,
            needs_outputs=True,
            reference="classification.MulticlassCalibrationError",
        ),
        "rmse": Metric(
            label="RMSE",
            unit="target units",
            higher_is_better=False,
            sums=formulas.squared,
            value=formulas.root_mean,
            tasks=("regression",),
            needs_outputs=True,
            reference="regression.MeanSquaredError",
        ),
        "mae": _optional_metric(
            "mean absolute error",
            unit="target units",
            higher_is_better=False,
            sums=formulas.absolute,
            tasks=("regression",),
            needs_outputs=True,
            reference="regression.MeanAbsoluteError",
        ),
        "r2": _optional_metric(
            "R²",
            sums=formulas.moments,
            value=formulas.determination,
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
    chosen_names = set(chosen)
    return tuple(
        name for name, metric in METRICS.items() if task in metric.tasks and (metric.recorded or name in chosen_names)
    )
