"""Analysis of variance: the share of each key, of each pair of keys, and of the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import fdtrc

from mlpexp.analysis.layout import block_effects
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
    """of the sum of all sums of squares, in [0, 1]"""
    f: float
    p: float
    """uncorrected; NaN without repetitions"""
    adjusted: float
    """Holm over all terms"""


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """Shares of the sum of all sums of squares; terms, rest, blocks and noise add up to 1."""

    terms: list[Term]
    rest: float
    """between configurations, beyond all keys and pairs"""
    blocks: float
    """seeds, as far as they change all configurations by the same amount"""
    noise: float
    """between seeds within a configuration, after `blocks`"""
    total: float
    """the sum of all sums of squares; of an incomplete grid it is not the variance of the runs"""
    noise_freedom: int


def confounded(levels: np.ndarray) -> dict[int, int]:
    """Keys that only changed together with another key, as in a zip: their number, and that of the other one.

    Either each level of both occurs with one level of the other, and the first one stands for both, or each level of
    the other, which has several configurations, occurs with one level of the key.

    Args:
        levels: (C, F) which level each configuration has of each key.
    """
    counts = [len(np.unique(column)) for column in levels.T]
    partners: dict[int, int] = {}
    for key, count in enumerate(counts):
        for other, other_count in enumerate(counts):
            if min(count, other_count) < 2 or key == other or other in partners:
                continue
            pairs = len(np.unique(levels[:, [key, other]], axis=0))
            if pairs == other_count and (other < key if pairs == count else other_count < len(levels)):
                partners[key] = other
                break
    return partners


def decompose(levels: np.ndarray, table: np.ndarray, shares_blocks: bool = True) -> Decomposition:
    """Analysis of variance with sums of squares of type II (Yates 1934; Langsrud 2003), as `anova_lm(typ=2)`.

    A term's sum of squares is what it adds to all terms that do not contain it: to the other keys, to the pairs without
    it and to the blocks. A key that is `confounded` with another has no term; the other's is that of both. F-tests use
    the noise between runs of one configuration, without what a seed changes in all configurations alike.

    Args:
        levels: (C, F) which level each configuration has of each key.
        table: (C, B) of the metric; NaN where there is none.
        shares_blocks: whether block b is the same seed in every configuration.
    """
    used = np.isfinite(table).any(axis=1)
    levels, table = levels[used].copy(), table[used]
    levels[:, list(confounded(levels))] = 0
    finite = np.isfinite(table)
    if not shares_blocks:
        order = np.argsort(~finite, axis=1, kind="stable")  # a seed of its own has no effect on others
        table, finite = (np.take_along_axis(array, order, axis=1) for array in (table, finite))
    runs = int(finite.sum())
    if runs < 2:
        return _nothing()
    grand_mean = float(np.where(finite, table, 0).sum() / runs)
    centred = np.where(finite, table - grand_mean, 0)
    spread = float((centred**2).sum())
    if spread <= 1e-24 * max(grand_mean**2, 1e-12) * runs:
        return _nothing()
    blocked = shares_blocks and len(table) > 1 and int((finite.sum(axis=0) > 1).sum()) > 1
    count = finite.sum(axis=1)
    incidence = finite.astype(float) if blocked else count[:, None].astype(float)  # (C, B); all are one block
    size = np.maximum(incidence.sum(axis=0), 1)
    by_block = centred.sum(axis=0) if blocked else np.zeros(1)
    without_blocks = np.where(finite, centred - (block_effects(np.where(finite, centred, np.nan)) if blocked else 0), 0)
    mean = without_blocks.sum(axis=1) / count
    noise = float((np.where(finite, without_blocks - mean[:, None], 0) ** 2).sum())
    freedom = runs - len(table) - int((incidence.sum(axis=0) > 0).sum()) + 1
    between = max(spread - float((by_block**2 / size).sum()) - noise, 0.0)  # of configurations, after blocks
    blocks = max(spread - float((centred.sum(axis=1) ** 2 / count).sum()) - noise, 0.0) if blocked else 0.0
    adjusted = centred.sum(axis=1) - incidence @ (by_block / size)  # (C,)
    sums, explained = _sums_of_squares(levels, incidence, adjusted)
    rest = max(between - explained, 0.0)
    total = sum(squares for _, squares, _ in sums) + rest + blocks + noise
    return Decomposition(
        terms=_tested(sums, noise, freedom, total),
        rest=rest / total,
        blocks=blocks / total,
        noise=noise / total,
        total=total,
        noise_freedom=max(freedom, 0),
    )


Sums = tuple[tuple[int, ...], float, int]  # keys, sum of squares, degrees of freedom


def _sums_of_squares(levels: np.ndarray, incidence: np.ndarray, adjusted: np.ndarray) -> tuple[list[Sums], float]:
    """Each term's sum of squares, and that of all terms together, from the normal equations without the blocks.

    Args:
        incidence: (C, B) runs of each configuration in each block.
        adjusted: (C,) sums over runs, less what the blocks explain.
    """
    factors = [f for f in range(levels.shape[1]) if len(np.unique(levels[:, f])) > 1]
    design: dict[tuple[int, ...], np.ndarray] = {(f,): _dummies(levels[:, f]) for f in factors}
    while sum(d.shape[1] for d in design.values()) > MAX_COLUMNS:  # keys with the most levels are left out
        design.pop(max(design, key=lambda term: design[term].shape[1]))
    keys = list(design)
    normal = _Normal(design, incidence, adjusted)
    total = normal.explained(keys)[0]
    added = {
        term: total - normal.explained([other_term for other_term in keys if other_term != term])[0] for term in keys
    }
    for main, other_term in combinations(sorted(sorted(keys, key=lambda term: -added[term])[:MAX_PAIRED]), 2):
        product = (design[main][:, :, None] * design[other_term][:, None, :]).reshape(len(levels), -1)
        if sum(d.shape[1] for d in design.values()) + product.shape[1] <= MAX_COLUMNS:
            design[main + other_term] = product
    normal = _Normal(design, incidence, adjusted)
    sums = []
    for term in design:
        reduced = [other_term for other_term in design if not set(term) <= set(other_term)]
        (without, smaller), (with_it, larger) = normal.explained(reduced), normal.explained([*reduced, term])
        if larger > smaller:
            sums.append((term, max(with_it - without, 0.0), larger - smaller))
    return sums, normal.explained(list(design))[0]


class _Normal:
    """The normal equations of all terms; any part of them is solved."""

    def __init__(self, design: dict[tuple[int, ...], np.ndarray], incidence: np.ndarray, adjusted: np.ndarray) -> None:
        columns = np.hstack([np.zeros((len(adjusted), 0)), *design.values()])
        by_block = incidence.T @ columns  # (B, K)
        weighted = columns * incidence.sum(axis=1, keepdims=True)
        self._matrix = columns.T @ weighted - by_block.T @ (by_block / np.maximum(incidence.sum(axis=0), 1)[:, None])
        self._sums = columns.T @ adjusted
        ends = np.cumsum([block.shape[1] for block in design.values()])
        self._columns = {
            term: np.arange(end - design[term].shape[1], end) for term, end in zip(design, ends, strict=True)
        }

    def explained(self, terms: Sequence[tuple[int, ...]]) -> tuple[float, int]:
        """Sum of squares of some terms, and its degrees of freedom."""
        if not terms:
            return 0.0, 0
        indices = np.concatenate([self._columns[term] for term in terms])
        values, vectors = np.linalg.eigh(self._matrix[np.ix_(indices, indices)])
        positive = values > 1e-9 * max(values.max(), 1e-300)
        projected = vectors[:, positive].T @ self._sums[indices]
        return float((projected**2 / values[positive]).sum()), int(positive.sum())


def _tested(sums: Sequence[Sums], noise: float, freedom: int, total: float) -> list[Term]:
    ratios = [(squares / df) / (noise / freedom) if freedom > 0 and noise > 0 else np.nan for _, squares, df in sums]
    p_values = np.array(
        [
            fdtrc(df, freedom, ratio) if np.isfinite(ratio) else np.nan
            for (_, _, df), ratio in zip(sums, ratios, strict=True)
        ]
    )
    return [
        Term(keys=k, squares=s, freedom=df, share=s / total, f=ratio, p=float(p), adjusted=float(adjusted))
        for (k, s, df), ratio, p, adjusted in zip(sums, ratios, p_values, holm(p_values), strict=True)
    ]


def _dummies(codes: np.ndarray) -> np.ndarray:
    """(C, L - 1) indicators of every level but the first."""
    used = np.unique(codes)
    return (codes[:, None] == used[None, 1:]).astype(float)


def _nothing() -> Decomposition:
    return Decomposition(terms=[], rest=0.0, blocks=0.0, noise=0.0, total=0.0, noise_freedom=0)
