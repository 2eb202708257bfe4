"""Means with confidence intervals over seeds, and comparisons of configurations.

C configurations, B seeds (repetitions). Tables are (C, B) with NaN where there is no run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

LEVEL = 0.95
ALPHA = 0.05
ALL_PAIRS = 400  # configurations up to which every pair is tested; beyond, only those with the best


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its 95 % interval: `mean ± half`; NaN where there is none."""

    mean: float
    half: float
    runs: int


def mean_and_half(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, half width of Student's t interval, and count along the last axis; NaNs are left out.

    One value has a mean and no interval.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    filled = np.where(finite, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=-1) / count
        squares = (np.where(finite, values - mean[..., None], 0.0) ** 2).sum(axis=-1)
        error = np.sqrt(squares / (count - 1) / count)
        half = stdtrit(np.maximum(count - 1, 1), (1 + level) / 2) * error
    return mean, np.where(count > 1, half, np.nan), count


def marginal(table: np.ndarray, level: float = LEVEL) -> Estimate:
    """The mean over configurations, each with the same weight, with its interval over seeds.

    Where at least half of the seeds have all configurations, each of these seeds gives one mean and the interval is
    Student's over those means, so that it includes what the configurations of one seed have in common. Otherwise the
    variances of the configurations are added (Welch 1947, Satterthwaite 1946).

    Args:
        table: (C, B).
    """
    table = table[np.isfinite(table).any(axis=1)]
    runs = int(np.isfinite(table).sum())
    if not runs:
        return Estimate(np.nan, np.nan, 0)
    complete = np.isfinite(table).all(axis=0)
    if complete.sum() >= max(2, table.shape[1] / 2):
        mean, half, _ = mean_and_half(table[:, complete].mean(axis=0), level)
        return Estimate(float(mean), float(half), runs)
    cell_mean, _, count = mean_and_half(table)
    if not (count > 1).all():
        return Estimate(float(cell_mean.mean()), np.nan, runs)
    parts = np.nanvar(table, axis=1, ddof=1) / count / len(table) ** 2
    total = parts.sum()
    if total == 0:
        return Estimate(float(cell_mean.mean()), 0.0, runs)
    freedom = total**2 / (parts**2 / (count - 1)).sum()
    return Estimate(float(cell_mean.mean()), float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(total)), runs)


