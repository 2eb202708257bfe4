"""Family-wise p-values of comparisons with the best: the maximum over all of them, after the best was chosen.

S configurations, B blocks, K resamples. The configuration that validation prefers is compared with every other one.
Among equal configurations the largest of these differences is larger than a single one, and larger still where
validation and reported values are correlated, since the choice favours random advantages. The distribution of the
maximum contains both effects: each resample chooses its own best.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, ndtr

from mlpexp.analysis.layout import moderated

ALPHA = 0.05
FEWEST_BLOCKS = 6  # 2 of 2^5 sign patterns are more than 5 %
ALL_PATTERNS = 11  # blocks up to which every sign pattern is used
PATTERNS = 2000  # otherwise
CELLS = 2_000_000  # of one array of resamples
Step = Callable[[np.ndarray], np.ndarray]
LOG_SIGMA = np.linspace(-30, 3, 1100)  # of a standard deviation that is estimated with one degree of freedom or more


def sequential(size: int, best: int, tested: np.ndarray, step: Step) -> np.ndarray:
    """(S,) adjusted p-values by sequential rejection (Westfall & Young 1993; Goeman & Solari 2010, Ann. Stat. 38).

    What is rejected at 5 % leaves the family, and the rest is tested again as a smaller one.

    Args:
        tested: (S,) whether there is a test.
        step: p-values of the configurations with these indices, the best among them, as one family.
    """
    adjusted = np.full(size, np.nan)
    remaining = tested.copy()
    remaining[best] = False
    previous = 0.0
    while remaining.any():
        members = np.flatnonzero(remaining | (np.arange(size) == best))
        p = np.full(size, np.nan)
        p[members] = np.maximum(step(members), previous)
        adjusted[remaining] = p[remaining]
        rejected = remaining & (p <= ALPHA)
        if not rejected.any():
            break
        previous = float(p[rejected].max())
        remaining &= ~rejected
    return adjusted


def range_p(t: np.ndarray, groups: int, freedom: np.ndarray) -> np.ndarray:
    """P-values of |t| by the studentized range of `groups` means (Tukey 1953; Kramer 1956; Games & Howell 1976).

    It is the distribution of the maximum where validation and reported values are the same, the worst case.
    `scipy.stats.studentized_range` gives the same numbers, some 7 ms each; here they share the range of normal values
    and the trapezoidal rule over the logarithm of the standard deviation.
    """
    p = np.full(len(t), np.nan)
    testable = np.flatnonzero(np.isfinite(t) & (freedom > 0))
    widths, log_survival = _normal_range(groups)
    for chunk in np.array_split(testable, max(len(testable) * LOG_SIGMA.size // CELLS, 1)):
        df = np.minimum(freedom[chunk, None], 500)
        # density of log(s), where df s^2 is chi-squared
        density = np.exp(df * LOG_SIGMA - df / 2 * np.exp(2 * LOG_SIGMA) + df / 2 * np.log(df / 2) - gammaln(df / 2))
        beyond = np.exp(np.interp(t[chunk, None] * np.sqrt(2) * np.exp(LOG_SIGMA), widths, log_survival))
        weight = 2 * density * (LOG_SIGMA[1] - LOG_SIGMA[0])
        p[chunk] = (weight * beyond).sum(axis=1) / weight.sum(axis=1)
    return np.clip(p, 0, 1)


@lru_cache(maxsize=256)
def _normal_range(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Widths, and the logarithm of the probability that the range of `groups` standard normal values is larger."""
    z = np.arange(-9, 9.05, 0.1)
    widths = np.concatenate([np.arange(0, 16, 0.02), np.geomspace(16, 1e6, 50)])
    probability = np.maximum(ndtr(z) - ndtr(z - widths[:, None]), 1e-300)  # (W, Z)
    within = groups * (np.exp(-(z**2) / 2 + (groups - 1) * np.log(probability)).sum(axis=1)) * 0.1 / np.sqrt(2 * np.pi)
    return widths, np.log(np.clip(1 - within, 1e-16, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class SignFlips:
    """The distribution of the maximum by sign flips.

    A sign for each block turns all differences of the block at once: under the hypothesis that the configurations are
    equal, a difference is as often positive as negative.
    """

    reported: np.ndarray
    """(S, B), NaN where there is no run"""
    decisive: np.ndarray
    """(S, B) of the metric that chooses; larger is better"""
    grain: float
    signs: np.ndarray
    """(K, B), see `sign_patterns`"""

    def p(self, best: int) -> np.ndarray:
        """(S,) p-values of the comparisons of `best` with each as one family.

        Args:
            best: a row; the one that validation prefers.
        """
        observed = self._t(self.signs[:1], np.array([best]))[0]
        exceeded = np.zeros(len(self.reported), int)
        size = max(CELLS // len(self.reported), 1)
        for start in range(0, len(self.signs), size):
            signs = self.signs[start : start + size]
            maximum = self._t(signs, self._best_rows(signs)).max(axis=1)  # (k,)
            ordered = np.sort(maximum)
            exceeded += len(ordered) - np.searchsorted(ordered, observed * (1 - 1e-12))
        return np.maximum(exceeded, 1) / len(self.signs)

    def _best_rows(self, signs: np.ndarray) -> np.ndarray:
        finite = np.isfinite(self.decisive)
        means = signs @ np.where(finite, self.decisive, 0).T / np.maximum(finite.sum(axis=1), 1)
        return np.where(finite.any(axis=1), means, -np.inf).argmax(axis=1)

    def _t(self, signs: np.ndarray, best: np.ndarray) -> np.ndarray:
        """(k, S) of |t| against a best for each resample, with variances moderated as in `layout.fit`."""
        finite = np.isfinite(self.reported)
        filled, count = np.where(finite, self.reported, 0), np.maximum(finite.sum(axis=1), 1)
        own_freedom, scale = np.maximum(count - 1, 0), len(count) / max(len(count) - 1, 1)
        mean = signs @ filled.T / count  # (k, S)
        squares = np.maximum((filled**2).sum(axis=1) - count * mean**2, 0)
        error = moderated(squares, own_freedom, scale, self.grain**2 / 12)[0] / count
        rows = np.arange(len(signs))
        difference = np.abs(mean[rows, best][:, None] - mean)
        total = error[rows, best][:, None] + error
        return np.where(difference == 0, 0, difference / np.sqrt(np.maximum(total, 1e-300)))


def sign_patterns(blocks: int) -> np.ndarray:
    """(K, B) of +1 and -1, the first without a change: all, or a fixed random sample."""
    if blocks <= ALL_PATTERNS:
        return 1.0 - 2 * (np.arange(2**blocks)[:, None] >> np.arange(blocks) & 1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(PATTERNS, blocks))
    signs[0] = 1
    return signs
