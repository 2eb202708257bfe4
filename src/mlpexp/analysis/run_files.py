"""What the report reads of runs: the command, the learning curves, the layers.

A run directory is data: what is missing or damaged in one is left out.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mlpexp.nn.diagnostics import LAYER_COLUMNS, START
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.runtime.shell_commands import plain
from mlpexp.store import test_hits
from mlpexp.store.file_names import CONFIG, LAYERS, METRICS, OVERRIDES, TEST_HITS
from mlpexp.store.run_directory import Result, checksum, is_relative
from mlpexp.store.run_store import RunStore

# overrides that mean nothing for a run alone
OF_THE_SWEEP = ("name=", "record=", "keep_weights=", "report=", "dry_run=")


def run_path(directory: Path, name: str) -> Path | None:
    """Where a run's files are; None for a name that leads out of the sweep's directory."""
    return directory / name if is_relative(name) else None


def command(directory: Path, name: str, swept: Sequence[tuple[str, str]]) -> tuple[str, bool]:
    """The command that trains this run again, and whether it is known exactly.

    Without the run's own overrides it is made from the swept keys alone.
    """
    arguments = overrides(directory, name)
    exact = arguments is not None
    if arguments is None:
        arguments = [f"{key}={value}" for key, value in swept if value != "default"]
    arguments = [argument for argument in arguments if not argument.startswith(OF_THE_SWEEP)]
    return f"{plain('train.py')} {shlex.join(arguments)}".rstrip(), exact


def overrides(directory: Path, name: str) -> list[str] | None:
    text = read_file(directory, name, OVERRIDES)
    if text is None:
        return None
    items = [line[2:] for line in text.splitlines() if line.startswith("- ")]
    # nearly all are plain words; whatever is quoted, folded or odd goes to a real parser
    if len(items) == text.count("\n") and not any(item[:1] in "'\"[{&*!|>%@`" or " #" in item for item in items):
        return items
    try:
        document = parse_yaml(text, directory / name / OVERRIDES)
    except DamagedFile:
        return None
    return [str(item) for item in document] if isinstance(document, list) else None


def configuration(directory: Path, name: str) -> dict[str, Any]:
    """The configuration that the run recorded; empty where it cannot be read."""
    try:
        document = parse_yaml(read_file(directory, name, CONFIG) or "", directory / name / CONFIG)
    except DamagedFile:
        return {}
    return document if isinstance(document, dict) else {}


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


def curves(directory: Path, names: Sequence[str], results: Mapping[str, Result] | None = None) -> Curves:
    """Every readable `metrics.csv` of these runs; `results` as for `read_file`."""
    tables = [table for name in names if (table := _table(directory, name, METRICS, results)) is not None]
    metrics = [metric for metric in (tables[0] if tables else {}) if metric != "epoch"]
    longest = max((len(next(iter(table.values()))) for table in tables), default=0)
    values = {}
    for metric in metrics:
        rows = np.full((len(tables), longest), np.nan)
        for row, table in zip(rows, tables, strict=True):
            column = table.get(metric, np.empty(0))
            row[: len(column)] = column
        values[metric] = rows
    return Curves(values=values)


def layers(directory: Path, names: Sequence[str], results: Mapping[str, Result] | None = None) -> dict[str, np.ndarray]:
    """The columns of `layers.csv`, (runs, epochs, layers) each, of the runs that recorded layers.

    Epochs begin with START, the state before training. `results` as for `read_file`.
    """
    tables = [table for name in names if (table := _table(directory, name, LAYERS, results)) is not None]
    tables = [t for t in tables if {"epoch", "layer"} <= t.keys() and len(t["epoch"])]
    if not tables:
        return {}
    first_layer = int(min(t["layer"].min() for t in tables))  # earlier versions counted layers from 1
    shape = (
        len(tables),
        int(max(t["epoch"].max() for t in tables)) - START + 1,
        int(max(t["layer"].max() for t in tables)) - first_layer + 1,
    )
    columns = {}
    for name in [column for column in LAYER_COLUMNS if any(column in table for table in tables)]:
        cube = np.full(shape, np.nan)
        for number, table in enumerate(tables):
            if name in table:
                cube[number, table["epoch"].astype(int) - START, table["layer"].astype(int) - first_layer] = table[name]
        columns[name] = cube
    return columns


def hits(directory: Path, names: Sequence[str], results: Mapping[str, Result] | None = None) -> np.ndarray | None:
    """Which samples each run classified right, (runs, N): 1 right, 0 wrong, NaN not tested or not recorded.

    None where no run has recorded it, or where they were measured on data of different sizes. `results` as for
    `read_file`.
    """
    texts = [read_file(directory, name, TEST_HITS, results) for name in names]
    rows = [None if text is None else test_hits.decode(text) for text in texts]
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) != 1:
        return None
    unknown = np.full(sizes.pop(), np.nan)
    return np.stack([unknown if row is None else row for row in rows])


def layers_of_run(directory: Path, name: str) -> dict[str, np.ndarray]:
    """The same of one run, (epochs + 1, layers) for each column; empty where it has recorded nothing."""
    return {column: cube[0] for column, cube in layers(directory, [name]).items()}


def read_file(directory: Path, name: str, file: str, results: Mapping[str, Result] | None = None) -> str | None:
    """The text of a file of a run, from its directory or from the table; None where there is none.

    Args:
        results: of the runs by name; a file that is not what the run's result lists is left out.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = _store(directory).read(name, file)
    except NotRegularFile:
        return None
    result = results.get(name) if results is not None else None
    if text is not None and result is not None and file in result.files:
        return text if result.files[file] == checksum(text.encode()) else None
    return text


@lru_cache(maxsize=8)
def _store(directory: Path) -> RunStore:
    return RunStore(directory)


def _table(
    directory: Path, name: str, file: str, results: Mapping[str, Result] | None = None
) -> dict[str, np.ndarray] | None:
    """The columns of a small table of numbers; an empty cell is NaN."""
    text = read_file(directory, name, file, results)
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
