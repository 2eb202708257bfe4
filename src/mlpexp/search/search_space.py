"""The search space, read from Hydra's syntax for sweeps, and the overrides that a trial's values are trained with."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from mlpexp.config.field_types import builtin_types
from mlpexp.config.schema import field_types
from mlpexp.runtime.errors import UserError
from mlpexp.store.sweep_manifest import REPEATED

Run = tuple[str, ...]  # its overrides
Runs = tuple[Run, ...]  # of a trial
MAX_COUNTED = 100_000  # combinations of values in a conditional space
DIGITS = 6  # of a number between two bounds, so that names of directories stay short


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space.

    Attributes:
        typed: the override of each key as it was typed, in that order.
        distributions: of the keys that are searched.
        repetitions: the overrides of keys that only repeat a trial, such as the seed; a trial is the mean over them.
        fixed: overrides that are equal in all runs.
        conditions: of keys that are searched only where each of these other keys has one of these values, as text. The
            other keys come first in `distributions`.
    """

    typed: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    repetitions: dict[str, list[str]] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)

    @property
    def varied(self) -> list[str]:
        """The keys with several values, in the order in which they were typed."""
        repeated = [key for key, texts in self.repetitions.items() if len(texts) > 1]
        return [key.lstrip("+") for key in self.typed if key in self.distributions or key in repeated]

    def is_active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Whether a key is searched beside these values of the keys before it."""
        return all(
            parent in params and str(params[parent]) in texts for parent, texts in self.conditions.get(key, {}).items()
        )

    def active(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values without those of keys that are not searched beside the others."""
        active: dict[str, Any] = {}
        for key in self.distributions:
            if key in params and self.is_active(key, active):
                active[key] = params[key]
        return active

    def activating(self, key: str) -> dict[str, Any]:
        """Values of other keys with which this one is searched."""
        found: dict[str, Any] = {}
        for parent, texts in self.conditions.get(key, {}).items():
            listed = values(parent, self.distributions[parent])
            found |= self.activating(parent) | {parent: next(value for value in listed if str(value) in texts)}
        return found

    def runs(self, params: Mapping[str, Any]) -> Runs:
        """The overrides of each run of a trial; a key without a value keeps its default."""
        texts: list[list[str]] = []
        for key in self.typed:
            if key in self.fixed:
                texts.append([self.fixed[key]])
            elif key in self.repetitions:
                texts.append(self.repetitions[key])
            elif key in params:
                texts.append([f"{key}={_value_text(params[key], self.distributions[key])}"])
        return tuple(product(*texts))

    def trained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values as they are trained: numbers with few digits."""
        return {
            key: float(_value_text(value, self.distributions[key])) if _is_rounded(self.distributions[key]) else value
            for key, value in params.items()
        }

    def settings(self, params: Mapping[str, Any]) -> dict[str, str]:
        """The searched keys with their values as override text."""
        return {
            key.lstrip("+"): _value_text(params[key], distribution)
            for key, distribution in self.distributions.items()
            if key in params
        }


def read(overrides: Sequence[Override], seeds: Any = None, first_seed: int = 0) -> Space:
    """The space of a command line; of a key that is given twice, the later override counts.

    Args:
        seeds: how many each trial has, from `first_seed` on; None: as the overrides say.

    Raises:
        UserError: no key has several values, an interval is not one, or the number of seeds is none.
    """
    by_name = {override.get_key_element().lstrip("+"): override for override in overrides}
    by_key = {override.get_key_element(): override for override in by_name.values()}
    if seeds is not None:
        if type(seeds) is not int or seeds < 1:
            raise UserError(f"hydra.sweeper.seeds={seeds} is out of range: it must be a whole number from 1, e.g. 5")
        if "seed" in by_key and by_key["seed"].is_sweep_override():
            raise UserError(f"hydra.sweeper.seeds={seeds} and {by_key['seed'].input_line}; leave out one of the two")
        start = by_key["seed"].value() if "seed" in by_key else first_seed
        if type(start) is not int:
            raise UserError(f"hydra.sweeper.seeds={seeds} counts from seed={start}, which is no whole number")
        text = f"seed={start}" if seeds == 1 else f"seed=range({start},{start + seeds})"
        by_key["seed"] = OverridesParser.create().parse_override(text)
    space = Space(typed={key: str(override.input_line) for key, override in by_key.items()})
    for key, override in by_key.items():
        if not override.is_sweep_override():
            space.fixed[key] = str(override.input_line)
        elif key.lstrip("+") in REPEATED:
            if not override.is_discrete_sweep():
                raise UserError(f"{override.input_line}: a trial is repeated with each {key}, e.g. {key}=range(5)")
            space.repetitions[key] = [f"{key}={text}" for text in override.sweep_string_iterator()]
        else:
            space.distributions[key] = _distribution(override)
    if not space.distributions:
        raise UserError("nothing to search: give a key several values, e.g. optimizer.lr=tag(log,interval(0.001,1))")
    return space


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Let a trial choose the value of a key."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        assert isinstance(distribution, FloatDistribution)
        trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def values(key: str, distribution: BaseDistribution) -> list[Any]:
    """All values of a key, for a grid.

    Raises:
        UserError: there are infinitely many.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        raise UserError(f"a grid needs single values: {key} has an interval; give {key}=choice(…) or {key}=range(…)")
    return [distribution.low + i * distribution.step for i in range(int(num_values(distribution)))]


