"""Columns of metrics: names, order, labels, directions, and their values for an epoch.

A column is named PART/METRIC, e.g. `val/acc`. A metric with one value for each class has columns such as
`val/recall_0`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.losses import BOTH, LOSSES
from mlpexp.nn.metrics import METRICS, Metric, recorded
from mlpexp.nn.outcomes import Outcomes

PARTS = {"train": "training", "val": "validation", "test": "test"}
_OF_CLASS = re.compile(r"(.+)_(0|[1-9]\d*)")


def columns(*parts: str, names: Sequence[str] | None = None, num_outputs: int = 0) -> tuple[str, ...]:
    """The columns of metrics (by default those that every classification records) of these parts, e.g. `train/loss`."""
    expanded = [
        column
        for name in (recorded() if names is None else names)
        for column in ([f"{name}_{k}" for k in range(num_outputs)] if METRICS[name].per_class else [name])
    ]
    return tuple(f"{part}/{name}" for part in parts for name in expanded)


def all_parts(column_names: Iterable[str]) -> list[str]:
    """The columns of the same metrics for every part, in order; without columns the default ones.

    A column that is no metric of the registry, such as the share of pruned weights, keeps its parts.
    """
    column_names = list(column_names)
    names = {name for column in column_names if _split(name := column.partition("/")[2])[0] in METRICS}
    every_part = [*(f"{part}/{name}" for part in PARTS for name in names), *column_names]
    return in_order(every_part) if names else list(columns(*PARTS))


def in_order(column_names: Iterable[str]) -> list[str]:
    """Columns of metrics by part, then in the order of the registry; those of unknown metrics last."""
    parts, names = list(PARTS), list(METRICS)

    def place(column: str) -> tuple[int, int, int]:
        part, _, name = column.partition("/")
        base, k = _split(name)
        return parts.index(part), names.index(base) if base in METRICS else len(names), k

    return sorted(dict.fromkeys(column_names), key=place)


def headline(column_names: Collection[str]) -> str:
    """The metric that people read first, of those with a validation column: accuracy, or RMSE, or the loss."""
    usual = (recorded(task)[1] for task in BOTH)
    return next((name for name in usual if f"val/{name}" in column_names), "loss")


def is_column(name: str) -> bool:
    """Whether a column's name is that of a metric, recorded by this program or by a version with further metrics."""
    part, _, metric = name.partition("/")
    return part in PARTS and metric != ""


def is_registered(column: str) -> bool:
    """Whether a column is that of a metric of the registry, and not e.g. of a callback."""
    return _split(column.partition("/")[2])[0] in METRICS


def metric_of(column: str) -> Metric:
    """The entry of a column such as `val/acc`.

    Raises:
        UserError: there is no such metric.
    """
    return METRICS[_split(column.partition("/")[2])[0]]


def higher_is_better(column: str) -> bool:
    """Whether larger values of a column are better; raises as `metric_of`."""
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
    """A column in words, e.g. "validation accuracy"; for a metric that is not registered, its name."""
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
        sums = list(add_up(torch.cat(sums, -1)).split([tensor.shape[-1] for tensor in sums], -1))
    remaining = iter(sums)
    values: dict[str, Tensor] = {}
    for name, entry in zip(names, entries, strict=True):
        if entry.sums is not None:
            value = entry.value(next(remaining))
        elif entry.of_all_samples is not None:
            value = entry.of_all_samples(outcomes)
        else:
            raise ValueError(f"the metric {name!r} has neither sums nor of_all_samples")
        class_values = value.unbind(-1) if entry.per_class else [value]
        values |= dict(zip(columns(part, names=[name], num_outputs=len(class_values)), class_values, strict=True))
    return values
