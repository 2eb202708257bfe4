"""The score of the configuration that was chosen as the best, corrected for the choice.

The seeds with which a configuration is the best on validation data also tend to be good on test data, so that its mean
over them is too good. C configurations, B repetitions (seeds, folds), NaN where there is no run.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from mlpexp.analysis.blocks import Blocks
from mlpexp.analysis.ranking import Ranking, best_first
from mlpexp.analysis.statistics import LEVEL, granularity, mean_and_half
from mlpexp.nn.metric_columns import higher_is_better, is_share

CHOICE_LEVEL = 0.05  # one-sided level of the test that keeps a configuration among those that could have been chosen


@dataclass(frozen=True, kw_only=True)
class BestScore:
    """NaN where there is no number: with one repetition there is neither a correction nor an interval."""

    mean: float
    """over all repetitions of the best, those included by which it was chosen: too good on average"""
    corrected: float
    """each repetition scored by the configuration that the other repetitions choose: without that bias"""
    low: float
    high: float
    """95 % interval for the mean over further repetitions of the chosen configuration"""
    repetitions: int
    choices: int
    """configurations that could have been chosen as well, the best among them"""


def best_score(
    decisive: np.ndarray,
    reported: np.ndarray,
    best: int,
    *,
    higher_is_better: bool = True,
    shares_blocks: bool = True,
    sampling: float = 0.0,
    grain: float | None = None,
) -> BestScore:
    """Estimate the reported score of the configuration `best`, which the means of `decisive` have chosen.

    The estimate leaves one repetition out at a time: the others choose a configuration, which the one left out scores
    (the split of choosing and estimating of cross-validation, Stone 1974; Varma & Simon 2006). It estimates what
    choosing with one repetition less is worth.

    The interval is for the chosen configuration itself. Towards the better it is Student's. Towards the worse it allows
    for the choice among the K configurations that could have been chosen (a one-sided Welch test at 5 % does not
    distinguish their decisive means from that of the best): the quantile is that of the maximum of K (Sidak 1967),
    simultaneous over the plausible choices only (Zrnic & Fithian 2024). Its variance is the larger one of the chosen
    configuration's own and of that pooled over the K, since a configuration may fail with other seeds although it has
    not failed with these few.

    Args:
        decisive: (C, B) of the metric that chose, larger is better; rows that could not be chosen are NaN.
        reported: (C, B) of the metric that is reported.
        best: the row that was chosen.
        higher_is_better: whether larger values of `reported` are better.
        shares_blocks: whether repetition b has the same seed in every configuration.
        sampling: test samples over training samples where repetitions are folds (Nadeau & Bengio 2003), else 0.
        grain: the step in which `reported` is counted; by default computed from it.
    """
    grain = granularity(reported) if grain is None else grain
    sign = 1.0 if higher_is_better else -1.0
    scores = sign * reported
    values = scores[best][np.isfinite(scores[best])]
    n = len(values)
    if n == 0:
        return BestScore(mean=np.nan, corrected=np.nan, low=np.nan, high=np.nan, repetitions=0, choices=0)
    choices = _plausible_choices(decisive, scores, best)
    mean = float(values.mean())
    corrected, low, high = np.nan, np.nan, np.nan
    if n > 1:
        corrected = _leave_one_out_mean(decisive, scores)
        rounding = grain**2 / 2  # a few equal counts do not show that the variance is small
        variance = float(values.var(ddof=1)) + rounding
        pooled, freedom = _pooled(scores[choices], n - 1, shares_blocks)
        error, pooled_error = np.sqrt((np.array([variance, pooled + rounding])) * (1 / n + sampling))
        tail = (1 + LEVEL) / 2
        student_half = stdtrit(n - 1, tail) * error
        high = mean + max(student_half, stdtrit(freedom, tail) * pooled_error)
        low = mean - max(student_half, stdtrit(freedom, tail ** (1 / len(choices))) * max(error, pooled_error))
    low, high = (low, high) if higher_is_better else (-high, -low)
    return BestScore(
        mean=sign * mean,
        corrected=sign * corrected,
        low=float(low),
        high=float(high),
        repetitions=n,
        choices=len(choices),
    )


def score_of_best(blocks: Blocks, ranking: Ranking, reported: str, samples: int = 0) -> BestScore | None:
    """The score of a sweep's best configuration in the metric `reported`; None where there is no best.

    The interval of a share ends at 0 and 1, which its mean cannot pass: that does not change its coverage.
    Configurations that are ranked behind others for their diverged or missing runs could not be chosen.

    Args:
        samples: of the test part, where `reported` is an accuracy on it and the number is known.
    """
    best = ranking.best
    if best is None:
        return None
    decisive = -best_first(blocks.table(ranking.by), ranking.by)
    excluded = (not blocks.study.counts_diverged) & (ranking.diverged > 0) & (ranking.diverged[best] == 0)
    decisive[excluded] = np.nan
    score = best_score(
        decisive,
        blocks.table(reported),
        best,
        higher_is_better=higher_is_better(reported),
        shares_blocks=blocks.shared,
        sampling=blocks.sampling,
        grain=1 / samples if samples else None,
    )
    if not is_share(reported.partition("/")[2]):
        return score
    low, high = np.clip([score.low, score.high], 0, 1).tolist()
    return replace(score, low=low, high=high)


def _plausible_choices(decisive: np.ndarray, scores: np.ndarray, best: int) -> np.ndarray:
    """The rows whose mean of `decisive` is not significantly below that of the best; the best is one of them."""
    mean, _, count = mean_and_half(decisive)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.where(np.isfinite(decisive), (decisive - mean[:, None]) ** 2, 0).sum(axis=1)
        mean_variance = squares / (count - 1) / count
        variance = mean_variance + mean_variance[best]
        freedom = variance**2 / (mean_variance**2 / (count - 1) + mean_variance[best] ** 2 / (count[best] - 1))
        threshold = np.where(variance > 0, stdtrit(np.maximum(freedom, 1), 1 - CHOICE_LEVEL) * np.sqrt(variance), 0)
        plausible = (mean[best] - mean <= threshold) & (count > 1) & (np.isfinite(scores).sum(axis=1) > 1)
    plausible[best] = True
    return np.flatnonzero(plausible)


def _pooled(scores: np.ndarray, freedom: int, shares_blocks: bool) -> tuple[float, float]:
    """The mean variance of one run over rows of `scores`, and its degrees of freedom, at least `freedom`.

    What rows have in common in a block is part of the variance, but counts as one row: Satterthwaite (1946).
    """
    finite = np.isfinite(scores)
    count = finite.sum(axis=1, keepdims=True)
    residual = np.where(finite, scores - np.where(finite, scores, 0).sum(axis=1, keepdims=True) / count, 0)
    pooled_freedom = int((count - 1).sum())
    pooled = float((residual**2).sum() / pooled_freedom)
    if len(scores) == 1 or pooled == 0 or not shares_blocks:
        return pooled, float(pooled_freedom)
    rows, blocks = len(scores), int(finite.any(axis=0).sum())
    shared = float((residual.sum(axis=0) ** 2 / np.maximum(finite.sum(axis=0), 1)).sum()) / max(blocks - 1, 1)
    remaining = max(rows * pooled - shared, 0)
    remaining_freedom = max(pooled_freedom - (blocks - 1), 1)
    spread = shared**2 / max(blocks - 1, 1) + remaining**2 / remaining_freedom
    return pooled, max(float((shared + remaining) ** 2 / spread), float(freedom))


def _leave_one_out_mean(decisive: np.ndarray, scores: np.ndarray) -> float:
    """The mean over repetitions of the score of the row that the other repetitions choose."""
    finite = np.isfinite(decisive)
    filled = np.where(finite, decisive, 0)
    num_others = finite.sum(axis=1, keepdims=True) - finite
    means = np.where(num_others > 0, filled.sum(axis=1, keepdims=True) - filled, -np.inf) / np.maximum(num_others, 1)
    means = np.where(np.isfinite(scores) & finite, means, -np.inf)
    choice = means.argmax(axis=0)
    columns = np.arange(scores.shape[1])
    valid = np.isfinite(means[choice, columns])
    return float(scores[choice, columns][valid].mean()) if valid.any() else np.nan
