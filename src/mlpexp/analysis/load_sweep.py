"""Reads the runs of a sweep, or single runs, and checks the table of results against what each run recorded.

The runs' own sealed results count: a row of `results.csv` that differs from them is replaced and named.
"""

import contextlib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlpexp.analysis import run_files, sweep_table
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.config.hparams import with_values_of
from mlpexp.config.overrides import by_key, swept_keys
from mlpexp.config.schema import defaults
from mlpexp.runtime import safe_files, user_code
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.store import results_table, run_directory, run_table, sweep_manifest
from mlpexp.store.file_names import MULTIRUN, RESULT, RESULTS
from mlpexp.store.results_table import Record, result_fields, typed
from mlpexp.store.run_directory import FINAL, FINITE, Result
from mlpexp.store.sweep_manifest import Manifest

NOT_DATA = ("batch_size", "shuffle", "class_weight", "path", "val_path", "test_path")  # files are known by their bytes
# settings with other values of which runs are measured on other samples; `data` is the group that sets data.name
VALIDATION_KEYS = frozenset(
    {"data", *(f"data.{key}" for key in defaults()["data"] if key not in (*NOT_DATA, "label_noise"))}
)
MAX_CONFIG = 1 << 20  # bytes
_PLUGINS = re.compile(r"^plugins:.*\n(?:[- ].*\n)*", re.MULTILINE)  # a list indented or not, or []
log = logging.getLogger(__name__)
HINT = "give a sweep's directory, e.g. multirun/NAME, or the directory of a run"


@dataclass(kw_only=True)
class Sources:
    """Where the numbers of a sweep come from; each counter has the number of runs that have a value."""

    versions: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    digests: Counter[str] = field(default_factory=Counter)
    """SHA-256 of the data"""
    monitors: Counter[str] = field(default_factory=Counter)
    results: dict[str, Result] = field(default_factory=dict)
    """the sealed result of each run that has one, by the run's name"""
    damaged: list[str] = field(default_factory=list)
    """runs whose result.json could not be used"""
    corrected: list[str] = field(default_factory=list)
    """runs whose row of results.csv differs from what they recorded"""
    unlisted: int = 0
    """finished runs of the study that results.csv does not list"""
    unverified: int = 0
    """runs with numbers that only results.csv has"""
    records: list[Record] = field(default_factory=list)
    """a row for each run, as of `results.csv`"""
    plan: Manifest | None = None
    data: dict[str, set[str]] = field(default_factory=dict)
    """the values of every setting that decides on which data the runs were trained and measured"""


def read(directory: Path) -> tuple[SweepTable, Sources]:
    """The sweep in `directory`, by its `results.csv` or, where that is missing, by its runs.

    Raises:
        UserError: there is none, or its table cannot be read.
    """
    if not directory.exists():
        raise UserError(f"{directory} does not exist; {HINT}")
    if not directory.is_dir():
        raise UserError(f"{directory} is a file; give the directory, e.g. {directory.parent}")
    _load_plugins(directory)
    names = [path.parent.name for path in sorted(directory.glob(f"*/{RESULT}"))]
    names += [name for name, _ in run_table.read(directory)]
    if not (directory / RESULTS).exists() and not names:
        below = sorted(directory.glob(f"*/{RESULTS}"))
        hint = f"did you mean {below[0].parent}?" if below else HINT
        raise UserError(f"{directory} holds no {RESULTS} and no run; {hint}")
    if not (directory / RESULTS).exists():
        return _read_runs(directory, list(dict.fromkeys(names)))
    try:
        records = results_table.load_results(directory)
    except (DamagedFile, ValueError) as error:
        raise _damaged(directory, str(error).replace(str(directory / RESULTS), "it")) from error
    if records and not {"name", "status", "val/loss"} <= records[0].keys():
        raise _damaged(directory, "columns are missing")
    with contextlib.suppress(UserError):
        if unlisted := _unlisted(directory, names, records):
            return _read_runs(directory, unlisted, records)
    return _verified(directory, records)


