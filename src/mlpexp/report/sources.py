"""From a directory to a study: by its `results.csv`, or by the runs themselves where that was never written."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlpexp import runs
from mlpexp.errors import UserError
from mlpexp.report import rundirs, study
from mlpexp.report.study import Study
from mlpexp.sweep import results


def read(directory: Path) -> Study:
    """The sweep in `directory`.

    Raises:
        UserError: there is none, or its table cannot be read.
    """
    if not directory.exists():
        raise UserError(f"{directory} does not exist; give a sweep's directory, e.g. multirun/NAME")
    if not directory.is_dir():
        raise UserError(f"{directory} is a file; give the sweep's directory, e.g. {directory.parent}")
    if not (directory / results.RESULTS).is_file():
        return study.from_records(directory, _from_runs(directory))
    try:
        records = results.load_results(directory)
    except (ValueError, TypeError, AttributeError) as error:  # TypeError: a row with too many fields
        raise _damaged(directory, str(error)) from error
    if records and not {"name", "status", *runs.METRIC_NAMES} <= records[0].keys():
        raise _damaged(directory, "columns are missing")
    return study.from_records(directory, records)


def _from_runs(directory: Path) -> list[dict[str, Any]]:
    """The records that a sweep, stopped before it wrote its table, would have written."""
    found: list[results.Row] = []
    for path in sorted(directory.glob(f"*/{runs.RESULT}")):
        name = path.parent.name
        try:
            result, message = runs.read_result(path.parent), ""
        except UserError as error:
            result, message = None, str(error)
        found.append((len(found), name, rundirs.overrides(directory, name) or [], result, message))
    if not found:
        hint = "give a sweep's directory, e.g. multirun/NAME"
        if (directory / runs.RESULT).is_file():
            hint = f"it is a single run; {hint}"
        elif below := sorted(directory.glob(f"*/{results.RESULTS}")):
            hint = f"did you mean {below[0].parent}?"
        raise UserError(f"{directory} holds no {results.RESULTS}; {hint}")
    with TemporaryDirectory() as place:
        (Path(place) / results.RESULTS).write_text(results.table(found), encoding="utf-8")
        return results.load_results(place)


def _damaged(directory: Path, why: str) -> UserError:
    return UserError(
        f"{directory / results.RESULTS} is damaged ({why}); move it away, and the report reads the runs themselves"
    )
