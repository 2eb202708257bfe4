"""Extensions of Hydra's grammar, which are rewritten into it before Hydra reads the command line.

`zip(a=[1,2],b=[3,4])` varies keys together, several `grid(...)` make one sweep, `skip=CONDITION` leaves runs out,
`limit=N` trains a random part: these become keys of the grid sweeper. `key=logrange(0.001,1,7)` becomes the list of its
values. The same texts stand in YAML below `hydra.sweeper`, where they reach `groups`, `grids` and `values` as they are.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.errors import HydraException

from mlpexp.config import overrides
from mlpexp.config.field_types import builtin_types
from mlpexp.config.log_range import with_log_range
from mlpexp.config.overrides import Override, spell
from mlpexp.config.schema import field_types
from mlpexp.runtime.errors import ConfigError, UserError

SWEEPER = "hydra.sweeper."
SKIP_EXAMPLE = "'skip=model.depth>3 and model.width>128'"
EXAMPLES = {
    "zip": "'zip(model.width=[32,64],optimizer.lr=[0.1,0.05])'",
    "grid": "'grid(model.depth=0,optimizer.lr=[0.1,1])' 'grid(model.depth=[1,2],model.width=[32,64])'",
}
_KEY = re.compile(r"\s*\+{0,2}[A-Za-z_][\w./@-]*\s*=(?!=)", re.ASCII)
_GROUP = re.compile(r"\s*\+{0,2}(zip|grid)\s*=?\s*(?=\()", re.IGNORECASE)
_CHOOSING = tuple(f"{SWEEPER}{name}" for name in ("zip", "skip", "limit"))
_KEYS = {"zip": "zip", "grid": "params"}  # of the sweeper, for what is typed
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def for_hydra(arguments: Sequence[str], *, is_sweep: bool) -> list[str]:
    """The arguments as Hydra's grammar has them.

    Raises:
        UserError: one of them cannot be read, or belongs to a sweep and this is none.
    """
    rewritten: list[str] = []
    typed_groups: dict[str, list[str]] = {"zip": [], "grid": []}
    skips: list[str] = []
    for typed in arguments:
        match = _GROUP.match(typed)
        text = f"{match[1].lower()}{typed[match.end() :]}" if match else typed
        override = overrides.parse(text)
        name, value = match[1].lower() if match else override.key, override.value_text
        name = name.removeprefix(SWEEPER) if name in _CHOOSING else name
        if name == f"{SWEEPER}params" and (value or "").startswith("["):
            name = "grid"
        if text.startswith("-") or override.kind == "delete" or (value is None and name not in typed_groups):
            rewritten.append(text)
            continue
        if name in ("zip", "grid", "skip", "limit") and not is_sweep:
            raise ConfigError([f"{text} chooses the runs of a sweep; add -m, or leave it out"])
        if name in ("zip", "grid", "skip") and value == "null":  # without that of an experiment
            rewritten.append(f"{SWEEPER}{_KEYS.get(name, name)}=null")
        elif name in typed_groups:
            read = groups if name == "zip" else grids
            listed = [] if match else read(_read(text, name))
            texts = [text] if match else [f"{name}({','.join(map(bracketed, group))})" for group in listed]
            for one_group in texts:
                zipped(one_group)  # an error names what was typed
            typed_groups[name] += texts
        elif name == "skip":
            skips += conditions(_unquoted(value or ""))
        elif name == "limit":
            rewritten.append(f"{SWEEPER}limit={value}")
        else:
            rewritten.append(with_log_range(text))
    # one text: OmegaConf lets it replace a mapping of an experiment, but no list
    rewritten += [f"{SWEEPER}{_KEYS[name]}={spell(','.join(texts))}" for name, texts in typed_groups.items() if texts]
    return [*rewritten, f"{SWEEPER}skip={spell(skips)}"] if skips else rewritten


def is_group(text: str) -> bool:
    """Whether it is `zip(...)` or `grid(...)`."""
    return _GROUP.match(text) is not None


def groups(zips: Any) -> list[list[str]]:
    """The overrides of each group of keys that vary together: `[["model.width=32,64", "optimizer.lr=0.1,0.05"]]`.

    Args:
        zips: a mapping of keys to lists, a list of such mappings, or a text of one or several `zip(...)`. Also a list
            of points, each a mapping of the same keys to one value.

    Raises:
        UserError: it is something else.
    """
    if isinstance(zips, str):
        return [zipped(text) for text in (_split(zips) if zips.count("zip(") > 1 else [zips])]
    listed = zips if isinstance(zips, list) else [] if zips is None else [zips]
    columns = points(listed)
    return [zipped(group) for group in ([columns] if columns else listed)]


def grids(params: Any) -> list[list[str]]:
    """The overrides of each grid of `hydra.sweeper.params`; without any, one grid of no keys.

    Args:
        params: a mapping of keys to their values, a list of such mappings, or a text of one or several `grid(...)`.

    Raises:
        UserError: it is something else.
    """
    if isinstance(params, str) and all(map(_GROUP.match, texts := _split(params))):
        return [zipped(text) for text in texts]
    if params is not None and not isinstance(params, Mapping | list):
        raise UserError(f"{SWEEPER}params={params} is no mapping; type its keys as overrides, e.g. seed=1,2")
    listed = params if isinstance(params, list) else [params or {}]
    if wrong := [grid for grid in listed or [[]] if not isinstance(grid, Mapping)]:
        raise UserError(
            f"{spell(wrong[0])} in {SWEEPER}params is no mapping of keys to values; write several grids as "
            f"[{{model.depth: 0}}, {{model.depth: [1, 2], model.width: [32, 64]}}], or type {EXAMPLES['grid']}"
        )
    if misplaced := [name for grid in listed for name in grid if name in ("zip", "skip", "limit")]:
        raise UserError(f"{misplaced[0]} stands beside {SWEEPER}params, not in it; move it one level up")
    return [zipped(grid) for grid in listed]


def points(listed: list[Any]) -> dict[str, list[Any]] | None:
    """The values of each key, where the same keys have one value in each of several mappings."""
    if len(listed) < 2 or not all(isinstance(point, Mapping) and point for point in listed):
        return None
    flat = [leaves(point) for point in listed]
    if any(point.keys() != flat[0].keys() for point in flat):
        return None
    if any(isinstance(value, list) or _is_sweep(value) for point in flat for value in point.values()):
        return None
    return {key: [point[key] for point in flat] for key in flat[0]}


def _is_sweep(value: Any) -> bool:
    return isinstance(value, str) and ("," in value or value.endswith(")"))


def leaves(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted keys; a mapping stays whole where it is a key's value.

    Raises:
        UserError: a name is no text.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if not _KEY.fullmatch(f"{key}="):
            raise UserError(
                f"{key} in {spell(dict(settings))} is no key; in a file, several values in {{…}} are a list, e.g. "
                "{model.width: [32, 64]}"
            )
        if isinstance(value, Mapping) and value and not _holds_a_mapping(key):
            flat |= leaves(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _holds_a_mapping(key: str) -> bool:
    types = field_types()
    return (key := key.lstrip("+")) in types and dict in builtin_types(types[key])


def conditions(skip: Any) -> list[str]:
    """The conditions of `skip`: a text, or a list of texts.

    Raises:
        UserError: it is something else.
    """
    if skip is None:
        return []
    texts = skip if isinstance(skip, list | tuple) else [skip]
    texts = [str(text).lower() if isinstance(text, bool) else text for text in texts]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UserError(f"skip={wrong[0]} is no condition; write a text, e.g. 'model.depth > 3 and model.width > 128'")
    return texts


def zipped(group: Any) -> list[str]:
    """The overrides of one group, each with its values; see `groups`.

    Raises:
        UserError: it is neither a mapping nor such a text.
    """
    if isinstance(group, Mapping):
        return [f"{key}={values(key, value)}" for key, value in leaves(group).items()]
    text = str(group).strip()
    example = EXAMPLES["grid" if text.startswith("grid") else "zip"]
    if text == "grid()":  # the configuration itself
        return []
    text = text.removeprefix("zip").removeprefix("grid")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    pieces: list[str] = []
    for part in _split(text):
        if _KEY.match(part):
            pieces.append(part.strip())
        elif pieces:  # width=32,64 has its second value here
            pieces[-1] += f",{part}"
        else:
            raise UserError(f"{group} cannot be read; write e.g. {example}")
    if not pieces or text.count("(") != text.count(")"):
        raise UserError(f"{group} cannot be read; write e.g. {example}")
    pairs = [(override.key, _without_brackets((override.value_text or "").strip())) for override in map(_parse, pieces)]
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"{twice} is given twice in {group}; leave out one of them")
    if empty := next((part for part, (_, value) in zip(pieces, pairs, strict=True) if not value), None):
        raise UserError(f"{empty} names no value at all, so that the sweep would have no runs")
    signs = [part[: part.index(key)] for part, (key, _) in zip(pieces, pairs, strict=True)]
    return [with_log_range(f"{sign}{key}={text}") for sign, (key, text) in zip(signs, pairs, strict=True)]


def values(key: str, value: Any) -> str:
    """The values of a key in YAML, in the syntax of the command line: a list of values, or such a text.

    Raises:
        UserError: the list is empty.
    """
    if isinstance(value, str):
        return overrides.parse(with_log_range(f"{key}={value}")).value_text or ""
    if isinstance(value, Sequence):
        if not value:
            raise UserError(f"{key}: [] names no value at all, so that the sweep would have no runs")
        return ",".join(map(spell, value))
    return spell(value)


def _read(text: str, name: str) -> Any:
    """The value of `zip={model.width:[32,64]}`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if (value := overrides.parse(text).value) not in (None, ""):
            return value
    except (ValueError, HydraException):
        pass
    raise UserError(f"{text} cannot be read; write e.g. {EXAMPLES[name]}")


