"""The runs of a grid: all combinations of the listed values, without the skipped ones, or a random part of them."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import checks, overrides, sweep_syntax
from mlpexp.config.compose import Composer
from mlpexp.config.composed_run import ComposedRun
from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.overrides import RunSpec
from mlpexp.config.schema import Config
from mlpexp.config.skip_condition import SkipCondition
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import counted
from mlpexp.store.identity import identity
from mlpexp.sweep.checked_runs import MAX_CHECKED
from mlpexp.sweep.combinations import Grid

DEFAULT_MAX_RUNS = 100_000
MAX_EXAMINED = 1_000_000  # combinations whose configurations are composed to choose among them
MAX_SHUFFLED = 1 << 20  # numbers that are shuffled as a list; more are drawn one by one


class ChosenRuns(NamedTuple):
    """The runs that are trained, and a sentence on several grids, and on combinations that are not; else empty."""

    runs: list[RunSpec]
    sentence: str


def expand(settings: GridSettings, arguments: Sequence[str], composer: Composer, max_runs: int | None) -> ChosenRuns:
    """The runs of a grid, in its order, equal ones of several grids once; arguments as for `Grid`.

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
    is_composed = bool(conditions) or grid.num_grids > 1
    if is_composed and settings.limit is None and grid.size > MAX_EXAMINED:
        raise UserError(
            f"the grid has {grid.size:,} combinations, and skip and several grids have {MAX_EXAMINED:,} at most; list "
            "fewer values, or add limit=1000 for a random part"
        )
    if not is_composed:
        _check_number(limit, max_runs)
    order: Iterator[int] = iter(range(grid.size)) if limit == grid.size else _shuffled(grid.size, settings.seed)
    places, skipped, repeated = list[int](), 0, 0
    identities, parsed = set[str](), dict[tuple[object, ...], Config]()
    for place in order:
        if len(places) == limit or skipped + repeated == MAX_EXAMINED:
            break
        run = _composed(grid.run(place, 0), composer) if is_composed else None
        if run is not None and any(condition.holds(run.config) for condition in conditions):
            skipped += 1
            continue
        if run is not None and grid.num_grids > 1 and (name := _identity(run, parsed)):
            if name in identities:
                repeated += 1
                continue
            identities.add(name)
        places.append(place)
    if not places:
        raise UserError(f"skip leaves none of the {skipped:,} combinations; correct {' and '.join(texts)}")
    _check_number(len(places), max_runs)
    runs = [grid.run(place, number) for number, place in enumerate(sorted(places))]
    part = f"{len(runs):,} {'is' if len(runs) == 1 else 'are'} chosen at random" if limit < grid.size else ""
    equal = f"{repeated:,} {'is' if repeated == 1 else 'are'} equal to others" if repeated else ""
    left_out = " and ".join(filter(None, [f"skip leaves out {skipped:,}" if skipped else "", equal]))
    selection = f"{part} ({left_out} before)" if part and left_out else part or left_out
    total = f"{counted(grid.size, 'combination')}{f' in {grid.num_grids:,} grids' if grid.num_grids > 1 else ''}"
    sentence = f"{total}, of which {selection}" if selection else total if grid.num_grids > 1 else ""
    return ChosenRuns(runs, sentence)


def specs(runs: Sequence[Sequence[str]], first: int = 0) -> list[RunSpec]:
    """Parse runs that another sweeper gives as override texts."""
    return [RunSpec(first + i, tuple(map(overrides.parse, run))) for i, run in enumerate(runs)]


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


def _composed(spec: RunSpec, composer: Composer) -> ComposedRun | None:
    try:
        return composer.compose(spec)
    except (HydraException, OmegaConfBaseException, ValueError):
        return None  # the check of all runs says why


def _identity(run: ComposedRun, parsed: dict[tuple[object, ...], Config]) -> str:
    """Equal for runs that train the same; empty where the configuration is wrong.

    Args:
        parsed: configurations of earlier runs, which differ from such a run in the seed at most.
    """
    try:
        if run.alike in parsed:
            cfg = parsed[run.alike].with_seed(run.config.get("seed"))
        else:
            cfg = checks.parse(run.config, Path.cwd)
    except (UserError, ValueError):
        return ""  # the check of all runs says why
    if run.alike is not None and len(parsed) < MAX_CHECKED:
        parsed[run.alike] = cfg
    return identity(cfg, repr(cfg.data))  # a digest of the data would need the data