def cell_means(levels: np.ndarray, table: np.ndarray, keys: Sequence[int]) -> dict[tuple[int, ...], Estimate]:
    """The marginal mean in each combination of levels of some keys that has a run.

    Args:
        levels: (C, F) the level of each key in each configuration.
        table: (C, B).
        keys: columns of `levels`; without any, the mean of all is under ().
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for configuration, combination in enumerate(map(tuple, levels[:, list(keys)].tolist())):
        groups.setdefault(combination, []).append(configuration)
    estimates = {combination: marginal(table[members]) for combination, members in sorted(groups.items())}
    return {combination: estimate for combination, estimate in estimates.items() if estimate.runs}


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(C,) whether nothing else costs as little or less and gives as much or more; the first of equals counts."""
    best = -np.inf
    on_front = np.zeros(len(cost), bool)
    for place in np.lexsort((-gain, cost)):  # NaNs come last
        if np.isfinite(cost[place]) and gain[place] > best:
            on_front[place], best = True, gain[place]
    return on_front


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The best configuration against each of the C; NaN against itself and where nothing can be tested."""

    best: int
    difference: np.ndarray
    """(C,) mean of best minus other, over the seeds that both have"""
    half: np.ndarray
    """(C,) half width of the 95% interval of this difference alone"""
    p: np.ndarray
    """(C,) two-sided, uncorrected"""
    adjusted: np.ndarray
    """(C,) `p` corrected for all pairs"""
    seeds: np.ndarray
    """(C,) seeds in common, or the smaller count of the two where seeds are not shared"""
    num_pairs: int
    """pairs for which `adjusted` is corrected"""
    paired: bool
    method: str
    """`Holm`, or `Bonferroni` where there are too many pairs to test all"""

    @property
    def distinguishable(self) -> np.ndarray:
        """(C,) whether best and other differ at the 5 % level, corrected."""
        return self.adjusted <= ALPHA


def compare(table: np.ndarray, best: int, paired: bool = True, grain: float | None = None) -> Comparison:
    """Compare configuration `best` with all others by the paired t-test, or Welch's where seeds are not shared.

    p-values are corrected by Holm's method (1979) for all C (C - 1) / 2 pairs. The best was chosen with the same data,
    so any pair could have become the reported one; correcting for the C - 1 comparisons with the best is not enough
    where validation and test errors are correlated. Wilcoxon's signed-rank test is not used: with n seeds its p-value
    is at least 2 / 2^n, too large after the correction.

    Args:
        table: (C, B) of the metric.
        best: row of the best, chosen on validation.
        grain: see `granularity`; by default computed from `table`.
    """
    size = len(table)
    number = size * (size - 1) // 2
    test = _paired if paired else _welch
    grain = granularity(table) if grain is None else grain
    others = np.arange(size)
    difference, error, freedom, seeds = test(table, np.full(size, best), others, grain)
    p = _two_sided(difference, error, freedom)
    p[best] = np.nan
    half = np.where(np.isfinite(p), stdtrit(np.maximum(freedom, 1), 0.975) * error, np.nan)
    if size <= ALL_PAIRS:
        one, other = np.triu_indices(size, 1)
        all_p = _two_sided(*test(table, one, other, grain)[:3])
        corrected = holm(all_p)
        adjusted = np.full(size, np.nan)
        adjusted[other[one == best]] = corrected[one == best]
        adjusted[one[other == best]] = corrected[other == best]
        method = "Holm"
    else:
        adjusted, method = np.minimum(p * number, 1), "Bonferroni"
    return Comparison(
        best=best,
        difference=np.where(others == best, np.nan, difference),
        half=half,
        p=p,
        adjusted=adjusted,
        seeds=seeds,
        num_pairs=number,
        paired=paired,
        method=method,
    )


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


def signed_rank(differences: np.ndarray) -> float:
    """Wilcoxon's signed-rank test, two-sided, by its normal approximation with ties (Pratt 1959 not used)."""
    values = differences[np.isfinite(differences) & (differences != 0)]
    n = len(values)
    if n == 0:
        return 1.0
    _, inverse, count = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]
    positive = rank[values > 0].sum()
    variance = n * (n + 1) * (2 * n + 1) / 24 - (count**3 - count).sum() / 48
    return float(2 * ndtr(-abs(positive - n * (n + 1) / 4) / np.sqrt(variance)))


Test = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # difference, standard error, freedom, seeds


def _paired(table: np.ndarray, one: np.ndarray, other: np.ndarray, grain: float) -> Test:
    differences = table[one] - table[other]  # (P, B)
    finite = np.isfinite(differences)
    seeds = finite.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, differences, 0).sum(axis=1) / seeds
        squares = np.where(finite, (differences - mean[:, None]) ** 2, 0).sum(axis=1)
        variance = np.maximum(squares / (seeds - 1), _counted(grain))
        return mean, np.sqrt(variance / seeds), seeds - 1, seeds


def _welch(table: np.ndarray, one: np.ndarray, other: np.ndarray, grain: float) -> Test:
    count = np.isfinite(table).sum(axis=1)
    filled = np.where(np.isfinite(table), table, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=1) / count
        squares = np.where(np.isfinite(table), (table - mean[:, None]) ** 2, 0).sum(axis=1)
        part = np.where(count > 1, np.maximum(squares / (count - 1), _counted(grain) / 2) / count, np.nan)
        total = part[one] + part[other]
        freedom = total**2 / (part[one] ** 2 / (count[one] - 1) + part[other] ** 2 / (count[other] - 1))
    return mean[one] - mean[other], np.sqrt(total), freedom, np.minimum(count[one], count[other])


def _counted(grain: float) -> float:
    """A lower bound of the variance of a difference of two counted values: few equal differences are no evidence."""
    return grain**2 / 6  # two uniform errors of variance grain² / 12


def _two_sided(difference: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(error > 0, difference / error, np.where(difference == 0, 0, np.inf))
    return np.where((freedom >= 1) & np.isfinite(difference), 2 * stdtr(np.maximum(freedom, 1), -np.abs(t)), np.nan)
