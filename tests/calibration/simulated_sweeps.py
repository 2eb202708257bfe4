"""Simulated sweeps whose true means are known.

S sweeps, C configurations, B seeds. Errors of a validation and of a test score have the correlation `r` over runs. A
part of them is the same in all configurations of a seed. True means are in standard deviations of one run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

SHARED = 0.5  # standard deviation of what all configurations of a seed share
FAILED, TRAINED = 0.1, 0.95  # accuracies
FAILURES = 0.1  # share of trainings
ERRORS = 0.006  # share of wrong samples at the ceiling
MISSING = 0.3  # share of runs
FEW, MANY = 50, 270  # test samples


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """Larger scores are better; NaN where there is no run."""

    decisive: np.ndarray
    """(S, C, B) validation score"""
    reported: np.ndarray
    """(S, C, B) test score"""
    truth: np.ndarray
    """(S, C) mean of `reported` over all seeds"""
    deviation: float
    """standard deviation of a run's reported score, in whose units gaps and margins are given"""
    grain: float | None = None
    """the step in which `reported` is counted, where it is an accuracy of known test samples"""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Standardised errors, (S, C, B), and the true means in standard deviations, (S, C)."""

    generator: np.random.Generator
    means: np.ndarray
    decisive: np.ndarray
    reported: np.ndarray


Draw = Callable[[Errors], Sweeps]


def equal(generator: np.random.Generator, sweeps: int, configurations: int) -> np.ndarray:
    """All means are equal."""
    return np.zeros((sweeps, configurations))


def half(generator: np.random.Generator, sweeps: int, configurations: int) -> np.ndarray:
    """The first half are equal and best, the others lie two standard deviations below."""
    below = np.arange(configurations) >= (configurations + 1) // 2
    return np.tile(-2.0 * below, (sweeps, 1))


def spread(generator: np.random.Generator, sweeps: int, configurations: int) -> np.ndarray:
    """Means vary as much as seeds do."""
    return generator.normal(size=(sweeps, configurations))


LAYOUTS = {"equal": equal, "half": half, "spread": spread}


def normal(errors: Errors) -> Sweeps:
    means = errors.means[..., None]
    deviation = float(np.sqrt(1 + SHARED**2))
    return Sweeps(
        decisive=means + errors.decisive, reported=means + errors.reported, truth=errors.means, deviation=deviation
    )


def heavy(errors: Errors) -> Sweeps:
    """Student's t with 3 degrees of freedom, the same factor for validation and test."""
    factor = 1 / np.sqrt(errors.generator.chisquare(3, errors.decisive.shape))  # the mean of its square is 1
    return normal(replace(errors, decisive=factor * errors.decisive, reported=factor * errors.reported))


def unequal(errors: Errors) -> Sweeps:
    """Standard deviations of configurations differ by up to a factor of eleven."""
    factor = np.exp(errors.generator.uniform(-1.2, 1.2, errors.means.shape))[..., None]
    decisive, reported = factor * errors.decisive, factor * errors.reported
    scaled = normal(replace(errors, decisive=decisive, reported=reported))
    return replace(scaled, deviation=scaled.deviation * float(np.sqrt(np.sinh(2.4) / 2.4)))


def bimodal(errors: Errors) -> Sweeps:
    """One training in ten fails; the others have accuracies with a standard deviation of a percentage point."""
    fails = errors.generator.random(errors.decisive.shape) < FAILURES

    def accuracy(error: np.ndarray) -> np.ndarray:
        return np.where(fails, FAILED, TRAINED + 0.01 * (errors.means[..., None] + error))

    truth = (1 - FAILURES) * (TRAINED + 0.01 * errors.means) + FAILURES * FAILED
    deviation = np.sqrt(FAILURES * (1 - FAILURES)) * (TRAINED - FAILED)
    return Sweeps(
        decisive=accuracy(errors.decisive),
        reported=accuracy(errors.reported),
        truth=truth,
        deviation=float(deviation),
    )


def ceiling(errors: Errors) -> Sweeps:
    """Counts of 270 samples, nearly all of them right; the distribution is skewed and bounded."""

    def accuracy(scores: np.ndarray) -> np.ndarray:
        return np.round(MANY * np.clip(1 - ERRORS * np.exp(-0.7 * scores), 0, 1)) / MANY

    return _counted(errors, accuracy, MANY)


def ties(errors: Errors) -> Sweeps:
    """Counts of 50 samples, so that many means are equal."""

    def accuracy(scores: np.ndarray) -> np.ndarray:
        return np.round(FEW * np.clip(0.9 + 0.02 * scores, 0, 1)) / FEW

    return _counted(errors, accuracy, FEW)


def unbalanced(errors: Errors) -> Sweeps:
    """Three runs in ten are missing, the first two seeds excepted."""
    missing = errors.generator.random(errors.decisive.shape) < MISSING
    missing[..., :2] = False
    complete = normal(errors)
    return Sweeps(
        decisive=np.where(missing, np.nan, complete.decisive),
        reported=np.where(missing, np.nan, complete.reported),
        truth=complete.truth,
        deviation=complete.deviation,
    )


KINDS: dict[str, Draw] = {
    "normal": normal,
    "heavy tails": heavy,
    "unequal variances": unequal,
    "failed trainings": bimodal,
    "ceiling": ceiling,
    "ties": ties,
    "unbalanced": unbalanced,
}


def simulate(kind: str, layout: str, sweeps: int, configurations: int, seeds: int, r: float, seed: int) -> Sweeps:
    """`sweeps` sweeps of one kind; `seed` determines all of them."""
    generator = np.random.default_rng([seed, sweeps, configurations, seeds])
    means = LAYOUTS[layout](generator, sweeps, configurations)

    def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        first, second = generator.normal(size=(2, *shape))
        return first, r * first + np.sqrt(1 - r**2) * second

    own, shared = pair((sweeps, configurations, seeds)), pair((sweeps, 1, seeds))
    decisive, reported = (one + SHARED * all_ for one, all_ in zip(own, shared, strict=True))
    return KINDS[kind](Errors(generator=generator, means=means, decisive=decisive, reported=reported))


def _counted(errors: Errors, accuracy: Callable[[np.ndarray], np.ndarray], samples: int) -> Sweeps:
    """The truth of counts is the mean over evenly spaced quantiles of the normal error."""
    nodes = np.sqrt(1 + SHARED**2) * ndtri((np.arange(4000) + 0.5) / 4000)
    grid = np.linspace(errors.means.min() - 1e-9, errors.means.max() + 1e-9, 400)
    at_zero = accuracy(nodes)
    return Sweeps(
        decisive=accuracy(errors.means[..., None] + errors.decisive),
        reported=accuracy(errors.means[..., None] + errors.reported),
        truth=np.interp(errors.means, grid, accuracy(grid[:, None] + nodes).mean(axis=1)),
        deviation=float(at_zero.std()),
        grain=1 / samples,
    )
