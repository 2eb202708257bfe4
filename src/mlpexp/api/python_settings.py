"""Settings as Python values, written as the overrides that mean the same on the command line.

In a setting, a list is one value (`{"model.width": [64, 32]}` is a network of two hidden layers). In a grid, each key
lists its values: a list, tuple, range or array of them. A list of lists sweeps over lists.
"""

import numbers
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from types import ModuleType
from typing import Any

from mlpexp.config import overrides, sweep_syntax
from mlpexp.config.field_types import builtin_types
from mlpexp.config.hydra_messages import GROUPS
from mlpexp.config.overrides import spell
from mlpexp.config.schema import choices, field_types
from mlpexp.runtime.errors import ConfigError

Settings = Mapping[str, Any] | str | Sequence[str]
Grid = Settings | Sequence[Mapping[str, Any]]
_OPEN_GROUPS = ("trainer", "hydra.launcher.slurm")  # beside those keys of the schema that hold a mapping


def setting_overrides(*settings: Settings) -> list[str]:
    """The overrides of settings; of a key that is given twice, the later one counts.

    Args:
        settings: mappings of keys to values, nested as one likes (`{"model": {"depth": 2}}`, `{"model.depth": 2}`), or
            overrides as they are typed on the command line (`"model.depth=2"`).

    Raises:
        ConfigError: a value cannot be written as a setting.
    """
    return _overrides(settings, _single)


def grid_overrides(grid: Grid) -> list[str]:
    """The overrides of a grid, each of which may list several values, as for `setting_overrides`; or of several grids.

    Raises:
        ConfigError: a key has no value at all, or one that cannot be written.
    """
    if isinstance(grid, list | tuple) and any(isinstance(item, Mapping) for item in grid):
        if wrong := [item for item in grid if not isinstance(item, Mapping)]:
            raise ConfigError([f"several grids are a list of mappings, and {wrong[0]!r} in it is none"])
        return [_group("grid", mapping) for mapping in grid]
    settings: Any = grid
    return _overrides([settings], _swept)


def _group(name: str, mapping: Settings) -> str:
    """`grid(...)` or `zip(...)` with the lists of values of a mapping."""
    return f"{name}({','.join(map(sweep_syntax.bracketed, _overrides([mapping], _swept)))})"


def choice_overrides(zipped: Any, skip: str | Sequence[str] | None, limit: int | None) -> list[str]:
    """`zip(...)`, `skip=...` and `limit=...` as on the command line.

    Args:
        zipped: a mapping of keys to lists, a list of such mappings, a list of points, or `zip(...)` as it is typed.

    Raises:
        ConfigError: a key that varies together with others has no value, or one that cannot be written.
        UserError: a condition is no text.
    """
    if zipped is not None and not isinstance(zipped, Mapping | str | list | tuple):
        raise ConfigError([f"zip: {_ZIP_FORMS}, not {type(zipped).__name__}"])
    groups: list[Any] = [zipped] if isinstance(zipped, Mapping | str) else list(zipped or [])
    if wrong := [group for group in groups if not isinstance(group, Mapping | str)]:
        raise ConfigError([f"zip: {_ZIP_FORMS}, not a list with {type(wrong[0]).__name__} in it"])
    if all(isinstance(group, Mapping) for group in groups):
        flat = [{key: _plain_or_same(value) for key, value in leaves(group)} for group in groups]
        groups = [columns] if (columns := sweep_syntax.points(flat)) else groups
    texts = [group if isinstance(group, str) else _group("zip", group) for group in groups if group]
    texts += [f"skip={text}" for text in sweep_syntax.conditions(skip)]
    return texts if limit is None else [*texts, f"limit={_single('limit', limit)}"]


_ZIP_FORMS = "give a mapping of keys to lists, e.g. {'model.width': [32, 64], 'optimizer.lr': [0.1, 0.05]}, or several"


def _plain_or_same(value: Any) -> Any:
    try:
        return plain_value(value)
    except TypeError:  # named when it is written
        return value


