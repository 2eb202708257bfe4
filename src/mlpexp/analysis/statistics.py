"""Means with confidence intervals over seeds.

C configurations, B seeds (repetitions). Tables are (C, B) with NaN where there is no run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    from scipy import special
else:
    special = LazyModule("scipy.special")

LEVEL = 0.95
LONG = 1e6  # from here on a number is written with an exponent


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its 95 % interval: `mean ± half`; NaN where there is none."""

    mean: float
    half: float
    runs: int
    """values that the interval is computed from"""

    def __str__(self) -> str:
        """`0.9712 ± 0.0021`, without an interval where there is none."""
        if not math.isfinite(self.mean):
            return "–"
        has_interval = math.isfinite(self.half)
        longest = max(abs(self.mean), self.half if has_interval else 0.0)
        kind = ".4f" if longest < LONG else ".3e"  # of a run that has nearly diverged
        return f"{self.mean:{kind}}" + f" ± {self.half:{kind}}" * has_interval


def mean_and_half(values: np.ndarray, sampling: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, half width of Student's t interval, and count along the last axis; NaNs are left out.

    One value has a mean and no interval.

    Args:
        sampling: measured over training samples, where values are of parts of one data set: their training samples
            overlap, and the variance of the mean is larger by this share (Nadeau & Bengio 2003).
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    filled = np.where(finite, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / count
        squares = (np.where(finite, values - mean[..., None], 0.0) ** 2).sum(axis=-1)
        error = np.sqrt(squares / (count - 1) * (1 / count + sampling))
        half = special.stdtrit(np.maximum(count - 1, 1), (1 + LEVEL) / 2) * error
    return mean, np.where(count > 1, half, np.nan), count


def marginal(table: np.ndarray, sampling: float = 0.0) -> Estimate:
    """The mean over configurations, each with the same weight, with its interval over seeds.

    Where at least half of the seeds have all configurations, each of these seeds gives one mean and the interval is
    Student's over those means, so that it includes what the configurations of one seed have in common. Otherwise the
    variances of the configurations are added (Welch 1947, Satterthwaite 1946).

    Args:
        table: (C, B).
        sampling: see `mean_and_half`.
    """
    table = table[np.isfinite(table).any(axis=1)]
    runs = int(np.isfinite(table).sum())
    if not runs:
        return Estimate(np.nan, np.nan, 0)
    complete = np.isfinite(table).all(axis=0)
    if complete.sum() >= max(2, table.shape[1] / 2):
        mean, half, _ = mean_and_half(table[:, complete].mean(axis=0), sampling)
        return Estimate(float(mean), float(half), runs)
    cell_mean, _, count = mean_and_half(table)
    if not (count > 1).all():
        return Estimate(float(cell_mean.mean()), np.nan, runs)
    mean_variances = np.nanvar(table, axis=1, ddof=1) * (1 / count + sampling) / len(table) ** 2
    total = mean_variances.sum()
    if total == 0:
        return Estimate(float(cell_mean.mean()), 0.0, runs)
    freedom = total**2 / (mean_variances**2 / (count - 1)).sum()
    return Estimate(float(cell_mean.mean()), float(special.stdtrit(freedom, (1 + LEVEL) / 2) * np.sqrt(total)), runs)


def cell_means(
    levels: np.ndarray, table: np.ndarray, keys: Sequence[int], sampling: float = 0.0
) -> dict[tuple[int, ...], Estimate]:
    """The marginal mean in each combination of levels of some keys that has a run.

    Args:
        levels: (C, F) the level of each key in each configuration.
        table: (C, B).
        keys: columns of `levels`; without any, the mean of all is under ().
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for configuration, combination in enumerate(map(tuple, levels[:, list(keys)].tolist())):
        groups.setdefault(combination, []).append(configuration)
    estimates = {
        combination: marginal(table[members], sampling=sampling) for combination, members in sorted(groups.items())
    }
    return {combination: estimate for combination, estimate in estimates.items() if estimate.runs}


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(C,) whether nothing else costs as little or less and gives as much or more; the first of equals counts."""
    best = -np.inf
    on_front = np.zeros(len(cost), bool)
    for index in np.lexsort((-gain, cost)):  # NaNs come last
        if np.isfinite(cost[index]) and gain[index] > best:
            on_front[index], best = True, gain[index]
    return on_front


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979); NaN counts as a test that failed."""
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.where(np.isnan(p), 1, p)[order] * steps), 1)
    return np.where(np.isnan(p), np.nan, adjusted)


def granularity(values: np.ndarray) -> float:
    """The step in which a metric is counted: 1/n for accuracies over n samples, nearly 0 for a loss."""
    distinct = np.unique(values[np.isfinite(values)])
    steps = np.diff(distinct)
    steps = steps[steps > 1e-9]
    return float(steps.min()) if steps.size else 0.0