def num_values(distribution: BaseDistribution) -> float:
    """How many values a key has, infinity for an interval."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = distribution.step
    return math.inf if step is None else round((distribution.high - distribution.low) / step) + 1


def bounds(distribution: BaseDistribution) -> list[Any]:
    """The values that suffice to check a distribution: all choices, or both ends of an interval."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def at(share: float, distribution: BaseDistribution) -> Any:
    """The value at this share, in [0, 1), of the distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        low_log, high_log = math.log(low - margin), math.log(high + margin)
        value = math.exp(low_log + share * (high_log - low_log))
        return max(low, min(high, round(value))) if margin else max(low, min(high, value))
    if step is None:
        return low + share * (high - low)
    return low + step * int(share * (round((high - low) / step) + 1))


def _is_rounded(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, FloatDistribution) and distribution.step is None


def _value_text(value: Any, distribution: BaseDistribution) -> str:
    """The value in an override; a float is rounded to a few digits, within its bounds."""
    if isinstance(distribution, FloatDistribution):
        value = float(f"{value:.{DIGITS}g}")
        value = max(distribution.low, min(distribution.high, value))
    return str(value)


def _distribution(override: Override) -> BaseDistribution:
    value, typed = override.value(), str(override.input_line)
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"{typed} is no interval: the first bound must be smaller, e.g. interval(0.001,1)")
        log = _log(value.tags, low, typed)
        if "int" in value.tags or isinstance(low, int):
            if math.ceil(low) > math.floor(high):
                raise UserError(f"{typed}: there is no whole number between {low} and {high}")
            return IntDistribution(math.ceil(low), math.floor(high), log=log)
        types = builtin_types(field_types().get(override.key_or_group, float))
        if int in types and float not in types:  # Hydra makes numbers with fractions of both bounds
            ends = ",".join(f"{bound:.6g}" for bound in (low, high))
            tags = "log,int" if log else "int"
            raise UserError(
                f"{typed} has numbers with fractions, and {override.key_or_group} takes whole ones; give "
                f"'{override.key_or_group}=tag({tags},interval({ends}))'"
            )
        return FloatDistribution(low, high, log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        given = value.range()
        numbers = given if isinstance(given, range) else [float(f"{number:.12g}") for number in given]
        if not numbers:
            raise UserError(f"{typed} names no value at all")
        low, high = sorted((numbers[0], numbers[-1]))
        step, log = abs(value.step), _log(value.tags, low, typed)
        if log and step != 1:
            raise UserError(f"{typed}: with tag(log, …) a range has steps of 1")
        if isinstance(numbers, range):
            return IntDistribution(low, high, step=step, log=log)  # type: ignore[arg-type]
        return FloatDistribution(low, high, step=step)
    if "log" in getattr(value, "tags", ()):
        raise UserError(f"{typed}: tag(log, …) is for interval(…) and range(…)")
    choices = list(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise UserError(f"{typed} names no value at all")
    return CategoricalDistribution(choices)


def _log(tags: set[str], low: float, typed: str) -> bool:
    if unknown := tags - {"log", "int", "float"}:
        raise UserError(f"{typed}: unknown tag '{min(unknown)}'; the tags are log and int")
    if "log" in tags and low <= 0:
        raise UserError(f"{typed}: a logarithmic scale begins above 0, e.g. tag(log,interval(0.001,1))")
    return "log" in tags


def size(space: Space, most: int) -> int | None:
    """The number of different trials of a finite space; None where there are more than `most`."""
    points = math.prod(map(num_values, space.distributions.values()))
    if space.conditions and points <= max(most, MAX_COUNTED):
        points = sum(1 for _ in combinations(space))
    return int(points) if points <= most else None


def combinations(space: Space) -> Iterator[dict[str, Any]]:
    """Every point of a finite space, the last key fastest, as in a grid sweep; each once."""
    lists = [values(key, distribution) for key, distribution in space.distributions.items()]
    yielded: set[tuple[tuple[str, Any], ...]] = set()
    for point in product(*lists):
        params = space.active(dict(zip(space.distributions, point, strict=True)))
        if space.conditions:
            if (items := tuple(params.items())) in yielded:
                continue
            yielded.add(items)
        yield params
