"""The runs of a grid: all combinations of the listed values, without the skipped ones, or a random part of them."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import hydra.core.override_parser.types as hydra_types
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import overrides, sweep_syntax
from mlpexp.config.compose import Composer
from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.overrides import Override, RunSpec
from mlpexp.config.skip_condition import SkipCondition
from mlpexp.config.sweep_syntax import SWEEPER, ZIP_EXAMPLE
from mlpexp.runtime.errors import UserError

DEFAULT_MAX_RUNS = 100_000
MAX_EXAMINED = 1_000_000  # combinations of which a condition is computed
MAX_SHUFFLED = 1 << 20  # numbers that are shuffled as a list; more are drawn one by one

Point = tuple[Override, ...]


class Grid:
    """All combinations of values, ordered as Hydra's own sweeper does (last key fastest); zipped keys come first.

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

        groups = [_parsed_group(parsed, texts) for texts in sweep_syntax.groups(settings.zip)]
        ungrouped = parsed([*params_texts(settings.params), *arguments])
        _refuse_hydra_keys([*groups, ungrouped])
        _check_groups(groups, ungrouped)
        self._counts = [_same_count(group) for group in groups] + [_count(override) for override in ungrouped.values()]
        self._axes = [*(list(group.values()) for group in groups), *([override] for override in ungrouped.values())]
        self.size = prod(self._counts)

    @property
    def keys(self) -> set[str]:
        return {override.key_or_group for axis in self._axes for override in axis}

    def run(self, place: int, number: int) -> RunSpec:
        """The combination at index `place` of the grid, as run `number` of the sweep."""
        points: list[Point] = []
        for count, axis in zip(reversed(self._counts), reversed(self._points), strict=True):
            place, digit = divmod(place, count)
            points.append(axis[digit])
        return RunSpec(number, tuple(override for point in reversed(points) for override in point))

    @cached_property
    def _points(self) -> list[list[Point]]:
        """The overrides of each axis; computed late, when the size of the grid has been checked."""
        columns = ([[overrides.parse(text) for text in _texts(override)] for override in axis] for axis in self._axes)
        return [list(zip(*column, strict=True)) for column in columns]


class ChosenRuns(NamedTuple):
    """The runs that are trained, and a sentence on the combinations that are not; empty if all are."""

    runs: list[RunSpec]
    sentence: str


def expand(settings: GridSettings, arguments: Sequence[str], composer: Composer, max_runs: int | None) -> ChosenRuns:
    """The runs of a grid, in its order; arguments as for `Grid`.

    Args:
        max_runs: `hydra.launcher.max_runs`; None where the launcher has no such key.

    Raises:
        HydraException: an override cannot be parsed.
        UserError: the grid is wrong or too large, or no run is left.
    """
    grid = Grid(settings, arguments, composer.loader)
    texts = sweep_syntax.conditions(settings.skip)
    conditions = [SkipCondition(text, grid.keys) for text in texts]
    limit = grid.size if settings.limit is None else min(settings.limit, grid.size)
    if conditions and settings.limit is None and grid.size > MAX_EXAMINED:
        raise UserError(
            f"the grid has {grid.size:,} combinations, and skip is computed for {MAX_EXAMINED:,} at most; list fewer "
            "values, or add limit=1000 for a random part"
        )
    if not conditions:
        _check_number(limit, max_runs)
    order: Iterator[int] = iter(range(grid.size)) if limit == grid.size else _shuffled(grid.size, settings.seed)
    places, skipped = list[int](), 0
    for place in order:
        if len(places) == limit:
            break
        if conditions and _is_skipped(grid.run(place, 0), conditions, composer):
            skipped += 1
            if skipped == MAX_EXAMINED:
                break
        else:
            places.append(place)
    if not places:
        raise UserError(f"skip leaves none of the {skipped:,} combinations; correct {' and '.join(texts)}")
    _check_number(len(places), max_runs)
    runs = [grid.run(place, number) for number, place in enumerate(sorted(places))]
    part = f"{len(runs):,} {'is' if len(runs) == 1 else 'are'} chosen at random" if limit < grid.size else ""
    left_out = f"skip leaves out {skipped:,}" if skipped else ""
    selection = f"{part} ({left_out} before)" if part and left_out else part or left_out
    return ChosenRuns(runs, f"{grid.size:,} combinations, of which {selection}" if selection else "")


def specs(runs: Sequence[Sequence[str]], first: int = 0) -> list[RunSpec]:
    """Parse runs that another sweeper gives as override texts."""
    return [RunSpec(first + i, tuple(map(overrides.parse, run))) for i, run in enumerate(runs)]


def params_texts(params: object) -> list[str]:
    """`hydra.sweeper.params` as overrides.

    Raises:
        UserError: it is not a mapping.
    """
    if params is not None and not isinstance(params, Mapping):
        raise UserError(f"hydra.sweeper.params={params} is no mapping; type its keys as overrides, e.g. seed=1,2")
    listed = sweep_syntax.leaves(params or {})
    return [f"{key}={sweep_syntax.values(key, value)}" for key, value in listed.items()]


def _check_number(total: int, max_runs: int | None) -> None:
    if total > (max_runs or DEFAULT_MAX_RUNS):
        advice = (
            f"add hydra.launcher.max_runs={total}" if max_runs else "leave out hydra/launcher, which trains in stacks"
        )
        raise UserError(f"the sweep has {total:,} runs; train a random part by limit=1000; if you mean all, {advice}")


def _shuffled(size: int, seed: int) -> Iterator[int]:
    """The integers below `size` in random order, generated one by one."""
    generator = random.Random(seed)
    if size <= MAX_SHUFFLED:
        numbers = list(range(size))
        generator.shuffle(numbers)
        yield from numbers
        return
    drawn: set[int] = set()
    while len(drawn) < size:
        if (number := generator.randrange(size)) not in drawn:
            drawn.add(number)
            yield number


def _is_skipped(spec: RunSpec, conditions: Sequence[SkipCondition], composer: Composer) -> bool:
    try:
        config = composer.compose(spec).config
    except (HydraException, OmegaConfBaseException, ValueError):
        return False  # the check of all runs says why
    return any(condition.holds(config) for condition in conditions)


def _parsed_group(
    parsed: Callable[[Sequence[str]], dict[str, hydra_types.Override]], texts: Sequence[str]
) -> dict[str, hydra_types.Override]:
    """The overrides of a zip, with advice that shows one where they cannot be read."""
    try:
        return parsed(texts)
    except OverrideParseException:
        raise UserError(
            f"zip({','.join(texts)}) cannot be read; write commas between keys, and lists of values, e.g. {ZIP_EXAMPLE}"
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
