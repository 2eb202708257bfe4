"""What the statistics say of sweeps whose true means are known, counted."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from simulated_sweeps import Sweeps

from mlpexp.analysis.best_score import best_score
from mlpexp.analysis.comparison import compare
from mlpexp.analysis.statistics import granularity

ALPHA = 0.05
GAP = 1.0  # standard deviations of a run; what lies further below the best should be told apart
MARGIN = 0.5  # standard deviations of a run, within which configurations are equivalent
EQUAL = 1e-9

Sweep = tuple[np.ndarray, np.ndarray, np.ndarray]  # decisive and reported (C, B), truth (C,)


@dataclass
class Rates:
    """How often something happened, and the means of numbers."""

    events: dict[str, int] = field(default_factory=dict)
    occasions: dict[str, int] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, events: int | bool, occasions: int = 1) -> None:
        self.events[name] = self.events.get(name, 0) + int(events)
        self.occasions[name] = self.occasions.get(name, 0) + occasions

    def value(self, name: str) -> float:
        return self.events[name] / self.occasions[name] if self.occasions.get(name) else np.nan

    def interval(self, name: str) -> tuple[float, float]:
        """The 95 % interval of Clopper and Pearson (1934) of what simulation leaves uncertain."""
        if not self.occasions.get(name):
            return np.nan, np.nan
        found = stats.binomtest(self.events[name], self.occasions[name]).proportion_ci(0.95)
        return float(found.low), float(found.high)

    def spelled(self, name: str) -> str:
        """`0.043 [0.035, 0.053]`, `-` without an occasion."""
        if not self.occasions.get(name):
            return "-"
        low, high = self.interval(name)
        return f"{self.value(name):.3f} [{low:.3f}, {high:.3f}]"


def each(sweeps: Sweeps) -> Iterator[tuple[Sweep, int]]:
    """Each sweep with the configuration that validation prefers."""
    for decisive, reported, truth in zip(sweeps.decisive, sweeps.reported, sweeps.truth, strict=True):
        yield (decisive, reported, truth), int(np.nanmean(decisive, axis=1).argmax())


def comparisons(sweeps: Sweeps) -> Rates:
    """Comparisons of the best with every other one, by `compare` and by Holm's method over all pairs."""
    rates = Rates()
    for (decisive, reported, truth), best in each(sweeps):
        found = compare(reported, best, decisive, margin=MARGIN * sweeps.deviation)
        claims = {"": np.where(found.distinguishable, np.sign(found.difference), 0), "Holm ": _holm(reported, best)}
        gap = truth[best] - truth
        others = np.arange(len(truth)) != best
        right = np.where(np.abs(gap) > EQUAL, np.sign(gap), 0)
        for name, claimed in claims.items():
            wrong = others & (claimed != 0) & (claimed != right)
            rates.add(f"{name}family", wrong.any())
            rates.add(f"{name}comparison", wrong.sum(), int(others.sum()))
            far = gap >= GAP * sweeps.deviation
            rates.add(f"{name}power", (far & (claimed > 0)).sum(), int(far.sum()))
        outside = others & (np.abs(gap) >= MARGIN * sweeps.deviation)
        rates.add("false equivalence", (outside & found.equivalent).any(), int(outside.any()))
        inside = others & ~outside
        rates.add("equivalence", (inside & found.equivalent).sum(), int(inside.sum()))
    return rates


def best_scores(sweeps: Sweeps) -> Rates:
    """Whether intervals cover the true mean of the best; biases in standard deviations of a run."""
    rates = Rates()
    errors: dict[str, list[float]] = {"bias of the mean": [], "bias corrected": []}
    for (decisive, reported, truth), best in each(sweeps):
        found = best_score(decisive, reported, best, grain=sweeps.grain)
        own = reported[best][np.isfinite(reported[best])]
        half = stats.t.ppf(1 - ALPHA / 2, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
        rates.add("coverage", found.low <= truth[best] <= found.high)
        rates.add("Student", abs(own.mean() - truth[best]) <= half)
        for name, score in zip(errors, (found.mean, found.corrected), strict=True):
            errors[name].append((score - truth[best]) / sweeps.deviation)
    rates.means = {name: float(np.mean(values)) for name, values in errors.items()}
    return rates


def _holm(reported: np.ndarray, best: int) -> np.ndarray:
    """(C,) the sign of best minus each where a paired t-test is significant after Holm's correction for all pairs."""
    one, other = np.triu_indices(len(reported), 1)
    gaps = reported[one] - reported[other]  # (P, B)
    count = np.isfinite(gaps).sum(axis=1)
    mean = np.nansum(gaps, axis=1) / np.maximum(count, 1)
    squares = np.nansum((gaps - mean[:, None]) ** 2, axis=1)
    squares = np.maximum(squares, (count - 1) * granularity(reported) ** 2 / 6)  # rounding of two values
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(mean == 0, 0, np.abs(mean) / np.sqrt(squares / (count - 1) / count))
    p = np.where(count > 1, 2 * stats.t.sf(t, np.maximum(count - 1, 1)), 1)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    claimed = np.zeros(len(reported))
    for first, second, sign in ((one, other, 1), (other, one, -1)):
        mine = (first == best) & (adjusted <= ALPHA)
        claimed[second[mine]] = sign * np.sign(mean[mine])
    return claimed
