"""The runs of a grid: every combination of the values that the command line lists, parsed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import hydra.core.override_parser.types as hydra_types
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlpexp.config import overrides
from mlpexp.config.overrides import Override
from mlpexp.runtime.errors import UserError

DEFAULT_MAX_RUNS = 100_000


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of a sweep: its place in the order of the grid and its overrides."""

    number: int
    overrides: tuple[Override, ...]

    @property
    def texts(self) -> list[str]:
        return [override.text for override in self.overrides]


def specs(runs: Sequence[Sequence[str]], first: int = 0) -> list[RunSpec]:
    """The runs that another sweeper lists as override texts."""
    return [RunSpec(first + i, tuple(map(overrides.parse, run))) for i, run in enumerate(runs)]


def expand(params: object, arguments: Sequence[str], loader: ConfigLoader, max_runs: int | None) -> list[RunSpec]:
    """Every combination, the last key fastest, as Hydra's own sweeper orders them.

    Args:
        params: `hydra.sweeper.params`: values by key, in the syntax of the command line; `arguments` replace them.
        arguments: override texts of the command line, without Hydra's own.
        max_runs: `hydra.launcher.max_runs`; None where the launcher has no such key.

    Raises:
        HydraException: an override cannot be parsed.
        UserError: no value, an interval, or more than `max_runs` runs.
    """
    texts = params_texts(params) + list(arguments)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(texts)
    given = {override.get_key_element(): override for override in parsed}  # of a key given twice, the later counts
    counts = {key: _count(override) for key, override in given.items()}
    for key, count in counts.items():
        if count == 0:
            raise UserError(f"{given[key].input_line} names no value at all, so that the sweep would have no runs")
    if (total := prod(counts.values())) > (max_runs or DEFAULT_MAX_RUNS):
        advice = (
            f"add hydra.launcher.max_runs={total}" if max_runs else "leave out hydra/launcher, which trains in stacks"
        )
        raise UserError(f"the sweep has {total:,} runs; if you mean it, {advice}")
    values = [[overrides.parse(text) for text in _texts(override)] for override in given.values()]
    return [RunSpec(number, chosen) for number, chosen in enumerate(product(*values))]


def params_texts(params: object) -> list[str]:
    """`hydra.sweeper.params` as overrides.

    Raises:
        UserError: it is not a mapping.
    """
    if params is not None and not isinstance(params, Mapping):
        raise UserError(f"hydra.sweeper.params={params} is no mapping; type its keys as overrides, e.g. seed=1,2")
    return [f"{key}={value}" for key, value in (params or {}).items()]


def _count(override: hydra_types.Override) -> int:
    """The number of its values, without making them: a range may be long."""
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is an interval, which has no single values for a grid; list values, e.g. "
            f"{override.key_or_group}=0.1,0.2, or search it with hydra/sweeper=optuna"
        )
    value = override.value()
    if isinstance(value, hydra_types.RangeSweep) and isinstance(numbers := value.range(), range):
        return len(numbers)
    return sum(1 for _ in override.sweep_string_iterator())


def _texts(override: hydra_types.Override) -> list[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]
