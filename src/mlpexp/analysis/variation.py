"""What an interval covers, and how much a score would vary on another test sample.

Three kinds of variation are kept apart: initialisation and batch order (seeds), the training sample (folds, data
seeds), the test sample. C configurations, N samples of the data, K draws.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlpexp.analysis import run_files
from mlpexp.analysis.load_sweep import Sources
from mlpexp.analysis.statistics import LEVEL
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    from scipy import special
else:
    special = LazyModule("scipy.special")

RUNS, TRAINING, TEST = "initialisation and batch order", "training sample", "test sample"
DRAWS = 2000
CELLS = 4_000_000  # of one array of draws


def covered(repeated: Collection[str], redraws_test: bool) -> tuple[list[str], list[str]]:
    """The kinds of variation that an interval over repetitions covers, and those that it does not.

    Args:
        repeated: the keys whose values make the repetitions, of `seed`, `data.seed` and `data.fold`.
        redraws_test: whether `data.seed` draws the test part, too, which has no file of its own then.
    """
    covers = {
        RUNS: "seed" in repeated,
        TRAINING: bool({"data.seed", "data.fold"} & set(repeated)),
        TEST: "data.seed" in repeated and redraws_test,
    }
    return [kind for kind in covers if covers[kind]], [kind for kind in covers if not covers[kind]]


def covered_in_words(repeated: Collection[str], redraws_test: bool) -> str:
    """`covers initialisation and batch order; fixed: training sample, test sample`."""
    covers, fixed = covered(repeated, redraws_test)
    text = f"covers {', '.join(covers)}" if covers else "covers no variation"
    return f"{text}; fixed: {', '.join(fixed)}" if fixed else text


def binomial_interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's interval (1927) of a share of `samples` independent test samples.

    For a mean over runs that are measured on the same samples it is an upper bound of the variation, since their errors
    partly cancel.
    """
    z = special.ndtri((1 + LEVEL) / 2)
    centre = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    half = z / (1 + z**2 / samples) * np.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TestSample:
    """Accuracies on other test samples, with the runs as they are: 95 % percentile intervals of a bootstrap."""

    __test__ = False  # no test case of pytest

    samples: int
    """test samples of the best configuration"""
    low: float
    high: float
    """of the accuracy of the best configuration"""
    difference: np.ndarray
    """(C,) accuracy of the best minus that of each, on the test samples that both have; NaN against itself"""
    difference_low: np.ndarray
    difference_high: np.ndarray


def sample_variation(study: SweepTable, sources: Sources, best: int) -> TestSample | None:
    """The bootstrap from the hits that the runs of a sweep have recorded; None where those of the best have not."""
    shares: list[np.ndarray | None] = []
    for runs in [study.members[best], *study.members]:
        names = [study.names[run] for run in runs if study.counted[run]]
        hits = run_files.hits(study.directory, names, sources.results)
        if hits is None and not shares:
            return None
        shares.append(None if hits is None else _share(hits))
    size = len(shares[0])  # type: ignore[arg-type]
    tested = np.flatnonzero(np.isfinite(shares[0]))  # type: ignore[arg-type]
    unknown = np.full(len(tested), np.nan)
    return bootstrap(np.stack([unknown if s is None or len(s) != size else s[tested] for s in shares[1:]]), best)


def _share(hits: np.ndarray) -> np.ndarray:
    """(N,) share of the runs that are right, of those that were measured on a sample."""
    measured = np.isfinite(hits)
    with np.errstate(invalid="ignore"):
        return np.where(measured, hits, 0).sum(axis=0) / measured.sum(axis=0)


def bootstrap(hits: np.ndarray, best: int) -> TestSample | None:
    """Resample the test samples (Efron 1979), the same for all configurations; None where the best has none.

    Networks tend to fail on the same samples, so differences vary much less than accuracies do.

    Args:
        hits: (C, N) share of a configuration's runs that are right on a sample; NaN where it is not in a test part.
        best: the row that is compared with each.
    """
    tested = np.flatnonzero(np.isfinite(hits[best]))
    if len(tested) < 2:
        return None
    hits = hits[:, tested]
    measured = np.isfinite(hits)
    gaps = np.where(measured, hits[best] - np.where(measured, hits, 0), 0)  # (C, m)
    rows = np.vstack([hits[best], gaps])
    weights = np.vstack([np.ones(len(tested)), measured])
    resampled = np.empty((DRAWS, len(rows)))
    generator = np.random.default_rng(0)
    size = max(CELLS // len(tested), 1)
    for start in range(0, DRAWS, size):
        indices = generator.integers(len(tested), size=(min(size, DRAWS - start), len(tested)))
        indices += len(tested) * np.arange(len(indices))[:, None]
        counts = np.bincount(indices.ravel(), minlength=len(indices) * len(tested)).reshape(indices.shape).astype(float)
        with np.errstate(invalid="ignore"):
            resampled[start : start + len(indices)] = (counts @ rows.T) / (counts @ weights.T)
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(resampled, tails, axis=0)
    with np.errstate(invalid="ignore"):
        difference = gaps.sum(axis=1) / measured.sum(axis=1)
    for values in (difference, low[1:], high[1:]):
        values[best] = np.nan
    return TestSample(
        samples=len(tested),
        low=float(low[0]),
        high=float(high[0]),
        difference=difference,
        difference_low=low[1:],
        difference_high=high[1:],
    )
