"""The best configuration against every other one: better, equivalent, or undecided with the seeds that may decide it.

C configurations, B blocks (seeds, folds), NaN where there is no run.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from mlpexp.analysis import layout, max_statistic
from mlpexp.analysis.max_statistic import ALPHA, FEWEST_BLOCKS, SignFlips
from mlpexp.analysis.statistics import granularity, holm

POWER = 0.8
MOST_SEEDS = 10_000  # more are not proposed


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Arrays (C,) are of the best against each; NaN against itself and where nothing can be tested."""

    best: int
    difference: np.ndarray
    """mean of best minus other, adjusted for blocks that one of them lacks"""
    half: np.ndarray
    """half width of the 95 % interval of this difference alone"""
    p: np.ndarray
    """two-sided, of this difference alone"""
    adjusted: np.ndarray
    """`p` for all comparisons with the best and for the choice of the best: family-wise"""
    equivalence: np.ndarray
    """p of the hypothesis that they differ by the margin or more (two one-sided tests), Holm; NaN without a margin"""
    further_seeds: np.ndarray
    """further seeds that would decide with a probability of about 80 %; 0 where decided; NaN where there is no test"""
    seeds: np.ndarray
    """blocks in common, or the smaller count of the two where blocks are not shared"""
    margin: float | None
    method: str
    """`sign flips`, or `studentized range` where there are too few blocks or they are not shared"""
    paired: bool
    sampling: float
    """test samples over training samples, for folds (Nadeau & Bengio 2003); 0 for seeds"""
    freedom: np.ndarray
    """degrees of freedom of the standard error"""
    prior: float
    """degrees of freedom with which the variance pooled over configurations counts"""

    @property
    def distinguishable(self) -> np.ndarray:
        """(C,) whether best and other differ, family-wise at the 5 % level."""
        return self.adjusted <= ALPHA

    @property
    def equivalent(self) -> np.ndarray:
        """(C,) whether the difference is smaller than the margin, and not known to be none."""
        return (self.equivalence <= ALPHA) & ~self.distinguishable

    @property
    def undecided(self) -> np.ndarray:
        """(C,) tested, and neither of the two."""
        return np.isfinite(self.adjusted) & ~self.distinguishable & ~self.equivalent

    def answer(self, configuration: int, higher_is_better: bool) -> str:
        """`worse` or `better` than the best, `equivalent`, `undecided`; empty where there is no test."""
        if self.distinguishable[configuration]:
            return "worse" if (self.difference[configuration] > 0) == higher_is_better else "better"
        return "equivalent" if self.equivalent[configuration] else "undecided" * bool(self.undecided[configuration])


def compare(
    reported: np.ndarray,
    best: int,
    decisive: np.ndarray | None = None,
    *,
    paired: bool = True,
    sampling: float = 0.0,
    margin: float | None = None,
    grain: float | None = None,
) -> Comparison:
    """Compare configuration `best` with all others.

    With six or more shared blocks, p-values are those of the largest statistic over sign flips of the blocks. With
    fewer, no resampling test can reach 5 % (two of 2^5 sign patterns are 6 %), and where blocks are not shared there
    is nothing to flip: then variances are pooled over configurations as far as they are alike, errors are taken as
    normal, and p-values are those of the studentized range. Folds share training samples; their standard error is
    corrected and their signs are not independent, so they are never flipped.

    Args:
        reported: (C, B) of the metric that is reported.
        best: the row that was chosen.
        decisive: (C, B) of the metric that chose it, larger is better; by default what is reported, the worst case.
        paired: whether block b is the same (seed, fold) in all configurations.
        sampling: test samples over training samples, where blocks are folds or other random splits.
        margin: differences below it do not matter.
        grain: see `granularity`; by default computed from `reported`.
    """
    grain = granularity(reported) if grain is None else grain
    fitted = layout.fit(reported, grain, paired)
    size, count = len(reported), fitted.count
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_variance = fitted.variance * (1 / count + sampling)
        variance = mean_variance + mean_variance[best]
        error = np.sqrt(variance)
        freedom = variance**2 / (mean_variance**2 / fitted.freedom + mean_variance[best] ** 2 / fitted.freedom[best])
        freedom = np.minimum(freedom, fitted.total)
        difference = fitted.mean[best] - fitted.mean
        t = np.where(difference == 0, 0, np.abs(difference) / error)
    tested = (count > 0) & np.isfinite(error) & (freedom > 0) & (count[best] > 0)
    tested[best] = False
    t, freedom = np.where(tested, t, np.nan), np.where(tested, freedom, np.nan)
    flips = paired and not sampling and bool(tested.any()) and _has_enough_blocks(reported, best, tested)
    if flips:
        chosen_by = reported if decisive is None else decisive
        adjusted = max_statistic.sequential(size, best, tested, _sign_flip_step(reported, chosen_by, best, grain))
    else:

        def by_range(members: np.ndarray) -> np.ndarray:
            return max_statistic.range_p(t[members], len(members), freedom[members])

        adjusted = max_statistic.sequential(size, best, tested, by_range)
    equivalence = np.full(size, np.nan) if margin is None else _equivalence(difference, error, freedom, tested, margin)
    return Comparison(
        best=best,
        difference=np.where(tested, difference, np.nan),
        half=np.where(tested, stdtrit(freedom, 0.975) * error, np.nan),
        p=2 * stdtr(freedom, -t),
        adjusted=adjusted,
        equivalence=equivalence,
        further_seeds=_further_seeds(difference, error, count, best, adjusted, equivalence, margin, int(tested.sum())),
        seeds=_common_blocks(reported, best) if paired else np.minimum(count, count[best]),
        margin=margin,
        method="sign flips" if flips else "studentized range",
        paired=paired,
        sampling=sampling,
        freedom=freedom,
        prior=fitted.prior,
    )


