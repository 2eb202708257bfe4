"""Analysis of variance: the share of each key, of each pair of keys, and of the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import fdtrc

from mlpexp.analysis.statistics import holm

MAX_PAIRED = 8  # the most important keys, of which all pairs are computed
MAX_COLUMNS = 600  # of a design matrix


@dataclass(frozen=True, kw_only=True)
class Term:
    """One key, or the interaction of two."""

    keys: tuple[int, ...]
    squares: float
    freedom: int
    share: float
    """of the total variance, in [0, 1]"""
    f: float
    p: float
    """uncorrected; NaN without repetitions"""
    adjusted: float
    """Holm over all terms"""


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """Shares of the total sum of squares; they add up to 1 where the grid is complete."""

    terms: list[Term]
    rest: float
    """between configurations, beyond all keys and pairs"""
    blocks: float
    """seeds, as far as they change all configurations by the same amount"""
    noise: float
    """between seeds within a configuration, after `blocks`"""
    total: float
    noise_freedom: int

    def of(self, key: int) -> float:
        """The share of a key alone, by which keys are ranked."""
        return next((term.share for term in self.terms if term.keys == (key,)), 0.0)


def decompose(levels: np.ndarray, table: np.ndarray) -> Decomposition:
    """Analysis of variance with sums of squares of type II (Yates 1934; Langsrud 2003).

    A key's sum of squares is what it adds to all other keys, a pair's what it adds to all keys. F-tests use the noise
    between runs of one configuration, without what a seed changes in all configurations alike.

    Args:
        levels: (C, F) which level each configuration has of each key.
        table: (C, B) of the metric; NaN where there is none.
    """
    finite = np.isfinite(table)
    used = finite.any(axis=1)
    levels, table, finite = levels[used], table[used], finite[used]
    runs = int(finite.sum())
    if runs < 2:
        return _nothing()
    count = finite.sum(axis=1)
    mean = np.where(finite, table, 0).sum(axis=1) / count  # (C,)
    grand = (mean * count).sum() / runs
    total = float((np.where(finite, table - grand, 0) ** 2).sum())
    if total <= 1e-24 * max(grand**2, 1e-12) * runs:
        return _nothing()
    between = float((count * (mean - grand) ** 2).sum())
    blocks, noise, freedom = _within(table, finite, mean)
    terms = _terms(levels, mean, count.astype(float), noise, freedom, total)
    rest = max(between - sum(term.squares for term in terms), 0.0)
    return Decomposition(
        terms=terms,
        rest=rest / total,
        blocks=blocks / total,
        noise=noise / total,
        total=total,
        noise_freedom=freedom,
    )


def _within(table: np.ndarray, finite: np.ndarray, mean: np.ndarray) -> tuple[float, float, int]:
    """Sums of squares of seeds common to all, of the remaining noise, and the noise's degrees of freedom."""
    residual = np.where(finite, table - mean[:, None], 0.0)
    within = float((residual**2).sum())
    freedom = int(finite.sum()) - len(table)
    seen = finite.sum(axis=0)
    shared = seen > 1
    blocks = 0.0
    if len(table) > 1 and shared.sum() > 1:
        blocks = float((residual[:, shared].sum(axis=0) ** 2 / seen[shared]).sum())
        freedom -= int(shared.sum()) - 1
    return blocks, max(within - blocks, 0.0), max(freedom, 0)


def _terms(
    levels: np.ndarray, mean: np.ndarray, weight: np.ndarray, noise: float, freedom: int, total: float
) -> list[Term]:
    factors = [f for f in range(levels.shape[1]) if len(np.unique(levels[:, f])) > 1]
    design = {f: _dummies(levels[:, f]) for f in factors}
    while sum(d.shape[1] for d in design.values()) > MAX_COLUMNS:  # keys with the most levels are left out
        design.pop(max(design, key=lambda f: design[f].shape[1]))
    factors = list(design)
    scale = np.sqrt(weight)
    target = scale * (mean - np.average(mean, weights=weight))

    def left(parts: Sequence[np.ndarray]) -> tuple[float, int]:
        columns = np.hstack([np.ones((len(mean), 1)), *parts]) * scale[:, None]
        solution, _, rank, _ = np.linalg.lstsq(columns, target, rcond=1e-9)
        return float(((target - columns @ solution) ** 2).sum()), int(rank)

    everything, rank = left([design[f] for f in factors])
    found: list[tuple[tuple[int, ...], float, int]] = []
    for f in factors:
        without, smaller = left([design[g] for g in factors if g != f])
        found.append(((f,), without - everything, rank - smaller))
    ranked = sorted(found, key=lambda item: -item[1])[:MAX_PAIRED]
    for (f,), (g,) in combinations(sorted(item[0] for item in ranked), 2):
        product = (design[f][:, :, None] * design[g][:, None, :]).reshape(len(mean), -1)
        if product.shape[1] > MAX_COLUMNS:
            continue
        remaining, larger = left([*(design[h] for h in factors), product])
        found.append(((f, g), everything - remaining, larger - rank))
    found = [(keys, max(squares, 0.0), df) for keys, squares, df in found if df > 0]
    ratios = [(squares / df) / (noise / freedom) if freedom and noise > 0 else np.nan for _, squares, df in found]
    p = np.array(
        [
            fdtrc(df, freedom, ratio) if np.isfinite(ratio) else np.nan
            for (_, _, df), ratio in zip(found, ratios, strict=True)
        ]
    )
    adjusted = holm(p)
    return [
        Term(keys=k, squares=s, freedom=df, share=s / total, f=ratio, p=float(one), adjusted=float(all_))
        for (k, s, df), ratio, one, all_ in zip(found, ratios, p, adjusted, strict=True)
    ]


def _dummies(codes: np.ndarray) -> np.ndarray:
    """(C, L - 1) indicators of every level but the first."""
    used = np.unique(codes)
    return (codes[:, None] == used[None, 1:]).astype(float)


def _nothing() -> Decomposition:
    return Decomposition(terms=[], rest=0.0, blocks=0.0, noise=0.0, total=0.0, noise_freedom=0)
