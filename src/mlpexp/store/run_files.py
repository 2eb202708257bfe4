"""What the report reads in run directories: the command, the curves, the layers, where the numbers come from.

A run directory is data: what is missing or damaged in one is left out and counted, never fatal.
"""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.store.file_names import CONFIG, LAYERS, METRICS, OVERRIDES, RESULT
from mlpexp.store.run_directory import is_relative
from mlpexp.store.run_store import RunStore
from mlpexp.tracking.layer_columns import COLUMNS, START

MAX_RESULTS = 2000  # whose result.json are read for versions and data; beyond, evenly many of them


def place(directory: Path, name: str) -> Path | None:
    """Where a run's files are; None for a name that leads out of the sweep's directory."""
    return directory / name if is_relative(name) else None


def command(directory: Path, name: str, swept: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """What a person types to train this run again, and whether it is known exactly.

    Without the run's own overrides it is made from the swept keys alone.
    """
    words = overrides(directory, name)
    exact = words is not None
    if words is None:
        words = [f"{key}={value}" for key, value in swept if value != "default"]
    words = [word for word in words if not word.startswith("report=")]  # of the sweep, not of the run
    return shlex.join(["python", "scripts/train.py", *words]), exact


def overrides(directory: Path, name: str) -> list[str] | None:
    text = _read(directory, name, OVERRIDES)
    if text is None:
        return None
    items = [line[2:] for line in text.splitlines() if line.startswith("- ")]
    # nearly all are plain words; whatever is quoted, folded or odd goes to a real parser
    if len(items) == text.count("\n") and not any(item[:1] in "'\"[{&*!|>%@`" or " #" in item for item in items):
        return items
    try:
        found = parse_yaml(text, directory / name / OVERRIDES)
    except DamagedFile:
        return None
    return [str(item) for item in found] if isinstance(found, list) else None


def configuration(directory: Path, name: str) -> dict[str, Any]:
    """What the run says of its own configuration; empty where it says nothing that can be read."""
    try:
        found = parse_yaml(_read(directory, name, CONFIG) or "", directory / name / CONFIG)
    except DamagedFile:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Learning curves of one configuration's runs."""

    values: dict[str, np.ndarray]
    """metric -> (runs, epochs); NaN after a run's last epoch"""

    @property
    def runs(self) -> int:
        return max((len(rows) for rows in self.values.values()), default=0)

    @property
    def epochs(self) -> int:
        return max((rows.shape[1] for rows in self.values.values()), default=0)


def curves(directory: Path, names: Sequence[str]) -> Curves:
    """Every readable `metrics.csv` of these runs."""
    tables = [table for name in names if (table := _table(directory, name, METRICS)) is not None]
    metrics = [metric for metric in (tables[0] if tables else {}) if metric != "epoch"]
    longest = max((len(next(iter(table.values()))) for table in tables), default=0)
    found = {}
    for metric in metrics:
        rows = np.full((len(tables), longest), np.nan)
        for row, table in zip(rows, tables, strict=True):
            column = table.get(metric, np.empty(0))
            row[: len(column)] = column
        found[metric] = rows
    return Curves(values=found)


def layers(directory: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What happened inside, (runs, epochs, layers) for each column, of the runs that recorded it.

    The state before the first step is left out.
    """
    tables = [table for name in names if (table := _table(directory, name, LAYERS)) is not None]
    tables = [t for t in tables if {"epoch", "layer"} <= t.keys()]
    tables = [{name: column[t["epoch"] >= 0] for name, column in t.items()} for t in tables]
    tables = [t for t in tables if len(t["epoch"])]
    if not tables:
        return {}
    first = int(min(t["layer"].min() for t in tables))  # layers may be counted from 0 or 1
    shape = (
        len(tables),
        int(max(t["epoch"].max() for t in tables)) + 1,
        int(max(t["layer"].max() for t in tables)) - first + 1,
    )
    found = {}
    for name in COLUMNS:
        cube = np.full(shape, np.nan)
        for number, table in enumerate(tables):
            if name in table:
                cube[number, table["epoch"].astype(int), table["layer"].astype(int) - first] = table[name]
        if np.isfinite(cube).any():
            found[name] = cube
    return found


def inside(directory: Path, name: str) -> dict[str, np.ndarray]:
    """What happened inside one run, (epochs + 1, layers) for each column; the first row is before the first step."""
    table = _table(directory, name, LAYERS)
    if table is None or not {"epoch", "layer"} <= table.keys():
        return {}
    depth = int(table["layer"].max(initial=-1)) + 1
    if not depth or len(table["layer"]) % depth or table["epoch"][0] != START:
        return {}
    return {column: table[column].reshape(-1, depth) for column in COLUMNS if column in table}


@dataclass(kw_only=True)
class Provenance:
    """Where the numbers come from: each distinct value with the number of runs that have it."""

    read: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    data: Counter[str] = field(default_factory=Counter)
    monitors: Counter[str] = field(default_factory=Counter)
    damaged: int = 0


def provenance(directory: Path, names: Sequence[str]) -> Provenance:
    """From the runs' `result.json`."""
    found = Provenance()
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_RESULTS)).astype(int))
    for number in chosen:
        text = _read(directory, names[number], RESULT)
        if text is None:
            continue
        try:
            plain: Any = json.loads(text)
            versions = ", ".join(f"{name} {version}" for name, version in plain["versions"].items())
            entry = (versions, str(plain["git_commit"]), str(plain["data_digest"]), str(plain["monitor"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            found.damaged += 1
            continue
        found.read += 1
        for counter, value in zip((found.versions, found.commits, found.data, found.monitors), entry, strict=True):
            counter[value] += 1
    return found


def _read(directory: Path, name: str, file: str) -> str | None:
    try:
        return _store(directory).read(name, file)
    except NotRegularFile:
        return None


@lru_cache(maxsize=8)
def _store(directory: Path) -> RunStore:
    return RunStore(directory)


def _table(directory: Path, name: str, file: str) -> dict[str, np.ndarray] | None:
    """The columns of a small table of numbers; an empty cell is NaN."""
    text = _read(directory, name, file)
    if not text:
        return None
    header, *lines = text.splitlines()
    names = header.split(",")
    try:
        rows = [[float(cell) if cell else np.nan for cell in line.split(",")] for line in lines]
        table = np.array(rows, dtype=float).reshape(len(rows), len(names))
    except ValueError:
        return None
    return dict(zip(names, table.T, strict=True))