def _equivalence(
    difference: np.ndarray, error: np.ndarray, freedom: np.ndarray, tested: np.ndarray, margin: float
) -> np.ndarray:
    """(C,) the larger p-value of two one-sided tests against the margin, corrected by Holm."""
    p = np.full(len(difference), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        p[tested] = holm(stdtr(freedom, -(margin - np.abs(difference)) / error)[tested])
    return p


def _common_blocks(reported: np.ndarray, best: int) -> np.ndarray:
    return (np.isfinite(reported) & np.isfinite(reported[best])).sum(axis=1)


def _has_enough_blocks(reported: np.ndarray, best: int, tested: np.ndarray) -> bool:
    return bool((_common_blocks(reported, best)[tested] >= FEWEST_BLOCKS).all())


def _sign_flip_step(reported: np.ndarray, decisive: np.ndarray, best: int, grain: float) -> max_statistic.Step:
    signs = max_statistic.sign_patterns(reported.shape[1])

    def step(members: np.ndarray) -> np.ndarray:
        family = SignFlips(
            reported=_without_blocks(reported[members]),
            decisive=_without_blocks(decisive[members]),
            grain=grain,
            signs=signs,
        )
        return family.p(int(np.flatnonzero(members == best)[0]))

    return step


def _without_blocks(values: np.ndarray) -> np.ndarray:
    values = values - layout.block_effects(values)
    return values - np.nanmean(values)


def _further_seeds(
    difference: np.ndarray,
    error: np.ndarray,
    count: np.ndarray,
    best: int,
    adjusted: np.ndarray,
    equivalence: np.ndarray,
    margin: float | None,
    tests: int,
) -> np.ndarray:
    """(C,) further seeds after which the difference that was seen would be decided with a probability of 80 %.

    By normal quantiles and Bonferroni's level, for the nearer of the two answers; at least one, and as many as bring
    the smaller of the two to the size that is needed.
    """
    needed = np.full(len(difference), np.nan)
    undecided = np.isfinite(adjusted) & (adjusted > ALPHA) & ~(equivalence <= ALPHA)
    needed[np.isfinite(adjusted) & ~undecided] = 0
    if not undecided.any():
        return needed
    with np.errstate(invalid="ignore", divide="ignore"):
        runs = 2 / (1 / count + 1 / count[best])
        effect_size = np.abs(difference) / (error * np.sqrt(runs))  # in standard deviations of one paired difference
        seeds = ((ndtri(1 - ALPHA / 2 / tests) + ndtri(POWER)) / effect_size) ** 2
        if margin is not None:
            gap = (margin - np.abs(difference)) / (error * np.sqrt(runs))
            margin_seeds = np.where(gap > 0, ((ndtri(1 - ALPHA / tests) + ndtri(POWER)) / gap) ** 2, np.inf)
            seeds = np.minimum(seeds, margin_seeds)
    seeds = np.maximum(np.ceil(seeds) - np.minimum(count, count[best]), 1)
    needed[undecided] = np.where(seeds > MOST_SEEDS, np.inf, seeds)[undecided]
    return needed
