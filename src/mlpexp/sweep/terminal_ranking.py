"""Configurations ranked over their seeds: never a single lucky run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# runs that differ in these alone are repetitions of one configuration
SEED_LIKE = ("seed", "data.seed", "data.fold")
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with the half width of its confidence interval; NaN where one run says nothing of spread."""

    mean: float
    half_width: float
    num_runs: int


class Ranked(NamedTuple):
    """One configuration with what its repetitions say."""

    settings: dict[str, str]
    metrics: dict[str, Estimate]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval by Student's t over independent repetitions."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, math.nan, count)
    from scipy.special import stdtrit  # Student's quantile, without the second that scipy.stats takes to import

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Estimate(mean, float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * deviation / math.sqrt(count), count)


def rank(
    runs: Iterable[tuple[Mapping[str, str], Mapping[str, float]]], by: str, *, smaller_is_better: bool
) -> list[Ranked]:
    """Configurations from best to worst by the mean of the metric `by`.

    Args:
        runs: settings (swept keys) and metrics of each run that trained well.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, float]]] = {}
    for settings, metrics in runs:
        key = tuple((name, value) for name, value in settings.items() if name not in SEED_LIKE)
        groups.setdefault(key, []).append(metrics)
    ranked = [
        Ranked(dict(key), {name: estimate([run[name] for run in members]) for name in members[0]})
        for key, members in groups.items()
    ]
    sign = 1 if smaller_is_better else -1
    return sorted(ranked, key=lambda item: sign * item.metrics[by].mean)
