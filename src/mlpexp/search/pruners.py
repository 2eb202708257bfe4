"""Pruners: when the trials of a search are compared, and Optuna's class that decides which of them end early."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner, WilcoxonPruner

from mlpexp.runtime.errors import UserError
from mlpexp.runtime.registry import Registry

MAX_LOOKS = 10  # comparisons of a trial, where a pruner would compare after every epoch; each divides its stack in two
MAX_RUNGS = 4
MAX_SEEDS = 100  # that are advised
FRACTIONS = ("p_threshold",)  # options that are no whole numbers


@dataclass(frozen=True, kw_only=True)
class PrunerEntry:
    """One pruner.

    Attributes:
        kind: Optuna's class.
        defaults: (epochs) -> options that differ from Optuna's defaults.
        looks: (epochs, options) -> the epochs after which trials are compared, rising; with `by_seed`, (seeds, options)
            -> the numbers of seeds. The trial's end is not among them.
        by_seed: trials are compared after some of their seeds, in place of epochs.
    """

    kind: type[BasePruner]
    defaults: Callable[[int], dict[str, Any]] = lambda epochs: {}
    looks: Callable[[int, Mapping[str, Any]], list[int]] = lambda epochs, options: []
    by_seed: bool = False

    def options(self, epochs: int, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options of Optuna's class, those that were given before our defaults before Optuna's."""
        parameters = inspect.signature(self.kind).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters} | self.defaults(epochs) | dict(given)


def _evenly(epochs: int, options: Mapping[str, Any]) -> list[int]:
    interval, first = options["interval_steps"], options["n_warmup_steps"]
    return list(range(max(1, first), epochs, interval))


def _seeds(seeds: int, options: Mapping[str, Any]) -> list[int]:
    """From the number of pairs on from which the test can reject: with n pairs its p is 2^-n at least."""
    least = max(2, options["n_startup_steps"])
    return [count for count in range(least, seeds) if 2.0**-count < options["p_threshold"]]


def _rungs(epochs: int, options: Mapping[str, Any]) -> list[int]:
    """
    Raises:
        ValueError: an option that Optuna's Hyperband would refuse at the first comparison only.
    """
    SuccessiveHalvingPruner(**{key: options[key] for key in ("min_resource", "reduction_factor", "bootstrap_count")})
    rung = options["min_resource"] * options["reduction_factor"] ** options.get("min_early_stopping_rate", 0)
    rungs = []
    while rung < epochs:
        rungs.append(rung)
        rung *= options["reduction_factor"]
    return rungs


def _first_rung(epochs: int, factor: int) -> int:
    return max(1, epochs // factor**MAX_RUNGS)


PRUNERS: Registry[PrunerEntry] = Registry(
    "pruner",
    {
        "median": PrunerEntry(
            kind=MedianPruner,
            # the first epochs say little: a large learning rate, say, is slow at first
            defaults=lambda epochs: {"interval_steps": -(-epochs // MAX_LOOKS), "n_warmup_steps": epochs // 5},
            looks=_evenly,
        ),
        "asha": PrunerEntry(
            kind=SuccessiveHalvingPruner, defaults=lambda epochs: {"min_resource": _first_rung(epochs, 4)}, looks=_rungs
        ),
        "hyperband": PrunerEntry(
            kind=HyperbandPruner,
            defaults=lambda epochs: {"min_resource": _first_rung(epochs, 3), "max_resource": epochs},
            looks=_rungs,
        ),
        "wilcoxon": PrunerEntry(kind=WilcoxonPruner, looks=_seeds, by_seed=True),
    },
)


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The pruner of a search; checked.

    Attributes:
        given: options that were given.
        options: all of Optuna's class.
        looks, by_seed: see `PrunerEntry`.
    """

    name: str
    given: dict[str, Any]
    options: dict[str, Any]
    looks: list[int]
    by_seed: bool

    def make(self) -> BasePruner:
        return _made(PRUNERS[self.name].kind, self.options)


def pruning(name: str, given: Mapping[str, Any], epochs: int, seeds: int) -> Pruning:
    """
    Args:
        given: options of Optuna's class.
        epochs: of the longest run.
        seeds: runs of each trial.

    Raises:
        UserError: there is no such pruner or option, or the trials give it nothing to decide by.
    """
    if name not in PRUNERS:
        raise UserError(f"{PRUNERS.unknown_message(name)}, e.g. hydra.sweeper.pruner=median")
    entry = PRUNERS[name]
    options = entry.options(epochs, given)
    if unknown := [key for key in given if key not in inspect.signature(entry.kind).parameters]:
        raise UserError(f"unknown option hydra.sweeper.pruner_options.{unknown[0]}; {name} has {', '.join(options)}")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"hydra.sweeper.pruner_options.{key}={value} is no number")
        if key not in FRACTIONS and not isinstance(value, int):
            raise UserError(f"hydra.sweeper.pruner_options.{key}={value} is no whole number")
    total = seeds if entry.by_seed else epochs
    try:
        _made(entry.kind, options)
        looks = entry.looks(total, options)
    except (ValueError, TypeError) as error:
        raise UserError(f"hydra.sweeper.pruner_options={dict(given)}: {error}") from error
    if not looks and entry.by_seed:
        needed = next((count for count in range(total, MAX_SEEDS) if entry.looks(count, options)), None)
        advice = f"add hydra.sweeper.seeds={needed}" if needed else "raise p_threshold"
        raise UserError(
            f"pruner={name} compares the seeds of trials, and {seeds:,} are too few for a p below "
            f"{options['p_threshold']:g}; {advice}, or choose hydra.sweeper.pruner=median"
        )
    if not looks:
        raise UserError(
            f"pruner={name} compares trials while they train, and there is no epoch for that before the last one "
            f"({epochs:,}); raise trainer.max_epochs, or leave the pruner out"
        )
    if options.get("max_resource", epochs) < options.get("min_resource", 1):
        raise UserError(
            f"pruner={name} has no bracket: max_resource={options['max_resource']} is less than "
            f"min_resource={options['min_resource']}; leave max_resource out"
        )
    return Pruning(name=name, given=dict(given), options=options, looks=looks, by_seed=entry.by_seed)


def _made(kind: type[BasePruner], options: Mapping[str, Any]) -> BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of the Wilcoxon pruner
        return kind(**options)
