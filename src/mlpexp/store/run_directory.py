"""A run's files: its completion marker, its tables, their checksums."""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from mlpexp.nn.diagnostics import LAYER_COLUMNS
from mlpexp.nn.metric_columns import columns, in_order, is_column
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.store import atomic_files
from mlpexp.store.file_names import RESULT
from mlpexp.store.identity import SCHEMA_VERSION

LAYER_NAMES = ("epoch", "layer", *LAYER_COLUMNS)

Status = Literal["ok", "chance", "diverged", "stopped", "failed", "interrupted", "running"]
"""
ok: finished and finite. chance: finished and finite, but no better than guessing. diverged: a metric was not finite.
stopped: eliminated by successive halving. failed: an error. interrupted: by a signal.
running: in `results.csv` only; the metrics are those of the last saved epoch.
"""
FINAL = ("ok", "chance", "diverged", "stopped")  # a run with one of these is never trained again
FINITE = ("ok", "chance")  # a run with one of these has numbers that count in every mean, ranking and search
OLD_CHANCE_MESSAGE = "at chance level"  # start of the message of chance runs that were stored as `diverged`


MAX_RESULT, MAX_FILE = 2**26, 2**33  # bytes of a marker, of any other file of a run
_NAME = re.compile(r"[^/\0]{1,255}(/[^/\0]{1,255})?$")


def _with_fit(seconds: dict[str, float]) -> dict[str, float]:
    if "fit" not in seconds:
        raise ValueError("seconds has no entry fit")
    return seconds


