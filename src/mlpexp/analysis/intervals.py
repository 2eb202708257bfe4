"""Means and their 95% intervals over seeds."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its interval: `mean ± half`; NaN where there is none."""

    mean: float
    half: float
    runs: int


def mean_and_half(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along the last axis, NaNs left out: mean, half width of Student's t interval, count.

    One value has a mean and no interval. The interval says where the mean over other seeds would lie.
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
    """The mean over configurations, each weighing the same, with its interval over seeds.

    Where enough seeds have all configurations, each seed gives one mean and Student's interval is over those: what
    configurations of one seed have in common is then inside. Otherwise the configurations' own variances are
    added up (Welch 1947, Satterthwaite 1946).

    Args:
        table: (C, B) configurations by seeds, NaN where there is no run.
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
    some = count > 1
    if not some.all():
        return Estimate(float(cell_mean.mean()), np.nan, runs)
    parts = np.nanvar(table, axis=1, ddof=1) / count / len(table) ** 2
    total = parts.sum()
    if total == 0:
        return Estimate(float(cell_mean.mean()), 0.0, runs)
    freedom = total**2 / (parts**2 / (count - 1)).sum()
    return Estimate(float(cell_mean.mean()), float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(total)), runs)
