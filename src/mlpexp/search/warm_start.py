"""`hydra.sweeper.warm_start`: the runs of an earlier sweep as trials with known outcomes.

They are read once, when the search begins, and kept in its record: a search that continues does not depend on the
other directory.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mlpexp import data
from mlpexp.config import overrides
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import say
from mlpexp.search.search_record import Known
from mlpexp.search.search_space import Space
from mlpexp.store import sweep_manifest
from mlpexp.store.results_table import load_results
from mlpexp.store.run_directory import FINITE

HOW_IT_TRAINS = ("data.batch_size", "data.shuffle", "data.drop_last")  # not what is learned, or how it is measured
PROBLEM = ("data.", "data digest", "loss.")  # values of runs that differ in one of these cannot be compared


def read(directory: str | None, space: Space, names: Sequence[str], cfg: Config) -> list[Known]:
    """The configurations of a sweep that lie in the space, each with the means over its runs; says how many.

    Args:
        directory: of the sweep; None: nothing is known.
        names: of the objectives.
        cfg: a configuration of this search.

    Raises:
        UserError: there is no such sweep, it was about something else, or none of its runs helps.
    """
    if directory is None:
        return []
    rows = load_results(directory)
    there = sweep_manifest.read(Path(directory)) if Path(directory).is_dir() else None
    constants = there.constants if there else {}
    here = sweep_manifest.study([(cfg, data.digest(cfg.data))]).constants
    # what has its neutral default is in neither
    free = {*sweep_manifest.REPEATED, *HOW_IT_TRAINS, *(key.lstrip("+") for key in space.typed)} - set(space.fixed)
    compared = [key for key in {**constants, **here} if key.startswith(PROBLEM) and key not in free]
    varied = [key for key in (there.varied if there else []) if key in compared]
    other = [f"{key} has several values there" for key in varied]
    other += [
        f"{key} is {overrides.spell(constants.get(key))} there and {overrides.spell(here.get(key))} here"
        for key in compared
        if there and key not in varied and constants.get(key) != here.get(key)
    ]
    if other:
        raise UserError(f"hydra.sweeper.warm_start={directory}: {'; '.join(other)}; such values cannot be compared")
    if rows and "status" not in rows[0]:
        raise UserError(
            f"hydra.sweeper.warm_start={directory} holds a table without status: it is not a sweep of mlpexp"
        )
    if rows and (missing := [name for name in names if name not in rows[0]]):
        raise UserError(
            f"hydra.sweeper.warm_start={directory}: its results have no {missing[0]}; choose another objective, or "
            "leave warm_start out"
        )
    values: dict[tuple[tuple[str, Any], ...], list[list[float]]] = defaultdict(list)
    finite = [row for row in rows if row["status"] in FINITE and all(_is_number(row[name]) for name in names)]
    for row in finite:
        if (params := _params(constants | row, space)) is not None:
            values[tuple(params.items())].append([float(row[name]) for name in names])
    if not values:
        raise UserError(
            f"hydra.sweeper.warm_start={directory}: none of its {len(rows):,} runs is in the space of this search; "
            "the searched keys must have values there that are possible here"
        )
    known = [
        Known(params=dict(params), values=[math.fsum(column) / len(of) for column in zip(*of, strict=True)])
        for params, of in values.items()
    ]
    used = sum(map(len, values.values()))
    say(f"{len(known):,} configurations are known from {directory} ({used:,} of {len(rows):,} runs)")
    return known


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _params(row: Mapping[str, Any], space: Space) -> dict[str, Any] | None:
    """The searched keys of a run as Optuna's values; None where one is missing or outside of the space."""
    found: dict[str, Any] = {}
    for key, distribution in space.distributions.items():
        if not space.is_active(key, found):
            continue
        value = row.get(key.lstrip("+"))
        if value is None or (inside := _inside(value, distribution)) is None:
            return None
        found[key] = inside
    return found


def _inside(value: Any, distribution: BaseDistribution) -> Any:
    """The value as the distribution has it; None where it has not."""
    if isinstance(distribution, CategoricalDistribution):
        texts = {str(value), overrides.spell(value)}
        equal = (text for text in distribution.choices if text in texts or _equal_numbers(text, value))
        return next(equal, None)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not _is_number(value) or not distribution.low <= value <= distribution.high:
        return None
    if isinstance(distribution, IntDistribution):
        return int(value) if value == int(value) and (value - distribution.low) % distribution.step == 0 else None
    if distribution.step is not None and not math.isclose((value - distribution.low) % distribution.step, 0.0):
        return None
    return float(value)


def _equal_numbers(text: Any, value: Any) -> bool:
    try:
        return _is_number(value) and not isinstance(value, bool) and float(text) == value
    except ValueError:
        return False
