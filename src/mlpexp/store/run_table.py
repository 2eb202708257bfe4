"""`runs.jsonl`: the back end of `record=table`, one file in place of a directory per run.

One line per finished run, added stack by stack: the SHA-256 of the rest, then JSON with the run's name and the
small files that its directory would have held. Lines truncated by a crash are skipped; those runs are trained again.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, file_names, run_directory
from mlpexp.store.run_directory import Result

MAX_LINE, MAX_FILE = 2**28, 2**36  # bytes

Files = Mapping[str, str]  # text by name, relative to the directory that there is not


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    files: dict[str, str]


def overrides_text(overrides: Iterable[str]) -> str:
    """The content of `file_names.OVERRIDES` of a run of the table; JSON is YAML."""
    return "".join(f"- {json.dumps(item)}\n" for item in overrides)


def append(directory: Path, entries: Iterable[tuple[str, Files]]) -> None:
    """Add finished runs, by name; they are on the disk when this returns."""
    lines = [_line(name, files) for name, files in entries]
    if not lines:
        return
    path = directory / file_names.TABLE
    start = "" if _ends_a_line(path) else "\n"  # what a crash has truncated stays a line of its own
    atomic_files.append(path, start + "".join(lines), durable=True)


def remove(directory: Path, names: Collection[str]) -> None:
    """Remove the lines of some runs; the file, too, where none is left."""
    path = directory / file_names.TABLE
    if all(name in names for name, _ in read(directory)):
        path.unlink(missing_ok=True)
        return
    remaining = (_line(name, files) for name, files in read(directory) if name not in names)
    atomic_files.write(path, remaining, durable=True)


def read(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and files of each whole line, in the order of writing.

    Raises:
        UserError: it is no regular file, cannot be read, or a line with a right checksum has another content.
    """
    path = directory / file_names.TABLE
    try:
        file = safe_files.open_regular(path, MAX_FILE)
    except FileNotFoundError:
        return
    with file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            seal, _, content = line.rstrip(b"\n").partition(b" ")
            if hashlib.sha256(content).hexdigest().encode() != seal:
                continue
            try:
                entry = _Line.model_validate_json(content)
                if not run_directory.is_relative(entry.name):
                    raise ValueError(f"{entry.name!r} is no name of a run")
            except (ValidationError, ValueError) as error:
                raise _unusable(path, number, error) from error
            yield entry.name, entry.files


def by_name(directory: Path, files: tuple[str, ...] | None = None) -> Mapping[str, Mapping[str, str]]:
    """The files of each run of the table; it is read again only after a change. Empty if there is no table.

    Args:
        files: names of those that are wanted; None: all.
    """
    try:
        status = (directory / file_names.TABLE).stat()
    except (OSError, ValueError):
        return {}
    return _by_name(directory, files, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _by_name(
    directory: Path, files: tuple[str, ...] | None, modified: int, size: int
) -> Mapping[str, Mapping[str, str]]:
    return {
        name: {file: text for file, text in texts.items() if files is None or file in files}
        for name, texts in read(directory)
    }


def results(directory: Path) -> dict[str, dict[str, Result]]:
    """The results of the runs of the table: identity -> name -> result."""
    by_identity: dict[str, dict[str, Result]] = defaultdict(dict)
    path = directory / file_names.TABLE
    for number, (name, files) in enumerate(read(directory), 1):
        try:
            result = run_directory.parse_result(files[file_names.RESULT], path)
        except (UserError, KeyError) as error:
            raise _unusable(path, number, error) from error
        by_identity[result.identity][name] = result
    return by_identity


def _line(name: str, files: Files) -> str:
    content = json.dumps({"name": name, "files": dict(files)}, separators=(",", ":"))
    return f"{hashlib.sha256(content.encode()).hexdigest()} {content}\n"


def _unusable(path: Path, number: int, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path}: line {number} cannot be used ({reason}); move the file away, or remove the line")


def _ends_a_line(path: Path) -> bool:
    try:
        file = safe_files.open_regular(path, MAX_FILE, follow=False)
    except FileNotFoundError:
        return True
    with file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
