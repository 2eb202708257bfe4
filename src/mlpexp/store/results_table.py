"""`results.csv`: one row per run of a sweep, in the order of the grid; and how to read it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlpexp.config.overrides import by_key, swept_keys
from mlpexp.nn.metrics import epoch_columns, final_columns
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files
from mlpexp.store.file_names import RESULTS
from mlpexp.store.run_directory import Result, current_status

HEAD, TAIL = ("run", "name", "status"), ("epoch", "epochs", "num_parameters", "seconds", "message")

Row = tuple[int, str, Sequence[str], Result | None, str]


def table(rows: Sequence[Row]) -> str:
    """The CSV of rows (number, name, overrides, result or None, message); floats at full precision."""
    keys = swept_keys([row[2] for row in rows])
    measured = (*epoch_columns(), *final_columns())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*HEAD, *keys, *measured, *TAIL])
    for number, name, overrides, result, message in rows:
        given = {key: override.label for key, override in by_key(overrides).items()}
        status = result.status if result is not None else "failed"
        swept = [given.get(key, "") for key in keys]
        if result is None:
            writer.writerow([number, name, status, *swept, *[""] * len(measured), *[""] * 4, message])
            continue
        metrics = [result.metrics.get(metric, "") for metric in measured]
        tail = [
            "" if result.epoch is None else result.epoch,
            result.epochs,
            result.num_parameters,
            result.seconds["fit"],
            result.message or "",
        ]
        writer.writerow([number, name, status, *swept, *metrics, *tail])
    return text.getvalue()


def write(directory: Path, rows: Sequence[Row]) -> None:
    """The table of the runs that have ended, into the sweep's directory."""
    atomic_files.write(directory / RESULTS, table(rows))


def load_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a sweep's `results.csv` as plain records, e.g. for `pandas.DataFrame(load_results(path))`.

    Args:
        path: the sweep's directory, or the file itself.

    Returns:
        One dict per run, in the order of the grid; numbers are int or float, what is missing is None.

    Raises:
        UserError: there is no such table.
    """
    file = Path(path)
    file = file / RESULTS if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"{path} holds no {RESULTS}; give a sweep's directory, e.g. multirun/NAME")
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    for row in rows:
        if "status" in row:
            row["status"] = current_status(row["status"] or "", row.get("message"))
    return [{name: _parse(text) for name, text in row.items()} for row in rows]


def _parse(text: str) -> Any:
    if text == "":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)