def sweep_call(command: str) -> str:
    """The Python calls, one a line, that do what commands for sweeps do: `mlpexp.sweep(["model.width=8,4", "seed=0"])`.

    Args:
        command: for a shell, with `-m`; several are joined by `&&`.
    """
    calls = []
    for is_joint, group in groupby(shlex.split(command), "&&".__eq__):
        if not is_joint:
            arguments = list(group)
            calls.append(f"mlpexp.sweep({arguments[arguments.index('-m') + 1 :]})")
    return "\n".join(calls)


def plain_value(value: Any) -> Any:
    """A Python value in plain builtins: numbers of numpy and torch, arrays, tuples, paths and modules are
    converted.

    Raises:
        TypeError: it is something else, such as a function.
    """
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, ModuleType):  # a plugin
        return value.__name__ if value.__name__ != "__main__" else str(value.__file__)
    if isinstance(value, int | float) and type(value) in (int, float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain_value(item) for item in value]
    if callable(getattr(value, "tolist", None)):  # numpy, torch, a column of pandas
        return plain_value(value.tolist())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"a value is a number, a text, None, or a list or mapping of these, not {type(value).__name__}")


def _overrides(settings: Sequence[Settings], write: Any) -> list[str]:
    texts: dict[str, str] = {}
    problems: list[str] = []
    for mapping in settings:
        if not isinstance(mapping, Mapping):
            for text in mapping if isinstance(mapping, list | tuple) else [mapping]:
                if not isinstance(text, str):
                    problems.append(
                        f"{text!r} is no setting; give a mapping, e.g. {{'model.depth': 2}}, or texts such as "
                        "'model.depth=2'"
                    )
                    continue
                key = (
                    text if sweep_syntax.is_group(text) else overrides.parse(text).key
                )  # several grids may begin alike
                texts.pop(key, None)
                texts[key] = text
            continue
        for key, value in leaves(mapping):
            try:
                text = f"{_sign(key)}{key}={write(key, value)}"
            except (TypeError, ValueError) as error:
                problems.append(f"{key}: {error}")
                continue
            texts.pop(key, None)
            texts[key] = text
    if problems:
        raise ConfigError(problems)
    return list(texts.values())


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def _single(key: str, value: Any) -> str:
    plain = plain_value(value)
    types = builtin_types(field_types()[key]) if key in field_types() else None
    is_choice = key in (*GROUPS, *choices())
    if isinstance(plain, list) and (is_choice or (types is not None and not types & {list, tuple, Any})):
        raise ValueError(
            f"{plain} is a list, and in a setting a list is one value; to train a network for each of them, "
            f"call mlpexp.sweep({{{key!r}: {plain}}})"
        )
    return spell(plain)


def _swept(key: str, value: Any) -> str:
    if isinstance(value, range):
        if not len(value):
            raise ValueError(f"{value} names no value at all; give at least one")
        return f"range({value.start},{value.stop},{value.step})" if len(value) > 1 else str(value[0])
    if isinstance(value, str) or not _is_listing(value):
        plain = plain_value(value)
        if isinstance(plain, str) and key in field_types() and str not in builtin_types(field_types()[key]):
            raise ValueError(
                f"{plain!r} is a text; a grid lists Python values, e.g. {{{key!r}: [1, 2]}} or {{{key!r}: range(5)}}"
            )
        return spell(plain)
    values = [plain_value(item) for item in value]
    if not values:
        raise ValueError("the grid names no value at all; give at least one")
    return ",".join(map(spell, values))


def _is_listing(value: Any) -> bool:
    """Whether it lists values: a list or another sequence, an array with an axis, a column of a table."""
    if isinstance(value, list | tuple | set | frozenset) or bool(getattr(value, "ndim", 0)):
        return True
    return isinstance(value, Sequence) or (hasattr(value, "__iter__") and not hasattr(value, "item"))


def _sign(key: str) -> str:
    """`++` for a key that the schema does not name, in a place where any key may be added."""
    types = field_types()
    if key in types or "/" in key:
        return ""
    parents = [key[:index] for index, letter in enumerate(key) if letter == "."]
    added = any(parent in _OPEN_GROUPS or dict in builtin_types(types.get(parent)) for parent in parents)
    return "++" if added else ""
