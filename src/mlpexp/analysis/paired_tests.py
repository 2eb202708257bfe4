"""Is the best really better? Paired over seeds, and corrected for having looked at every pair."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

ALPHA = 0.05
ALL_PAIRS = 400  # configurations up to which every pair is tested; beyond, only those with the best


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
    """(C,) corrected for all pairs"""
    seeds: np.ndarray
    """(C,) in common, or the smaller count of the two where seeds are not shared"""
    num_pairs: int
    """for which `adjusted` is corrected"""
    paired: bool
    method: str
    """`Holm`, or `Bonferroni` where there are too many pairs to test all"""

    @property
    def distinguishable(self) -> np.ndarray:
        """(C,) whether best and other differ at the 5 % level, corrected."""
        return self.adjusted <= ALPHA


def compare(table: np.ndarray, best: int, paired: bool = True, grain: float | None = None) -> Comparison:
    """Compare configuration `best` with all others.

    The best was chosen by looking at the data, so any pair could have become the one reported. Correcting for the
    C - 1 comparisons with the best would be too little where validation and test errors are correlated: best
    against worst is the range of C values. Hence Holm's method (1979) over all C (C - 1) / 2 pairs, which holds
    whichever of them is read, and whichever configurations are truly equal.

    A paired t-test, not Wilcoxon's: with n seeds the signed-rank test cannot go below 2 / 2^n, which after the
    correction would hide any difference for the few seeds that are usual. Where configurations do not share seeds,
    Welch's t-test.

    Args:
        table: (C, B) the metric by configuration and seed; NaN where there is none.
        best: row of the best, chosen without `table`, e.g. on validation.
        grain: the step in which the metric is counted, where more is known than this table shows.
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
    """The variance that counting in steps adds to a difference of two: three equal differences prove nothing."""
    return grain**2 / 6  # two uniform errors of variance grain² / 12


def _two_sided(difference: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(error > 0, difference / error, np.where(difference == 0, 0, np.inf))
    return np.where((freedom >= 1) & np.isfinite(difference), 2 * stdtr(np.maximum(freedom, 1), -np.abs(t)), np.nan)