def _load_plugins(directory: Path) -> None:
    """Import the plugins of a sweep, whose metrics the report shows; where that fails, a warning says why."""
    try:
        text = safe_files.read_text(directory / MULTIRUN, MAX_CONFIG)
    except (OSError, ValueError, UserError):
        return
    if (lines := _PLUGINS.search(text)) is None:
        return
    for plugin in parse_yaml(lines[0], directory / MULTIRUN)["plugins"]:
        homes = [home for home in (Path.cwd(), *directory.absolute().parents) if (home / str(plugin)).is_file()]
        try:
            user_code.load(str(plugin), (homes or [Path.cwd()])[0], recorded=True)
        except UserError as error:
            log.warning("%s", error)


def _unlisted(directory: Path, names: Sequence[str], records: Sequence[Record]) -> list[str]:
    """Finished runs of the study that its table does not list, since a later command trained only others.

    By name, numbers in it by size: the manifest has them by identity.
    """
    listed, plan = {str(row["name"]) for row in records}, sweep_manifest.read(directory)
    present = set(names)
    unlisted = [name for name in plan.runs.values() if name in present and name not in listed] if plan else []
    return sorted(
        unlisted,
        key=lambda name: [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)
        ],
    )


def read_single_runs(directories: Sequence[Path]) -> tuple[SweepTable, Sources]:
    """Runs that were trained one by one, as if they were a sweep."""
    paths = [path.absolute() for path in directories]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return _read_runs(root, list(dict.fromkeys(path.relative_to(root).as_posix() for path in paths)))


def is_single_run(directory: Path) -> bool:
    return (directory / RESULT).is_file() and not (directory / RESULTS).is_file()


def _read_runs(directory: Path, names: Sequence[str], listed: Sequence[Record] = ()) -> tuple[SweepTable, Sources]:
    """The runs `names`, and those of a table beside them, whose rows count where a run has no result of its own."""
    sources = Sources(unlisted=len(names) if listed else 0)
    rows: list[results_table.Row] = []
    listed_rows = {str(row["name"]): row for row in listed}
    for number, name in enumerate(dict.fromkeys([*listed_rows, *names])):
        result, row = _result(directory, name, sources), listed_rows.get(name, {})
        message = "" if result is not None else str(row.get("message") or f"its {RESULT} is damaged")
        overrides = run_files.overrides(directory, name)
        if overrides is None:
            overrides = [f"{k}={v}" for k, v in row.items() if sweep_table.is_swept(k) and v is not None]
        rows.append((number, name, overrides, result, message))
    records = results_table.records(_with_their_values(directory, rows))
    for record in records:
        row = listed_rows.get(str(record["name"]), {})
        if row and str(record["name"]) not in sources.results:
            record |= {key: value for key, value in row.items() if key in record and not sweep_table.is_swept(key)}
            sources.unverified += row["status"] in FINITE
    return _finished(directory, records, sources)


def _with_their_values(directory: Path, rows: Sequence[results_table.Row]) -> list[results_table.Row]:
    """The rows with the values that runs have of keys that only others were started with."""
    keys = swept_keys([row[2] for row in rows])
    return [
        row
        if by_key(row[2]).keys() >= set(keys)
        else (*row[:2], with_values_of(run_files.configuration(directory, row[1]), keys, row[2]), *row[3:])
        for row in rows
    ]


def _verified(directory: Path, records: list[Record]) -> tuple[SweepTable, Sources]:
    sources = Sources()
    for row in records:
        name = str(row["name"] or "")
        result = _result(directory, name, sources)
        if result is None:
            sources.unverified += row["status"] in FINITE
            continue
        swept = _swept(directory, name, row)
        row |= {key: value for key, value in swept.items() if row[key] is None}  # earlier programs left them out
        record: Record = {"status": result.status, **result_fields(result), **swept}
        if result.status not in FINAL:
            del record["message"]  # the table may word an error in another way
        if any(_differ(row.get(key), value) for key, value in record.items()):
            sources.corrected.append(name)
            row.update(record)
    return _finished(directory, records, sources)


