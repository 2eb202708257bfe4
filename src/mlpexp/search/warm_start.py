"""`hydra.sweeper.warm_start`: the runs of an earlier sweep as trials with known outcomes.

They are read once, when the search begins, and kept in its record: a search that continues does not depend on the
other directory. A run counts where this search would train the same: all keys but the searched ones and those that
repeat a trial have the values that they have here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mlpexp import data
from mlpexp.analysis import run_files
from mlpexp.config.compose import Composer
from mlpexp.config.overrides import Override, by_key, parse, spell
from mlpexp.config.schema import field_types
from mlpexp.nn.metric_columns import is_column
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import say
from mlpexp.search.search_record import Known
from mlpexp.search.search_space import Space
from mlpexp.store import sweep_manifest
from mlpexp.store.results_table import HEAD, TAIL, Record, load_results
from mlpexp.store.run_directory import FINITE
from mlpexp.store.sweep_manifest import DIGEST, REPEATED, spelled_out
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.grid import specs

# a run has the same curve with any of these: a run that halving has not stopped, too
SAME_CURVE = ("metrics", "halving.", "stack.")
PATHS = ("data.path", "data.val_path", "data.test_path")  # their content is compared
OUTSIDE = "outside of the space"
MAX_NAMED = 3  # keys or reasons in a sentence

Values = dict[str, Any]


def read(directory: str | None, space: Space, names: Sequence[str], composer: Composer) -> list[Known]:
    """The configurations of a sweep that this search could train, each with the means over its runs; says how many.

    Args:
        directory: of the sweep; None: nothing is known.
        names: of the objectives.

    Raises:
        UserError: there is no such sweep, it was about something else, or none of its runs helps.
    """
    if directory is None:
        return []
    rows = load_results(directory)
    sweep = Path(directory) if Path(directory).is_dir() else None
    manifest = sweep_manifest.read(sweep) if sweep else None
    if manifest is not None and DIGEST in manifest.varied:
        raise UserError(
            f"hydra.sweeper.warm_start={directory}: {DIGEST} has several values there; such values cannot be compared"
        )
    if rows and "status" not in rows[0]:
        raise UserError(
            f"hydra.sweeper.warm_start={directory} holds a table without status: it is not a sweep of mlpexp"
        )
    if rows and (missing := [name for name in names if name not in rows[0]]):
        raise UserError(
            f"hydra.sweeper.warm_start={directory}: its results have no {missing[0]}; choose another objective, or "
            "leave warm_start out"
        )
    constants = {} if manifest is None else spelled_out(manifest)
    differences = _Differences(space, constants, composer)
    values: dict[tuple[tuple[str, Any], ...], list[list[float]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for row in rows:
        if row["status"] not in FINITE or not all(_is_number(row[name]) for name in names):
            left_out["without a final value"] += 1
            continue
        overrides = _overrides(sweep, row)
        given = constants | {override.key: override.value for override in overrides}
        params = _params(given, space)
        if params is None:
            params = _params(differences.implied(overrides) | given, space)
        if params is None:
            left_out[OUTSIDE] += 1
        elif reason := differences.reason(params, overrides):
            left_out[reason] += 1
        else:
            values[tuple(params.items())].append([float(row[name]) for name in names])
    reasons = _listed(left_out)
    if not values:
        raise UserError(
            f"hydra.sweeper.warm_start={directory}: none of its {len(rows):,} runs counts"
            f"{f' ({reasons})' if reasons else ''}; the searched keys must have values there that are possible here, "
            "and all other keys those that they have here"
        )
    known = [
        Known(params=dict(params), values=[math.fsum(column) / len(runs) for column in zip(*runs, strict=True)])
        for params, runs in values.items()
    ]
    used = sum(map(len, values.values()))
    counted = "1 configuration is" if len(known) == 1 else f"{len(known):,} configurations are"
    say(f"{counted} known from {directory} ({used:,} of {len(rows):,} runs{f'; {reasons}' if reasons else ''})")
    return known


class _Differences:
    """In what a run of the other sweep differs from one of this search with the same values of the searched keys.

    Args:
        constants: keys that all runs of the other sweep share.
    """

    def __init__(self, space: Space, constants: Mapping[str, Any], composer: Composer) -> None:
        self._space, self._constants, self._composer = space, _without_empty(constants), composer
        self._free = {*REPEATED, *(key.lstrip("+") for key in space.distributions)}
        self._reasons: dict[tuple[object, ...], str] = {}
        self._implied: dict[tuple[str, ...], Values] = {}

    def implied(self, overrides: Sequence[Override]) -> Values:
        """The keys that a run of the other sweep has by its group choices, such as a learning rate by the optimizer."""
        texts = tuple(override.text for override in overrides)
        if texts not in self._implied:
            try:
                keys = self._keys(texts)
            except UserError:  # it cannot be trained here
                keys = {}
            groups = {override.key for override in overrides if "." not in override.key}
            self._implied[texts] = {key: value for key, value in keys.items() if key.partition(".")[0] in groups}
        return self._implied[texts]

    def reason(self, params: Values, overrides: Sequence[Override]) -> str:
        """A phrase such as `with trainer.max_epochs=1, not 3`; empty where there is no difference.

        Args:
            overrides: of a run of the other sweep.
        """
        others = tuple(one.text for one in overrides if one.key not in self._free and one.key not in PATHS)
        key = (*params.items(), others)
        if key not in self._reasons:
            self._reasons[key] = self._compared(params, others)
        return self._reasons[key]

    def _compared(self, params: Values, others: Sequence[str]) -> str:
        here = self._space.runs(params)[0]
        given = by_key(others)
        kept = [text for text in here if parse(text).key not in given]
        try:
            expected, there = self._keys(here), self._keys((*kept, *others))
        except UserError as error:
            return f"that cannot be trained here ({str(error).splitlines()[0]})"
        there |= self._constants
        differing = [
            key
            for key in sorted({*expected, *there}, key=lambda key: (key == DIGEST, key))
            if key not in self._free and not key.startswith(SAME_CURVE) and there.get(key) != expected.get(key)
        ]
        if differing == [DIGEST]:
            return "of data whose bytes differ"
        named = [f"{key}={spell(there.get(key))}, not {spell(expected.get(key))}" for key in differing if key != DIGEST]
        return f"with {', '.join(named[:MAX_NAMED])}" if named else ""

    def _keys(self, overrides: Sequence[str]) -> Values:
        """All keys of a configuration that determine a run's numbers, and the digest of its data.

        Raises:
            UserError: there is no such configuration.
        """
        cfg = check(self._composer, specs([overrides]))[0].config
        return _without_empty(spelled_out(sweep_manifest.study([(cfg, data.digest(cfg.data))])))


def _without_empty(keys: Mapping[str, Any]) -> Values:
    """The keys but for groups that hold none, which have none in place of the value."""
    return {key: value for key, value in keys.items() if value != {}}


def _listed(left_out: Counter[str]) -> str:
    """The most frequent reasons, each with its number of runs."""
    shown = left_out.most_common(MAX_NAMED)
    rest = left_out.total() - sum(count for _, count in shown)
    texts = [f"{count:,} {reason}" for reason, count in shown]
    return "; ".join([*texts, f"{rest:,} for other reasons"] if rest else texts)


def _overrides(sweep: Path | None, row: Record) -> list[Override]:
    """Those of a run, as it has recorded them; of a table alone those of the swept keys.

    Args:
        sweep: its directory; None for a table alone.
    """
    texts = run_files.overrides(sweep, row["name"]) if sweep else None
    if texts is None:
        keys = [name for name in row if name not in (*HEAD, *TAIL) and not is_column(name) and row[name] is not None]
        texts = [f"{_signed(key)}={_text(row[key])}" for key in keys]
    return list(by_key(texts).values())


def _signed(key: str) -> str:
    """A key as it can be typed whether the schema has it or not; that of a group as it is."""
    return key if key in field_types() or "." not in key else f"++{key}"


def _text(value: Any) -> str:
    """The value of a cell as override text: a list is one in the table, too."""
    return value if isinstance(value, str) and value[:1] in ("[", "{") else spell(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _params(row: Mapping[str, Any], space: Space) -> Values | None:
    """The searched keys of a run as Optuna's values; None where one is missing or outside of the space."""
    params: Values = {}
    for key, distribution in space.distributions.items():
        if not space.is_active(key, params):
            continue
        values_in_space = (_inside(value, distribution) for value in _values_of(key.lstrip("+"), row))
        if (value_in_space := next((value for value in values_in_space if value is not None), None)) is None:
            return None
        params[key] = value_in_space
    return params


def _values_of(key: str, row: Mapping[str, Any]) -> Iterator[Any]:
    """The value of a key in the forms that it may have: a group by its file or its name, equal widths as one."""
    for name in (key, f"{key}.name", key.removesuffix(".name")):
        if (value := row.get(name)) is not None:
            yield value
            if key == "model.width" and isinstance(value, list) and len(set(value)) == 1:
                yield value[0]


def _inside(value: Any, distribution: BaseDistribution) -> Any:
    """The value as the distribution has it; None where it has not."""
    if isinstance(distribution, CategoricalDistribution):
        texts = {str(value), spell(value)}
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
