"""Which configuration is best: the one ranking of terminal, report, search and TensorBoard.

Configurations are ordered by the mean of a validation metric over their runs; no test number has a part in it.
"""

from dataclasses import dataclass

import numpy as np

from mlpexp.analysis.blocks import Blocks
from mlpexp.analysis.statistics import Estimate, mean_and_half
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.nn.metric_columns import headline, higher_is_better


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """All C configurations; arrays are by configuration, `order` is from best to worst."""

    by: str
    """the validation metric that decides"""
    order: np.ndarray
    """(C,) the best first; those without a finite run last"""
    means: dict[str, np.ndarray]
    """metric -> (C,) mean over the runs that count"""
    halves: dict[str, np.ndarray]
    """metric -> (C,) half of its 95 % interval"""
    finished: np.ndarray
    """(C,) runs that count in the means"""
    blocks: np.ndarray
    """(C,) seeds, folds or data seeds that the intervals are computed from"""
    runs: np.ndarray
    """(C,) all runs"""
    diverged: np.ndarray
    """(C,) runs without finite numbers"""
    chance: np.ndarray
    """(C,) runs that are no better than guessing"""

    @property
    def best(self) -> int | None:
        """None where no run has finite numbers."""
        return int(self.order[0]) if len(self.order) and self.finished[self.order[0]] else None

    @property
    def ranked(self) -> list[int]:
        """The configurations that have a mean, from best to worst."""
        return [c for c in self.order.tolist() if self.finished[c]]

    def estimate(self, configuration: int, metric: str) -> Estimate:
        return Estimate(
            float(self.means[metric][configuration]),
            float(self.halves[metric][configuration]),
            int(self.blocks[configuration]),
        )


def is_loss_key(key: str) -> bool:
    """Whether values of the loss of runs that differ in this key cannot be compared."""
    return key in ("loss.name", "loss.delta") or key.startswith("loss.options")  # of a user-defined loss


def best_first(values: np.ndarray, metric: str) -> np.ndarray:
    """Numbers by which values of a metric such as `val/acc` are sorted: the best first, NaN last."""
    return -values if higher_is_better(metric) else values


def usual_metric(table: SweepTable, monitor: str) -> str:
    """The validation metric that decides by default: the one that the runs monitored.

    Where several losses were minimised their values cannot be compared; accuracy decides then, or RMSE.
    """
    is_loss_swept = any(is_loss_key(key.name) and len(key.levels) > 1 for key in table.factors)
    return f"val/{headline(table.values)}" if is_loss_swept and monitor == "val/loss" else monitor


def rank(blocks: Blocks, by: str) -> Ranking:
    """Order configurations by the mean of the validation metric `by`, ties by the other validation metric.

    Configurations with less than half of the usual number of counted runs (the median), and those with a diverged
    run, come after the others: the mean of the remaining runs is too optimistic for them.
    """
    means, halves, table = {}, {}, blocks.study
    counts = np.zeros(table.num_configurations, int)
    for metric in table.values:
        means[metric], halves[metric], count = mean_and_half(blocks.table(metric), sampling=blocks.sampling)
        if metric == by:
            counts = count
    counted = table.counted & np.isfinite(table.values[by])
    finished = np.bincount(table.configuration[counted], minlength=table.num_configurations)
    second = next((name for name in table.values if name.startswith("val/") and name != by), by)
    usual = np.median(finished[finished > 0]) if finished.any() else 0
    diverged = _count(table, "diverged")
    is_behind = (diverged > 0) & (not table.counts_diverged)
    keys = best_first(means[second], second), best_first(means[by], by), is_behind, finished < usual / 2
    return Ranking(
        by=by,
        order=np.lexsort((*keys, finished == 0)),
        means=means,
        halves=halves,
        finished=finished,
        blocks=counts,
        runs=np.array([len(members) for members in table.members], dtype=int),
        diverged=diverged,
        chance=_count(table, "chance"),
    )


def best_run(table: SweepTable, ranking: Ranking) -> int | None:
    """The run of the best configuration with the best value of the metric that decides."""
    if ranking.best is None:
        return None
    members = table.members[ranking.best]
    values = best_first(np.where(table.counted, table.values[ranking.by], np.nan), ranking.by)[members]
    return int(members[np.nanargmin(values)])


def _count(table: SweepTable, status: str) -> np.ndarray:
    return np.array([(table.status[members] == status).sum() for members in table.members], dtype=int)