def _finished(directory: Path, records: list[Record], sources: Sources) -> tuple[SweepTable, Sources]:
    sources.records = records
    identities = [result.identity if (result := sources.results.get(str(row["name"]))) else None for row in records]
    table = sweep_table.from_records(directory, records, identities)
    for result in sources.results.values():
        sources.versions[", ".join(f"{name} {version}" for name, version in result.versions.items())] += 1
        sources.commits[str(result.git_commit)] += 1
        sources.digests[result.data_digest] += 1
        sources.monitors[result.monitor] += 1
    with contextlib.suppress(UserError):  # the report can do without the settings that all runs share
        sources.plan = sweep_manifest.read(directory)
    sources.data = _data_settings(table, sources)
    return table, sources


def _result(directory: Path, name: str, sources: Sources) -> Result | None:
    """The run's own result, which its seal protects; None where there is none or it is damaged."""
    text = run_files.read_file(directory, name, RESULT)
    if text is None:
        return None
    try:
        result = run_directory.parse_result(text, directory / name / RESULT)
    except UserError:
        sources.damaged.append(name)
        return None
    sources.results[name] = result
    return result


def _swept(directory: Path, name: str, row: Record) -> Record:
    """The values of the swept keys as the run was started, or as it has them; empty where it left no overrides."""
    overrides = run_files.overrides(directory, name)
    if overrides is None:
        return {}
    parsed = by_key(overrides)
    keys = [key for key in row if sweep_table.is_swept(key)]
    if parsed.keys() < {*parsed, *keys}:
        parsed = by_key(with_values_of(run_files.configuration(directory, name), keys, overrides))
    return {key: typed(key, parsed[key].label) if key in parsed else None for key in keys}


def _differ(cell: Any, recorded: Any) -> bool:
    """Whether a cell does not hold the run's own value; a number that is not finite is an empty cell."""
    absent = [value in (None, "") or (isinstance(value, float) and math.isnan(value)) for value in (cell, recorded)]
    return absent[0] != absent[1] if any(absent) else bool(cell != recorded)


def _data_settings(table: SweepTable, sources: Sources) -> dict[str, set[str]]:
    settings: Mapping[str, Any] = {f"data.{key}": value for key, value in defaults()["data"].items()}
    if sources.plan is not None:
        settings = {**settings, **sources.plan.constants}
    elif table.names:
        recorded = run_files.configuration(table.directory, table.names[0]).get("data")
        if not isinstance(recorded, dict):
            return {}
        settings = {**settings, **{f"data.{key}": value for key, value in recorded.items()}}
    names = [key for key in settings if key.startswith("data.") and key.removeprefix("data.") not in NOT_DATA]
    values = {name: {str(settings[name])} for name in names}
    for key in (*table.factors, *table.seeds):
        name = "data.name" if key.name == "data" else key.name
        if name in values:
            values[name] = set(key.levels)
    return values | {"the data's bytes": set(sources.digests)} if sources.digests else values


def different_data(sources: Sequence[Sources]) -> Iterator[str]:
    """`data.target (a; b)` for each setting of the data in which these sweeps differ."""
    data_values = [source.data for source in sources if source.data]
    for name in dict.fromkeys(name for data in data_values for name in data):
        values = [", ".join(sorted(data.get(name, ()))) for data in data_values]
        if len(set(values)) > 1:
            yield name if name.startswith("the ") else f"{name} ({'; '.join(dict.fromkeys(values))})"


def _damaged(directory: Path, reason: str) -> UserError:
    path = directory / RESULTS
    return UserError(f"{path} is damaged ({reason}); move it away, and the report reads the runs themselves")
