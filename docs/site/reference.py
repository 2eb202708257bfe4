"""The reference pages of the site: keys from the schema, entries from the registries, commands from the scripts.

Nothing here is kept by hand: a new key, registry entry, script or public function appears by itself.
"""

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mlpexp
from mlpexp import extend
from mlpexp.config import schema
from mlpexp.config.overrides import spell
from mlpexp.runtime import user_code
from mlpexp.runtime.registry import Registry

ROOT = Path(__file__).parents[2]
SIMPLE = (str, bool, int, float, tuple, type(None))


def pages() -> dict[str, str]:
    """The Markdown of every page, by its path in the site."""
    return {
        "reference/keys.md": keys_page(),
        "reference/entries.md": entries_page(),
        "reference/commands.md": commands_page(),
        "reference/python.md": python_page(),
    }


def keys_page() -> str:
    """Every key that can be typed, by group, with its default, meaning and choices."""
    choices = schema.choices()
    groups: dict[str, list[list[str]]] = {}
    for key, default, text in schema.keys():
        if key in schema.NOT_TYPED:
            continue
        group = key.partition(".")[0] if "." in key else ""
        unnamed = [value for value in choices.get(key, ()) if value not in text]
        listed = " One of " + ", ".join(f"`{value}`" for value in choices[key]) + "." if unnamed else ""
        row = [f"`{key}`", f"`{spell(default)}`", _sentence(text) + ("" if isinstance(default, bool) else listed)]
        groups.setdefault(group, []).append(row)
    parts = [
        "# Keys\n\nGenerated from the schema. On the command line `key=value`, from Python as "
        'keyword or `{"key": value}`; `python scripts/train.py --help` prints the same list.\n'
    ]
    for group, rows in groups.items():
        parts.append(
            f"## {f'`{group}`' if group else 'Without a group'}\n\n{_table(['key', 'default', 'meaning'], rows)}"
        )
    return "\n".join(parts)


def entries_page() -> str:
    """Every entry of every registry, with what the entry says about itself."""
    parts = [
        "# Registry entries\n\nGenerated from the registries. Your own entries are added by "
        "[plugins](../docs/extending.md).\n"
    ]
    for registry in registries():
        rows, columns = _entries(registry)
        parts.append(f"## {registry.kind}\n\n{_table(['name', *columns], rows)}")
        if legend := _legend(registry, columns):
            parts.append(legend)
    return "\n".join(parts)


def commands_page() -> str:
    """What each command is for, and its `--help`."""
    parts = ["# Commands\n\nGenerated from `scripts/`. An installed wheel has them as `mlpexp NAME`.\n"]
    for script in sorted((ROOT / "scripts").glob("*.py")):
        if script.stem == "require_environment":
            continue
        ended = subprocess.run(
            [sys.executable, str(script), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
        )
        parts.append(f"## `scripts/{script.name}`\n\n```text\n{ended.stdout.strip()}\n```\n")
    return "\n".join(parts)


def python_page() -> str:
    """The public functions and classes, documented by mkdocstrings."""
    places = [_place(module, name) for module in (mlpexp, extend) for name in module.__all__]
    places += ["mlpexp.api.sweep_results.SweepResults", "mlpexp.api.run_results.RunResults"]
    options = "    options:\n      heading_level: 2\n      show_root_heading: true\n"
    head = "# Python\n\nGenerated from the docstrings. Introduction: [From Python](../docs/python.md).\n"
    return "\n".join([head, *(f"::: {place}\n{options}" for place in places)])


def registries() -> Iterator[Registry]:
    """Every registry with entries, in the order of their kinds."""
    for module in pkgutil.walk_packages(mlpexp.__path__, "mlpexp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    yield from sorted((registry for registry in user_code.REGISTRIES if registry), key=lambda registry: registry.kind)


def _place(module: ModuleType, name: str) -> str:
    thing = getattr(module, name)
    if isinstance(thing, ModuleType):  # `mlpexp.sweep` is package and function
        return "mlpexp.api.sweep"
    return f"{thing.__module__}.{thing.__qualname__}"


def _entries(registry: Registry) -> tuple[list[list[str]], list[str]]:
    """Rows of names and values, and the names of the latter: what differs between entries and can be written."""
    described = {name: _values(entry) for name, entry in registry.items()}
    names = list(dict.fromkeys(field for values in described.values() for field in values))
    columns = [field for field in names if len({values.get(field, "") for values in described.values()}) > 1]
    return [[f"`{name}`", *(values.get(c, "") for c in columns)] for name, values in described.items()], columns


def _values(entry: Any) -> dict[str, str]:
    if not is_dataclass(entry) or isinstance(entry, type):
        return {"meaning": _first_line(entry)}
    found = {}
    for field in fields(entry):
        value = getattr(entry, field.name)
        if isinstance(value, SIMPLE) and not (value is None and field.default is MISSING):
            found[field.name] = _spelled(value)
        elif isinstance(value, type):
            found[field.name] = f"`{value.__name__}`"
    return found


def _spelled(value: Any) -> str:
    match value:
        case None | () | "":
            return ""
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(f"`{one}`" for one in value)
        case float():
            return f"{value:.5g}"
        case _:
            return str(value)


def _first_line(entry: Any) -> str:
    text = inspect.getdoc(entry) if isinstance(entry, type) or inspect.isfunction(entry) else None
    return text.splitlines()[0] if text else ""


def _legend(registry: Registry, columns: list[str]) -> str:
    """What the columns mean, from the `Attributes:` of the entries' class."""
    kind = type(next(iter(registry.values())))
    meanings = _attributes(inspect.getdoc(kind) or "") if is_dataclass(kind) else {}
    return "".join(f"- `{column}`: {meanings[column]}\n" for column in columns if column in meanings)


def _attributes(doc: str) -> Mapping[str, str]:
    section = re.search(r"^Attributes:\n((?:[ ]{4}.*\n?|\n)+)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE):
        for name in names.split(", "):
            found[name] = _escaped(" ".join(text.split()))
    return found


def _sentence(text: str) -> str:
    return _escaped(text).rstrip(".") + "." if text else ""


def _escaped(text: str) -> str:
    """Text in which only `code` is markup."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |\n"

    return line(header) + line(["---"] * len(header)) + "".join(map(line, rows))
