"""From a directory to a study: by its `results.csv`, or by the runs themselves where that was never written."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlpexp.analysis import sweep_table
from mlpexp.analysis.sweep_table import Study
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, results_table, run_directory, run_files


def read(directory: Path) -> Study:
    """The sweep in `directory`.

    Raises:
        UserError: there is none, or its table cannot be read.
    """
    if not directory.exists():
        raise UserError(f"{directory} does not exist; give a sweep's directory, e.g. multirun/NAME")
    if not directory.is_dir():
        raise UserError(f"{directory} is a file; give the sweep's directory, e.g. {directory.parent}")
    if not (directory / file_names.RESULTS).is_file():
        return sweep_table.from_records(directory, _from_runs(directory))
    try:
        records = results_table.load_results(directory)
    except (ValueError, TypeError, AttributeError) as error:  # TypeError: a row with too many fields
        raise _damaged(directory, str(error)) from error
    if records and not {"name", "status", "val/loss"} <= records[0].keys():
        raise _damaged(directory, "columns are missing")
    return sweep_table.from_records(directory, records)


def _from_runs(directory: Path) -> list[dict[str, Any]]:
    """The records that a sweep, stopped before it wrote its table, would have written."""
    found: list[results_table.Row] = []
    for path in sorted(directory.glob(f"*/{file_names.RESULT}")):
        name = path.parent.name
        try:
            result, message = run_directory.read_result(path.parent), ""
        except UserError as error:
            result, message = None, str(error)
        found.append((len(found), name, run_files.overrides(directory, name) or [], result, message))
    if not found:
        hint = "give a sweep's directory, e.g. multirun/NAME"
        if (directory / file_names.RESULT).is_file():
            hint = f"it is a single run; {hint}"
        elif below := sorted(directory.glob(f"*/{file_names.RESULTS}")):
            hint = f"did you mean {below[0].parent}?"
        raise UserError(f"{directory} holds no {file_names.RESULTS}; {hint}")
    with TemporaryDirectory() as place:
        (Path(place) / file_names.RESULTS).write_text(results_table.table(found), encoding="utf-8")
        return results_table.load_results(place)


def _damaged(directory: Path, why: str) -> UserError:
    return UserError(
        f"{directory / file_names.RESULTS} is damaged ({why}); move it away, and the report reads the runs themselves"
    )
