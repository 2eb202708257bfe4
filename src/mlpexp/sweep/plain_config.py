"""Editing a run's configuration as nested builtins, the way Hydra and OmegaConf would.

Whatever these functions do not know raises `Unusual`: Hydra has to compose that run.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from mlpexp.config.overrides import Override

Plain = dict[str, Any]

KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# ${key}; ${mlpexp.function:${key}}, whose result depends on its argument alone; ${oc.env:NAME}
REFERENCE = re.compile(
    rf"\$\{{(?:(?P<function>mlpexp\.\w+):\$\{{(?P<argument>{KEY.pattern})\}}"
    rf"|(?P<key>{KEY.pattern})|oc\.env:(?P<env>\w+(?:,[\w./-]+)?))\}}",
    re.ASCII,
)
_SCALARS = (bool, int, float, type(None))


class Unusual(Exception):
    """Hydra has to compose this run."""


def apply(override: Override, plain: Plain, copied: set[tuple[str, ...]]) -> None:
    """Set, add or delete the value of an override, as Hydra does."""
    *above, last = path = tuple(override.key.split("."))
    parent: Any = plain
    for key in above:
        parent = parent.get(key, {}) if isinstance(parent, dict) else None
    if not isinstance(parent, dict):
        raise Unusual
    if override.value_text is None and override.kind != "delete":
        raise Unusual
    there = last in parent
    before, value = parent.get(last), override.value
    if isinstance(before, dict) or (isinstance(before, str) and override.kind != "set" and "${" in before):
        raise Unusual
    if override.kind == "delete":
        if before is None or value not in (None, before) or type(value) not in (type(None), type(before)):
            raise Unusual
        put(plain, path, None, copied, delete=True)
        return
    if (override.kind == "set" and not there) or (override.kind == "add" and before is not None):
        raise Unusual
    if not _is_value(value) or (there and isinstance(value, dict)):
        raise Unusual
    put(plain, path, value, copied)


def put(plain: Plain, path: Sequence[str], value: Any, copied: set[tuple[str, ...]], *, delete: bool = False) -> None:
    """Set or delete one value; mappings on the way are copied, once each, because other runs share them."""
    *above, last = path
    node = plain
    for depth, key in enumerate(above, 1):
        if (place := tuple(above[:depth])) not in copied:
            node[key] = dict(node.get(key, {}))
            copied.add(place)
        node = node[key]
    if delete:
        del node[last]
    else:
        node[last] = value


def references(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are interpolations."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*path, key))
    elif isinstance(value, str):
        if "${" in value:
            match_reference(value)
            yield path
    elif OmegaConf.is_config(value) or (isinstance(value, list) and "${" in str(value)):
        raise Unusual


def match_reference(text: str) -> re.Match[str]:
    if match := REFERENCE.fullmatch(text):
        return match
    raise Unusual


def is_literal(value: Any) -> bool:
    """Whether OmegaConf takes it as it is."""
    return isinstance(value, _SCALARS) or (isinstance(value, str) and "${" not in value and value != "???")


def _is_value(value: Any) -> bool:
    """Whether it can be set without OmegaConf: literals, lists and mappings of them, one reference."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and key.isidentifier() and _is_value(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_literal, value))
    return is_literal(value) or (isinstance(value, str) and REFERENCE.fullmatch(value) is not None)


def value_at(plain: Plain, path: Sequence[str]) -> Any:
    node: Any = plain
    for key in path:
        if not isinstance(node, dict) or key not in node:
            raise Unusual
        node = node[key]
    return node
