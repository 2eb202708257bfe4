"""`hydra.sweeper.conditions`: keys that are searched beside some values of other keys only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution

from mlpexp.config.overrides import Override, parse, spell
from mlpexp.runtime.errors import UserError
from mlpexp.search import search_space
from mlpexp.search.search_space import Space

MAX_VALUES = 1000  # of a key on which another one depends


def with_conditions(space: Space, given: Any) -> Space:
    """The space with `hydra.sweeper.conditions`: {key: {other key: value, or list of values, …}}.

    Raises:
        UserError: a condition is about keys or values that are not searched, or they depend on each other in a circle.
    """
    if not given:
        return space
    example = "e.g. 'hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}}'"
    if not isinstance(given, Mapping) or not all(
        isinstance(parents, Mapping) and parents for parents in given.values()
    ):
        raise UserError(f"hydra.sweeper.conditions={given} is no mapping of keys to other keys with values, {example}")
    space, given = _without_fixed(space, given)
    by_name = {key.lstrip("+"): key for key in space.distributions}
    if unknown := [key for name, parents in given.items() for key in (name, *parents) if str(key) not in by_name]:
        raise UserError(f"hydra.sweeper.conditions: {unknown[0]} is not searched; searched are {', '.join(by_name)}")
    conditions = {
        by_name[str(name)]: {
            by_name[str(parent)]: _texts(str(parent), space.distributions[by_name[str(parent)]], listed)
            for parent, listed in parents.items()
        }
        for name, parents in given.items()
    }
    ordered: dict[str, BaseDistribution] = {}
    unordered = dict(space.distributions)
    while unordered:
        ready = [key for key in unordered if conditions.get(key, {}).keys() <= ordered.keys()]
        if not ready:
            raise UserError(f"hydra.sweeper.conditions: {' and '.join(unordered)} depend on each other; leave one out")
        ordered |= {key: unordered.pop(key) for key in ready}
    return replace(space, distributions=ordered, conditions=conditions)


def _without_fixed(space: Space, given: Mapping[Any, Any]) -> tuple[Space, dict[Any, Any]]:
    """The space and the conditions without keys that have one value: a key whose condition never holds is not searched.

    A condition on such a key comes from an experiment, where the command line gives the key one value.
    """
    fixed = {parse(text).key: parse(text) for text in space.fixed.values()}
    remaining: dict[Any, Any] = {}
    never: set[str] = set()
    for name, parents in given.items():
        remaining[name] = {parent: listed for parent, listed in parents.items() if parent not in fixed}
        if str(name) in fixed or not all(_holds(fixed[key], parents[key]) for key in parents if key in fixed):
            never.add(str(name))
    # a key beside which another one is searched is not there
    while added := {str(name) for name, parents in remaining.items() if never & set(map(str, parents))} - never:
        never |= added
    dropped = {key for key in space.distributions if key.lstrip("+") in never}
    if dropped == set(space.distributions):
        raise UserError(
            "nothing to search: no condition in hydra.sweeper.conditions holds with the values that are given"
        )
    space = replace(
        space,
        typed={key: text for key, text in space.typed.items() if key not in dropped},
        distributions={key: distribution for key, distribution in space.distributions.items() if key not in dropped},
    )
    return space, {name: parents for name, parents in remaining.items() if parents and str(name) not in never}


def _holds(override: Override, given: Any) -> bool:
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    value = override.value
    return any(_equal(value, one) for one in (given, *listed))


def _texts(name: str, distribution: BaseDistribution, given: Any) -> frozenset[str]:
    """The values in a condition as text, as `distribution` has them.

    Raises:
        UserError: one of them is not searched, or there are infinitely many.
    """
    if isinstance(distribution, FloatDistribution) or search_space.num_values(distribution) > MAX_VALUES:
        raise UserError(f"hydra.sweeper.conditions: {name} has no single values; list them, e.g. {name}=choice(…)")
    texts = {str(value): parse(f"{name}={value}").value for value in search_space.values(name, distribution)}

    def found(value: Any) -> str | None:
        return next((text for text, listed in texts.items() if text == value or _equal(listed, value)), None)

    listed = [given] if not isinstance(given, Sequence) or isinstance(given, str) or found(given) is not None else given
    chosen = [found(value) for value in listed]
    if not listed or None in chosen:
        wrong = spell(listed[chosen.index(None)]) if listed else "[]"
        raise UserError(f"hydra.sweeper.conditions: {name}={wrong} is not searched; searched are {', '.join(texts)}")
    return frozenset(text for text in chosen if text is not None)


def _equal(one: Any, other: Any) -> bool:
    """A truth value is equal to no number."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
