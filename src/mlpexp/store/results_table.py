"""`results.csv`: one row per run of a sweep, in the order of the grid; and how to read it."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mlpexp.config.field_types import builtin_types
from mlpexp.config.overrides import by_key, swept_keys
from mlpexp.config.schema import field_types
from mlpexp.nn.metric_columns import all_parts, is_column
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.store.csv_tables import csv_parts, original
from mlpexp.store.file_names import RESULTS
from mlpexp.store.run_directory import Result, current_status

HEAD, TAIL = ("run", "name", "status"), ("epoch", "epochs", "num_parameters", "seconds", "message")
MAX_BYTES = 2**30

Row = tuple[int, str, Sequence[str], Result | None, str]
Record = dict[str, Any]

_OWN_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(("name", "status", "message"), frozenset({str})),
    **dict.fromkeys(("run", "epoch", "epochs", "num_parameters"), frozenset({int})),
    "seconds": frozenset({float}),
}
# a number as Hydra's grammar has it: 01 and 1_0 are texts to a person who reads a table
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)", re.ASCII)
_FLOAT = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.ASCII)


def table_parts(rows: Sequence[Row]) -> Iterator[str]:
    """The CSV of rows (number, name, overrides, result or None, message); floats at full precision.

    It comes in pieces of some thousand rows, because a sweep may have a hundred thousand.
    """
    cells = _columns(rows)
    return csv_parts(list(cells), zip(*cells.values(), strict=True))


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns of rows, with the types that `load_results` gives them."""
    return {
        name: [typed(name, cell) if isinstance(cell, str) else cell for cell in cells]
        for name, cells in _columns(rows).items()
    }


def records(rows: Sequence[Row]) -> list[Record]:
    """The records of rows, as `load_results` reads them."""
    by_column = columns(rows)
    return [dict(zip(by_column, row, strict=True)) for row in zip(*by_column.values(), strict=True)]


def load_results(path: str | Path) -> list[Record]:
    """The rows of a sweep's `results.csv` as plain records, e.g. for `pandas.DataFrame(load_results(path))`.

    Args:
        path: the sweep's directory, or the file itself.

    Returns:
        One dict per run, in the order of the grid. A key of the configuration has the type that the schema gives it:
        the values `1` and `01` of `data.target` stay different texts. What is missing is None.

    Raises:
        UserError: there is no such table.
        DamagedFile: it is no table of comma-separated values.
    """
    file = Path(path)
    file = file / RESULTS if file.is_dir() else file
    try:
        text = safe_files.read_text(file, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path} holds no {RESULTS}; give a sweep's directory, e.g. multirun/NAME") from None
    except UnicodeDecodeError:
        raise DamagedFile(f"{file} is not a table of comma-separated values in UTF-8") from None
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DamagedFile(f"{file} cannot be read as comma-separated values ({error})") from None
    if any(None in row for row in rows):
        raise DamagedFile(f"{file} has a line with more cells than columns, so that it is not what a sweep has written")
    for row in rows:
        if "status" in row:
            row["status"] = current_status(row["status"] or "", row.get("message"))
    return [{name: typed(name, original(cell)) for name, cell in row.items()} for row in rows]


def result_fields(result: Result) -> Record:
    """The cells of a run's result: the columns after the swept keys."""
    fields: Record = {name: result.metrics.get(name) for name in all_parts(result.metrics)}
    tail = (result.epoch, result.epochs, result.num_parameters, result.seconds["fit"], result.message or "")
    return fields | dict(zip(TAIL, tail, strict=True))


def typed(key: str, text: str) -> Any:
    """The value that a cell of column `key` holds: None, bool, int, float, or the text itself."""
    if text == "":
        return None
    types = frozenset({float}) if is_column(key) else _types().get(key)
    if (types is None or bool in types) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if (types is None or types & {int, float}) and _INTEGER.fullmatch(text):
        return float(text) if types and int not in types else int(text)
    if (types is None or float in types) and _FLOAT.fullmatch(text):
        return float(text)
    return text


@cache
def _types() -> Mapping[str, frozenset[type]]:
    """The types of each column that is known; None stands for what Hydra's grammar makes of a text."""
    return {key: builtin_types(annotation) for key, annotation in field_types().items()} | _OWN_TYPES


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The cells of the table by column; numbers that were given as texts stay texts."""
    keys = swept_keys([row[2] for row in rows])
    results = [row[3] for row in rows]
    kinds = dict.fromkeys(tuple(result.metrics) for result in results if result is not None)
    measured = all_parts(name for kind in kinds for name in kind)
    labels: dict[str, list[str]] = {key: [] for key in keys}
    for row in rows if keys else ():
        overrides = by_key(row[2])
        for key, column in labels.items():
            column.append(overrides[key].label if key in overrides else "")
    cells: dict[str, list[Any]] = {
        "run": [row[0] for row in rows],
        "name": [row[1] for row in rows],
        "status": ["failed" if result is None else result.status for result in results],
    }
    cells |= labels
    empty: dict[str, float] = {}
    metrics = [empty if result is None else result.metrics for result in results]
    for name in measured:
        cells[name] = [row.get(name) for row in metrics]
    for name in ("epoch", "epochs", "num_parameters"):
        cells[name] = [None if result is None else getattr(result, name) for result in results]
    cells["seconds"] = [None if result is None else result.seconds["fit"] for result in results]
    cells["message"] = [
        row[4] if result is None else result.message or "" for row, result in zip(rows, results, strict=True)
    ]
    return cells