def _unquoted(text: str) -> Any:
    """The conditions in `'model.depth>3'` and `["model.depth>3","seed==1"]`; any other text unchanged."""
    if text[:1] in ("'", '"', "["):
        with suppress(ValueError, HydraException):
            read = overrides.parse(f"skip={text}").value
            return read if isinstance(read, str) or all(isinstance(item, str) for item in read) else text
    return text


def bracketed(text: str) -> str:
    """`key=1,2` as `key=[1,2]`."""
    values = overrides.parse(text).value_text or ""
    return f"{text.removesuffix(values)}[{values}]"


def _parse(part: str) -> Override:
    override = overrides.parse(part)
    stripped = override.key.strip()
    return override if stripped == override.key else overrides.parse(f"{stripped}={override.value_text}")


def _without_brackets(text: str) -> str:
    """The content of a list; any other text unchanged."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    return text if len(_split(text)) > 1 else text[1:-1]


def _split(text: str) -> list[str]:
    """At the commas that stand in no brackets and no quotes."""
    pieces, closing, quote, escaped = [""], list[str](), "", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
        elif letter in "'\"" and not escaped:
            quote = letter
        elif letter in _PAIRS:
            closing.append(_PAIRS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            pieces.append("")
            continue
        escaped = letter == "\\" and not escaped
        pieces[-1] += letter
    return pieces
