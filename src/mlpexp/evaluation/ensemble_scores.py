"""Scores of several models on the same samples, with bootstrap intervals.

Letters: P models, N samples, C classes, T targets, B resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpexp.evaluation.classification_metrics import BINS, bin_of

RESAMPLES = 2_000
CHUNK = 2**24  # counts of resamples in memory at once
TINY = np.finfo(float).tiny

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreEstimate:
    """A score and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of all models.

    Attributes:
        values: (P,).
        resampled: of each resample of the samples, which all models share, (B, P).
        basic: its intervals contain basic bootstrap intervals, too, since resampling raises its values.
    """

    values: Array
    resampled: Array
    basic: bool = False

    def estimate(self, model: int) -> ScoreEstimate:
        return self._with_interval(self.values[model], self.resampled[:, model])

    def mean(self, first: int) -> ScoreEstimate:
        """The mean of the models from number `first` on."""
        return self._with_interval(self.values[first:].mean(), self.resampled[:, first:].mean(1))

    def difference(self, model: int, other: int) -> ScoreEstimate:
        """Of a model minus another one, on the same resamples."""
        return self._with_interval(
            self.values[model] - self.values[other],
            self.resampled[:, model] - self.resampled[:, other],
            is_difference=True,
        )

    def _with_interval(self, value: float, resampled: Array, *, is_difference: bool = False) -> ScoreEstimate:
        finite = resampled[np.isfinite(resampled)]
        if not len(finite) or not np.isfinite(value):
            return ScoreEstimate(float(value), np.nan, np.nan)
        low, high = np.quantile(finite, [0.025, 0.975])
        if self.basic:
            low, high = min(low, 2 * value - high), max(high, 2 * value - low)
            if not is_difference:
                low, high = max(low, 0.0), max(high, 0.0)
        return ScoreEstimate(float(value), float(low), float(high))


def class_scores(probabilities: Array, labels: NDArray[np.int64], resamples: int = RESAMPLES) -> dict[str, Score]:
    """Accuracy, negative log-likelihood (nats), Brier score and expected calibration error over `BINS` bins.

    Args:
        probabilities: (P, N, C); labels: (N,).
    """
    models, samples, _ = probabilities.shape
    rows = np.arange(samples)
    hits = (probabilities.argmax(-1) == labels).astype(float)  # (P, N)
    true = probabilities[:, rows, labels]
    # squared distance from the one-hot label
    brier = (probabilities**2).sum(-1) - 2 * true + 1
    gaps = np.zeros((samples, models, BINS))  # confidence minus accuracy, in the bin of the confidence
    for model in range(models):
        confidence = probabilities[model].max(-1)
        gaps[rows, model, bin_of(confidence)] = confidence - hits[model]
    means = {"acc": hits.T, "nll": -np.log(np.maximum(true, TINY)).T, "brier": brier.T}
    chunks: dict[str, list[Array]] = {name: [] for name in (*means, "ece")}
    for counts in _counts(samples, resamples):
        for name, values in means.items():
            chunks[name].append(counts @ values / samples)
        by_bin = (counts @ gaps.reshape(samples, -1)).reshape(-1, models, BINS)
        chunks["ece"].append(np.abs(by_bin).sum(-1) / samples)
    return {name: _score(values_of, basic=name == "ece") for name, values_of in chunks.items()}


def value_scores(predicted: Array, true: Array, names: list[str], resamples: int = RESAMPLES) -> dict[str, Score]:
    """RMSE, mean absolute error and R² of each target; the names end in that of the target where there are several.

    R² is NaN where the true values are all equal.

    Args:
        predicted: (P, N, T) in the units of the targets; true: (N, T).
    """
    samples = len(true)
    error = predicted - true  # (P, N, T)
    centred = true - true.mean(0)
    chunks: dict[str, list[Array]] = {}
    for counts in _counts(samples, resamples):
        for t, target in enumerate(names):
            suffix = f" {target}" if len(names) > 1 else ""
            squares = counts @ error[:, :, t].T ** 2
            spread = counts @ centred[:, t] ** 2 - (counts @ centred[:, t]) ** 2 / samples
            scores = {"rmse": np.sqrt(squares / samples), "mae": counts @ np.abs(error[:, :, t]).T / samples}
            with np.errstate(divide="ignore", invalid="ignore"):
                scores["r2"] = np.where(spread[:, None] > 0, 1 - squares / spread[:, None], np.nan)
            for name, values in scores.items():
                chunks.setdefault(f"{name}{suffix}", []).append(values)
    return {name: _score(values_of) for name, values_of in chunks.items()}


def _score(chunks: list[Array], *, basic: bool = False) -> Score:
    full, *resamples = chunks
    return Score(values=full[0], resampled=np.concatenate(resamples), basic=basic)


def _counts(samples: int, resamples: int) -> Iterator[Array]:
    """How often each sample counts, (rows, N): once, then in `resamples` resamples with a fixed seed."""
    yield np.ones((1, samples))
    rng = np.random.default_rng(0)
    size = max(1, CHUNK // samples)
    for start in range(0, resamples, size):
        yield rng.multinomial(samples, np.full(samples, 1 / samples), min(size, resamples - start)).astype(float)
