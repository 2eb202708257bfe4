"""All combinations of the values of a grid, or of several grids one after the other."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any

import hydra.core.override_parser.types as hydra_types
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from mlpexp.config import overrides, sweep_syntax
from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.overrides import Override, RunSpec
from mlpexp.config.sweep_syntax import EXAMPLES, SWEEPER
from mlpexp.runtime.errors import UserError

Overrides = Mapping[str, hydra_types.Override]
Point = tuple[Override, ...]


class Grid:
    """All combinations of values, ordered as Hydra's own sweeper does (last key fastest); zipped keys come first.

    Where `params` lists several grids, those of the first come first; zipped and typed keys belong to each of them.

    Args:
        settings: of the sweeper; `arguments` replace its `params`.
        arguments: override texts of the command line, without Hydra's own.

    Raises:
        HydraException: an override cannot be parsed.
        UserError: a key has no value or an interval, or keys that vary together have different numbers of values.
    """

    def __init__(self, settings: GridSettings, arguments: Sequence[str], loader: ConfigLoader) -> None:
        parser = OverridesParser.create(config_loader=loader)

        def parsed(texts: Sequence[str]) -> dict[str, hydra_types.Override]:
            """Overrides by key; the last one of each key."""
            return {override.get_key_element(): override for override in parser.parse_overrides(list(texts))}

        groups = [_parsed_group(parsed, texts, "zip") for texts in sweep_syntax.groups(settings.zip)]
        grids = [_parsed_group(parsed, texts, "grid") for texts in sweep_syntax.grids(settings.params)]
        typed = parsed(arguments)
        self._products = [_Product(groups, grid | typed) for grid in grids]
        self._ends = list(accumulate(product.size for product in self._products))
        self.size, self.num_grids = self._ends[-1], len(grids)

    @property
    def keys(self) -> set[str]:
        return {override.key_or_group for product in self._products for axis in product.axes for override in axis}

    def run(self, place: int, number: int) -> RunSpec:
        """The combination at index `place`, as run `number` of the sweep."""
        index = bisect_right(self._ends, place)
        product = self._products[index]
        return RunSpec(number, product.point(place - (self._ends[index] - product.size)))


class _Product:
    """The combinations of one grid.

    Args:
        groups: keys that vary together.
        ungrouped: all other keys.
    """

    def __init__(self, groups: Sequence[Overrides], ungrouped: Overrides) -> None:
        _refuse_hydra_keys([*groups, ungrouped])
        _check_groups(groups, ungrouped)
        self._counts = [_same_count(group) for group in groups] + [_count(override) for override in ungrouped.values()]
        self.axes = [*(list(group.values()) for group in groups), *([override] for override in ungrouped.values())]
        self.size = prod(self._counts)

    def point(self, place: int) -> Point:
        """The overrides of the combination at index `place`."""
        points: list[Point] = []
        for count, axis in zip(reversed(self._counts), reversed(self._points), strict=True):
            place, digit = divmod(place, count)
            points.append(axis[digit])
        return tuple(override for point in reversed(points) for override in point)

    @cached_property
    def _points(self) -> list[list[Point]]:
        """The overrides of each axis; computed late, when the size of the grid has been checked."""
        columns = ([[overrides.parse(text) for text in _texts(override)] for override in axis] for axis in self.axes)
        return [list(zip(*column, strict=True)) for column in columns]


def _parsed_group(
    parsed: Callable[[Sequence[str]], dict[str, hydra_types.Override]], texts: Sequence[str], name: str
) -> dict[str, hydra_types.Override]:
    """The overrides of a zip or a grid, with advice that shows one where they cannot be read."""
    try:
        return parsed(texts)
    except OverrideParseException:
        raise UserError(
            f"{name}({','.join(texts)}) cannot be read; write commas between keys, and lists of values, e.g. "
            f"{EXAMPLES[name]}"
        ) from None


def _refuse_hydra_keys(groups: Iterable[Mapping[str, hydra_types.Override]]) -> None:
    """Raises `UserError`: a key of Hydra's own has values; runs of one sweep share directory, sweeper and launcher."""
    for key in (key for group in groups for key in group):
        if key.partition(".")[0].partition("/")[0] == "hydra":
            raise UserError(f"{key} is a key of Hydra's own, and is the same in all runs of a sweep; give it one value")


def _check_groups(groups: Sequence[Mapping[str, Any]], ungrouped: Mapping[str, Any]) -> None:
    grouped: set[str] = set()
    for group in groups:
        for key in group:
            if key in grouped or key in ungrouped:
                place = "in another zip" if key in grouped else "outside of it"
                raise UserError(
                    f"{key} is given twice, in zip and {place}; leave out one of them (a zip of the experiment by "
                    f"{SWEEPER}zip=null)"
                )
        grouped |= group.keys()


def _same_count(group: Mapping[str, hydra_types.Override]) -> int:
    counts = {key: _count(override) for key, override in group.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} has {count:,}" for key, count in counts.items())
        raise UserError(f"zip needs as many values of each key: {listed}")
    return next(iter(counts.values()))


def _count(override: hydra_types.Override) -> int:
    """The number of values of an override, without a list of them, since a range may be long."""
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is an interval, which has no single values for a grid; list values, e.g. "
            f"{override.key_or_group}=0.1,0.2, or search it with hydra/sweeper=optuna"
        )
    value = override.value()
    if isinstance(value, hydra_types.RangeSweep) and isinstance(numbers := value.range(), range):
        count = len(numbers)
    else:
        count = sum(1 for _ in override.sweep_string_iterator())
    if not count:
        raise UserError(f"{override.input_line} names no value at all, so that the sweep would have no runs")
    return count


def _texts(override: hydra_types.Override) -> list[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]
