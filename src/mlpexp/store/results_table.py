"""`results.csv`: one row per run of a sweep, in the order of the grid; and how to read it."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mlpexp.config.field_types import builtin_types
from mlpexp.config.overrides import by_key, swept_keys
from mlpexp.config.schema import field_types
from mlpexp.nn.metrics import all_parts, is_column
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store.csv_tables import csv_text, original
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


def table(rows: Sequence[Row]) -> str:
    """The CSV of rows (number, name, overrides, result or None, message); floats at full precision."""
    header, cells = _cells(rows)
    return csv_text(header, cells)


def records(rows: Sequence[Row]) -> list[Record]:
    """The same rows as `load_results` reads them."""
    header, cells = _cells(rows)
    found = []
    for row in cells:
        record = dict(zip(header, row, strict=True))
        found.append({k: typed(k, v) if isinstance(v, str) else v for k, v in record.items()})
    return found


def load_results(path: str | Path) -> list[Record]:
    """The rows of a sweep's `results.csv` as plain records, e.g. for `pandas.DataFrame(load_results(path))`.

    Args:
        path: the sweep's directory, or the file itself.

    Returns:
        One dict per run, in the order of the grid. A key of the configuration has the type that the schema gives it:
        the values `1` and `01` of `data.target` stay different texts. What is missing is None.

    Raises:
        UserError: there is no such table.
    """
    file = Path(path)
    file = file / RESULTS if file.is_dir() else file
    try:
        text = safe_files.read_text(file, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path} holds no {RESULTS}; give a sweep's directory, e.g. multirun/NAME") from None
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for row in rows:
        if "status" in row:
            row["status"] = current_status(row["status"] or "", row.get("message"))
    return [{name: typed(name, original(cell)) for name, cell in row.items()} for row in rows]


def result_fields(result: Result, measured: Sequence[str] | None = None) -> Record:
    """The columns behind the swept keys, as a run's own result gives them.

    Args:
        measured: the columns of metrics; by default those that the run has.
    """
    names = all_parts(result.metrics) if measured is None else measured
    fields: Record = {name: result.metrics.get(name) for name in names}
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


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    keys = swept_keys([row[2] for row in rows])
    measured = all_parts(name for row in rows if row[3] is not None for name in row[3].metrics)
    cells = []
    for number, name, overrides, result, message in rows:
        given = {key: override.label for key, override in by_key(overrides).items()}
        row: list[Any] = [number, name, result.status if result is not None else "failed"]
        row += [given.get(key, "") for key in keys]
        if result is None:
            row += [None] * (len(measured) + len(TAIL) - 1)
            cells.append([*row, message])
            continue
        row += result_fields(result, measured).values()
        cells.append(row)
    return [*HEAD, *keys, *measured, *TAIL], cells