def _inside(files: dict[str, dict[str, int | str]]) -> dict[str, dict[str, int | str]]:
    for name in files:
        if not _NAME.match(name) or {"..", "."} & set(name.split("/")):
            raise ValueError(f"{name!r} is no file of a run")
    return files


Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The result of a run: the content of `result.json`, its completion marker, written last.

    Losses in nats, accuracies in [0, 1]; what is not finite is stored as null.
    """

    status: Status
    metrics: dict[str, float]
    """train/* and val/* of `epoch`, test/* of the tested weights; empty where no epoch was finished"""
    objective: float
    """the monitored metric in its best epoch; NaN where there is none"""
    monitor: str
    epoch: Count | None
    """the epoch, from 0, that `metrics` belong to: the best one, or the last with test_weights=last"""
    epochs: Count
    """finished epochs"""
    identity: str
    data_digest: str
    seconds: Annotated[dict[str, float], AfterValidator(_with_fit)]
    versions: dict[str, str]
    environment: dict[str, str | int] = field(default_factory=dict)
    """what bits can depend on beside the configuration: threads, engine, device, processor's instruction set"""
    git_commit: str | None = None
    message: str | None = None
    """why a run failed, when it diverged, why it counts as chance, when halving stopped it"""
    num_parameters: Count = 0
    test_samples: Count = 0
    """size of the test part; 0 where there is none, and in results of earlier versions"""
    files: Annotated[dict[str, dict[str, int | str]], AfterValidator(_inside)] = field(default_factory=dict)
    """size and SHA-256 of each other file of the run"""
    schema_version: int = SCHEMA_VERSION


_FIELDS = tuple(field.name for field in fields(Result))
# one encoder for all runs: `json.dumps` makes one at each call
_one_line = json.JSONEncoder(allow_nan=False).encode
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def metrics_csv(history: Sequence[Mapping[str, float]]) -> str:
    """One row per epoch, floats at full precision."""
    kinds = dict.fromkeys(map(tuple, history))  # a run has one or two: a pruned network has a column of its own
    header, names = _metrics_header(tuple(kinds))
    lines = [",".join([str(epoch), *[str(row.get(name, "")) for name in names]]) for epoch, row in enumerate(history)]
    return "\n".join([header, *lines, ""])


@lru_cache(maxsize=256)
def _metrics_header(kinds: tuple[tuple[str, ...], ...]) -> tuple[str, tuple[str, ...]]:
    """The first line of `metrics.csv` for rows with these columns, and all columns in their order."""
    names = tuple(in_order(name for kind in kinds for name in kind) or columns("train", "val"))
    return _csv(["epoch", *names], ()).removesuffix("\n"), names


def layers_csv(rows: Sequence[Sequence[float | str]]) -> str:
    """One row per epoch and layer, in the order of `LAYER_NAMES`; epoch -1 is the state before the first step.

    The last layer has no activation.
    """
    return _csv(LAYER_NAMES, rows)


def parse_metrics(text: str, path: Path) -> list[dict[str, float]]:
    """Parse what `metrics_csv` wrote.

    Raises:
        DamagedFile: it is none.
    """
    try:
        header, *rows = csv.reader(io.StringIO(text))
        if header[0] != "epoch" or not all(map(is_column, header[1:])) or len(set(header)) != len(header):
            raise ValueError("unknown columns")
        if [row[0] for row in rows] != [str(epoch) for epoch in range(len(rows))]:
            raise ValueError("the epochs are not 0, 1, 2, ...")
        # a metric that is chosen while a run is trained further has no number in the earlier epochs
        numbers = [[float(cell) if cell else math.nan for cell in row[1:]] for row in rows]
        return [dict(zip(header[1:], row, strict=True)) for row in numbers]
    except (ValueError, IndexError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged ({error}); train the run again") from error


def parse_layers(text: str, path: Path) -> list[list[float | str]]:
    """Parse what `layers_csv` wrote; columns that an earlier version did not have are empty.

    Raises:
        DamagedFile: it is none.
    """
    try:
        header, *rows = csv.reader(io.StringIO(text))
        if tuple(header) != LAYER_NAMES[: len(header)] or len(header) < 3:
            raise ValueError("unknown columns")
        if any(len(row) != len(header) for row in rows):
            raise ValueError("rows of different lengths")
        missing = [""] * (len(LAYER_NAMES) - len(header))
        numbers = ([int(row[0]), int(row[1]), *(float(cell) if cell else "" for cell in row[2:])] for row in rows)
        return [[*row, *missing] for row in numbers]
    except (ValueError, IndexError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged ({error}); train the run again") from error


def write_result(directory: Path, result: Result) -> None:
    """Write the marker; with a final status, the run is done after this call."""
    atomic_files.write(directory / RESULT, result_text(result))


def result_text(result: Result) -> str:
    """The marker with its checksum, indented."""
    return _indented(_sealed(result)) + "\n"


def _indented(value: Any, line: str = "\n") -> str:
    """`json.dumps(value, indent=2)` of nested mappings of plain values; `json` indents in Python, ten times slower."""
    if not isinstance(value, dict) or not value:
        return _one_line(value)
    new_line = f"{line}  "
    members = [f"{_one_line(key)}: {_indented(item, new_line)}" for key, item in value.items()]
    return f"{{{new_line}{f',{new_line}'.join(members)}{line}}}"


def result_json(result: Result) -> str:
    """The marker with its checksum, in one line."""
    return _one_line(_sealed(result))


def _sealed(result: Result) -> dict[str, Any]:
    content = {name: getattr(result, name) for name in _FIELDS}
    for name in ("metrics", "objective", "seconds"):  # those that hold floats
        content[name] = _finite(content[name])
    content["sha256"] = seal(content)
    return content


def read_result(directory: Path) -> Result:
    """Read what `write_result` wrote.

    Raises:
        DamagedFile: it is not what was written.
        UserError: there is none, it cannot be read, or it is of a newer version of mlpexp.
    """
    path = directory / RESULT
    try:
        return parse_result(safe_files.read_bytes(path, MAX_RESULT), path)
    except FileNotFoundError:
        raise UserError(f"{directory} holds no finished run: there is no {RESULT}") from None


def parse_result(text: str | bytes, path: Path) -> Result:
    """Parse a marker; `path` is named in messages.

    Raises:
        DamagedFile: it is not what was written, or of a newer version of mlpexp.
    """
    try:
        content = unsealed(text, path)
        content["status"] = current_status(content["status"], content.get("message"))
        content["metrics"] = {name: math.nan if value is None else value for name, value in content["metrics"].items()}
        content["objective"] = math.nan if content["objective"] is None else content["objective"]
        return _result_type().validate_python(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DamagedFile(f"{path} is damaged ({reason}); train the run again") from error


def name_in(sweep: Path, run: Path | str) -> str:
    """The name of a run in `results.csv` and in the table: its directory, relative to the sweep's."""
    # texts, because pathlib is slow, and this is asked several times for every run
    path, base = str(run), f"{sweep}{os.sep}"
    if path.startswith(base):
        return path.removeprefix(base).replace(os.sep, "/")
    return "." if path == str(sweep) else path.rpartition(os.sep)[2]


def names_with_marker(sweep: Path) -> list[str]:
    """The names of directories with a marker, one or two levels below a sweep's; none that begin with a dot."""
    markers = [path for depth in ("*", "*/*") for path in sorted(sweep.glob(f"{depth}/{RESULT}"))]
    names = [marker.parent.relative_to(sweep) for marker in markers]
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def is_relative(name: str) -> bool:
    """Whether `name` stays below the directory that it is relative to."""
    path = PurePosixPath(name)
    return name not in ("", ".") and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def current_status(status: str, message: str | None) -> str:
    """The status of a stored run as it is called now: `chance` was once stored as `diverged` with a message."""
    is_old_chance = status == "diverged" and (message or "").startswith(OLD_CHANCE_MESSAGE)
    return "chance" if is_old_chance else status


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a marker or manifest; without it, a flipped bit in a number would not be noticed."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def unsealed(text: str | bytes, path: Path) -> dict[str, Any]:
    """The content of a marker or manifest, after its checksum was compared.

    Raises:
        DamagedFile: it is of a newer version of mlpexp.
        ValueError: it is not what was written.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise DamagedFile(f"{path} has schema version {version}; this mlpexp knows {SCHEMA_VERSION}: update it")
    if content.pop("sha256", None) != seal(content):
        raise ValueError("its own checksum does not match")
    return content


@cache
def _result_type() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def checksums(directory: Path, names: Sequence[str]) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of files in `directory`, for the marker."""
    return {name: checksum(safe_files.read_bytes(directory / name, MAX_FILE)) for name in names}


def compare_with_marker(directory: Path, name: str, content: bytes) -> None:
    """Compare the content of a run's file with the checksum in the run's marker, if that lists it.

    Raises:
        UserError: they differ, or the marker cannot be read.
    """
    if not (directory / RESULT).is_file():
        return
    listed = read_result(directory).files.get(name)
    if listed is not None and listed != checksum(content):
        raise UserError(
            f"{directory / name} is not what was written: its checksum differs from {RESULT}'s; train again"
        )


def checksum(content: bytes) -> dict[str, int | str]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _csv(names: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
