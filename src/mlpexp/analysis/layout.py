"""The two-way layout configuration x block: means, and their variances after what all share in a block is removed.

S configurations, B blocks (seeds, folds), NaN where there is no run.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma, zeta

MAX_ITERATIONS, TOLERANCE = 200, 1e-12  # of the alternating fit of an incomplete layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Values are `mean[c] + block[b] + error`; errors have one variance per configuration."""

    mean: np.ndarray
    """(S,) adjusted for the blocks that a configuration lacks"""
    variance: np.ndarray
    """(S,) of one run: its own, or the moderated one where that is larger; NaN where nothing is repeated"""
    count: np.ndarray
    """(S,) runs"""
    freedom: np.ndarray
    """(S,) degrees of freedom of `variance`"""
    prior: float
    """degrees of freedom with which the pooled variance counts; infinite where variances are alike"""
    total: int
    """residual degrees of freedom of the whole layout"""


def fit(values: np.ndarray, grain: float = 0.0, shares_blocks: bool = True) -> Layout:
    """Fit the layout; variances are moderated as by Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3(1).

    A configuration's own variance has `runs - 1` degrees of freedom. How much the variances of all configurations
    differ, beyond what so few runs explain, gives the degrees of freedom with which the common variance counts. No
    configuration gets less than its own variance: otherwise the mean of a noisy one would look too certain. For two
    configurations the standard error of the difference is that of the paired t-test, without blocks that of Welch's.

    Args:
        values: (S, B).
        grain: the step in which values are counted; no variance is below that of rounding to it.
        shares_blocks: whether block b is the same in every configuration.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    adjusted = values - block_effects(values) if shares_blocks else values
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, adjusted, 0).sum(axis=1) / count
    residual = np.where(finite, adjusted - mean[:, None], 0)
    squares = (residual**2).sum(axis=1)
    own_freedom = np.maximum(count - 1, 0)
    total = int(own_freedom.sum())
    scale = 1.0
    if shares_blocks:
        block_freedom = total - max(int((finite.sum(axis=0) > 1).sum()) - 1, 0)
        scale, total = (total / block_freedom, block_freedom) if block_freedom > 0 else (1.0, 0)
    variance, prior = moderated(squares, own_freedom, scale, grain**2 / 12)
    freedom = np.minimum(np.where(np.isfinite(prior), prior, total) + own_freedom / scale, total)
    own_variance = squares * scale / np.maximum(own_freedom, 1)
    larger = own_variance > variance
    variance = np.where(larger, own_variance, variance)
    freedom = np.where(larger & np.isfinite(prior), own_freedom / scale, freedom)
    if total == 0:
        variance = np.full(len(values), np.nan)
    return Layout(mean=mean, variance=variance, count=count, freedom=freedom, prior=float(prior), total=total)


def block_effects(values: np.ndarray) -> np.ndarray:
    """(B,) least-squares effects of the blocks, whose values are then comparable in an incomplete layout."""
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0)
    rows, columns = np.maximum(finite.sum(axis=1), 1), np.maximum(finite.sum(axis=0), 1)
    if finite.all():
        return filled.mean(axis=0) - filled.mean()
    block = np.zeros(values.shape[1])
    for _ in range(MAX_ITERATIONS):
        mean = (filled - np.where(finite, block, 0)).sum(axis=1) / rows
        updated = (filled - np.where(finite, mean[:, None], 0)).sum(axis=0) / columns
        if np.abs(updated - block).max(initial=0) <= TOLERANCE * max(np.abs(filled).max(initial=0), 1e-300):
            break
        block = updated
    return block - block.mean()


def moderated(
    squares: np.ndarray, own_freedom: np.ndarray, scale: float, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variances shrunk towards a common one, and the degrees of freedom with which the common one counts.

    Both are estimated from the spread of the log variances (Smyth 2004, section 6.2). One or two configurations have
    no spread to learn from: each keeps its own variance (0 degrees).

    Args:
        squares: (..., S) residual sums of squares.
        own_freedom: (S,) runs less one of each configuration.
        scale: factor of `squares` for the degrees of freedom that blocks take.
        floor: the smallest variance.

    Returns:
        (..., S) and (...).
    """
    freedom = own_freedom / scale
    variance = np.maximum(squares * scale / np.maximum(own_freedom, 1), floor)
    repeated = own_freedom > 0
    if repeated.sum() < 3:
        pooled = (variance * own_freedom).sum(axis=-1, keepdims=True) / max(own_freedom.sum(), 1)
        return np.where(repeated, variance, pooled), np.zeros(variance.shape[:-1])
    freedoms, variances = freedom[repeated], variance[..., repeated]
    mean = np.average(variances, axis=-1, weights=freedoms)
    bias = digamma(freedoms / 2) - np.log(freedoms / 2)
    logs = np.log(np.maximum(np.maximum(variances, 1e-5 * mean[..., None]), 1e-300)) - bias
    spread = logs.var(axis=-1, ddof=1) - polygamma(1, freedoms / 2).mean()
    alike = spread <= 0
    prior = 2 * _inverse_trigamma(np.where(alike, 1.0, spread))
    common = np.where(alike, mean, np.exp(logs.mean(axis=-1) + digamma(prior / 2) - np.log(prior / 2)))[..., None]
    weighed = (prior[..., None] * common + freedom * variance) / (prior[..., None] + freedom)
    return np.where(alike[..., None], common, weighed), np.where(alike, np.inf, prior)


def _inverse_trigamma(value: np.ndarray) -> np.ndarray:
    """Newton's method on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(8):
        trigamma = zeta(2, y)
        y = y + trigamma * (1 - trigamma / value) / (-2 * zeta(3, y))
    return y
