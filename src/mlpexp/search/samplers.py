"""Samplers: which trials come next, from a sampler of Optuna or as a list of points that is known from the start."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

from mlpexp.runtime.errors import UserError
from mlpexp.runtime.registry import Registry
from mlpexp.search import search_space
from mlpexp.search.ranked_gp import RankedGPSampler
from mlpexp.search.search_space import Space

MAX_LEARNING_BATCH = 20  # trials that a sampler chooses without knowing each other's outcome
DEFAULT_BATCH = 50
DEFAULT_TRIALS = 100


@dataclass(frozen=True, kw_only=True)
class SamplerEntry:
    """One sampler.

    Attributes:
        make: Optuna's sampler from a seed, the size of a generation, and whether some keys depend on others; it is also
            given those points that are fixed.
        points: (space, seed, first, count) -> points that are known from the start; None where the sampler chooses.
        learns: whether the outcome of trials decides which come next.
        keeps_state: whether it keeps a state in the trials that it has chosen, which a search that continues needs.
        finite: whether the space has a last point.
    """

    make: Callable[[int, int, bool], BaseSampler] = lambda seed, size, is_conditional: RandomSampler(seed=seed)
    points: Callable[[Space, int, int, int], list[dict[str, Any]]] | None = None
    learns: bool = False
    keeps_state: bool = False
    finite: bool = False


def _tpe(seed: int, size: int, is_conditional: bool) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of groups: keys that are always given together
        # trials of a generation that have no outcome yet count as bad, so that the next ones keep away from them
        return TPESampler(seed=seed, constant_liar=True, multivariate=is_conditional or None, group=is_conditional)


def _cmaes(seed: int, size: int, is_conditional: bool) -> BaseSampler:
    return CmaEsSampler(seed=seed, popsize=max(4, size), warn_independent_sampling=False)


def _gp(seed: int, size: int, is_conditional: bool) -> BaseSampler:
    return RankedGPSampler(seed)


def _grid(space: Space, seed: int, first: int, count: int) -> list[dict[str, Any]]:
    return list(islice(search_space.combinations(space), first, first + count))


def _quasi_random(space: Space, seed: int, first: int, count: int) -> list[dict[str, Any]]:
    from scipy.stats.qmc import Sobol  # takes a second to import

    pairs = list(space.distributions.items())
    sequence = Sobol(len(space.distributions), scramble=True, rng=seed)
    if first:
        sequence.fast_forward(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about numbers of points that are no power of two
        shares = sequence.random(count).tolist()
    return [
        space.active({key: search_space.at(share, d) for share, (key, d) in zip(row, pairs, strict=True)})
        for row in shares
    ]


SAMPLERS: Registry[SamplerEntry] = Registry(
    "sampler",
    {
        "tpe": SamplerEntry(make=_tpe, learns=True),
        "gp": SamplerEntry(make=_gp, learns=True),
        "cmaes": SamplerEntry(make=_cmaes, learns=True, keeps_state=True),
        "random": SamplerEntry(),
        "qmc": SamplerEntry(points=_quasi_random),
        "grid": SamplerEntry(points=_grid, finite=True),
    },
)


def sampler(name: str, seed: int, first: int, size: int, *, is_conditional: bool = False) -> BaseSampler:
    """A sampler for the generation whose first trial has this number.

    Each generation has a sampler of its own, seeded by that number, so that a search that was interrupted continues
    with the trials of one that was not.
    """
    digest = hashlib.sha256(f"{seed}/{first}".encode()).digest()
    return SAMPLERS[name].make(int.from_bytes(digest[:4], "big"), size, is_conditional)


def num_trials(name: str, requested: int | None, space: Space) -> int:
    """The number of trials: as wanted, by default 100; at most as many as a grid has points.

    Raises:
        UserError: a grid over an interval.
    """
    if not SAMPLERS[name].finite:
        return DEFAULT_TRIALS if requested is None else requested
    if space.conditions:
        size = sum(1 for _ in search_space.combinations(space))
    else:
        size = prod(len(search_space.values(key, distribution)) for key, distribution in space.distributions.items())
    return size if requested is None else min(requested, size)


def batch_size(name: str, requested: int | None, total: int) -> int:
    """Trials of a generation: by default so many that a sampler that learns does so at least eight times."""
    if requested is not None:
        return requested
    return max(1, min(MAX_LEARNING_BATCH, total // 8)) if SAMPLERS[name].learns else DEFAULT_BATCH


def check(name: str, space: Space, objectives: list[str]) -> str | None:
    """A warning where the sampler can do only part of the task.

    Raises:
        UserError: it cannot do it at all.
    """
    if name not in SAMPLERS:
        raise UserError(f"{SAMPLERS.unknown_message(name)}, e.g. hydra.sweeper.sampler=tpe")
    if name == "gp" and space.conditions:
        return f"sampler=gp chooses keys that all trials have; drawn at random instead: {', '.join(space.conditions)}"
    if name != "cmaes":
        return None
    if space.conditions:
        raise UserError("sampler=cmaes takes no hydra.sweeper.conditions; choose hydra.sweeper.sampler=tpe")
    if len(objectives) > 1:
        raise UserError("sampler=cmaes has one objective; choose hydra.sweeper.sampler=tpe for several")
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise UserError("sampler=cmaes needs the package cmaes: pip install 'mlpexp[search]'") from None
    named = [key for key, d in space.distributions.items() if isinstance(d, CategoricalDistribution)]
    if len(space.distributions) - len(named) < 2:
        raise UserError(
            "sampler=cmaes needs two numbers at least, as interval or range; hydra.sweeper.sampler=tpe takes any space"
        )
    return f"sampler=cmaes chooses numbers only; drawn at random instead: {', '.join(named)}" if named else None


def silence_optuna() -> None:
    """Turn off Optuna's own messages; the search reports what is needed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
