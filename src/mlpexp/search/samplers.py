"""Who chooses the next trials: a sampler of Optuna's, or a list of points that is known from the start."""

import hashlib
import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

from mlpexp.runtime.errors import UserError
from mlpexp.search import search_space as spaces
from mlpexp.search.search_space import Space

SAMPLERS = ("tpe", "cmaes", "random", "qmc", "grid")

Points = Callable[[int, int], list[dict[str, Any]]]


def sampler(name: str, seed: int, trial: int, batch_size: int) -> BaseSampler:
    """A sampler for the generation that begins with this trial.

    A new one for each, seeded by where it stands: so a search that was killed goes on as if it had not been.
    """
    text = hashlib.sha256(f"{seed}/{trial}".encode()).digest()
    own = int.from_bytes(text[:4], "big")
    match name:
        case "cmaes":
            return CmaEsSampler(seed=own, popsize=max(4, batch_size), warn_independent_sampling=False)
        case "tpe":
            return TPESampler(seed=own)
    return RandomSampler(seed=own)


def points(name: str, seed: int, space: Space) -> Points | None:
    """From (first, count) to these points of a grid or of a quasi-random sequence; None where a sampler chooses."""
    if name == "grid":
        return lambda first, count: list(islice(spaces.combinations(space), first, first + count))
    if name == "qmc":
        return lambda first, count: _quasi_random(space, seed, first, count)
    return None


def grid_size(space: Space) -> int:
    """How many points the space has, see `space.values`."""
    size = 1
    for key, distribution in space.distributions.items():
        size *= len(spaces.values(key, distribution))
    return size


def refuse_unfit(name: str, space: Space, objectives: list[str]) -> str | None:
    """A warning where the sampler can do only part of the job.

    Raises:
        UserError: it cannot do it at all.
    """
    if name not in SAMPLERS:
        raise UserError(
            f"unknown sampler '{name}'; choose one of {', '.join(SAMPLERS)}, e.g. hydra.sweeper.sampler=tpe"
        )
    if name != "cmaes":
        return None
    if len(objectives) > 1:
        raise UserError("sampler=cmaes has one objective; choose hydra.sweeper.sampler=tpe for several")
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise UserError("sampler=cmaes needs the package cmaes: pip install 'mlpexp[search]'") from None
    named = [key for key, one in space.distributions.items() if isinstance(one, CategoricalDistribution)]
    if len(space.distributions) - len(named) < 2:
        raise UserError("sampler=cmaes needs two numbers at least, as interval or range; sampler=tpe takes anything")
    return f"sampler=cmaes moves numbers; drawn at random instead: {', '.join(named)}" if named else None


def _quasi_random(space: Space, seed: int, first: int, count: int) -> list[dict[str, Any]]:
    from scipy.stats.qmc import Sobol  # a second: late

    sequence = Sobol(len(space.distributions), scramble=True, rng=seed)
    if first:
        sequence.fast_forward(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about numbers of points that are no power of two
        shares = sequence.random(count).tolist()
    return [
        {
            key: spaces.at(share, distribution)
            for share, (key, distribution) in zip(row, space.distributions.items(), strict=True)
        }
        for row in shares
    ]


def quiet() -> None:
    """Optuna's own messages: what a person needs to know, the search says itself."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
