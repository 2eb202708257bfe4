"""`runs.jsonl`: what `record=table` keeps of each run, in one file in place of a directory per run.

One line per finished run, added stack by stack: the SHA-256 of the rest, then JSON with the run's name and the
small files that its directory would have held. A line that was torn by a crash is nobody's run; its run is new.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlpexp.runtime.errors import UserError
from mlpexp.store import run_directory
from mlpexp.store.run_directory import Result

JOURNAL = "runs.jsonl"
OVERRIDES = ".hydra/overrides.yaml"

Files = Mapping[str, str]  # text by name, relative to the directory that there is not


def append(directory: Path, entries: Iterable[tuple[str, Files]]) -> None:
    """Add finished runs, by name; they are on the disk when this returns."""
    lines = []
    for name, files in entries:
        content = json.dumps({"name": name, "files": dict(files)}, separators=(",", ":"))
        lines.append(f"{hashlib.sha256(content.encode()).hexdigest()} {content}\n")
    if not lines:
        return
    path = directory / JOURNAL
    with path.open("ab") as file:
        if file.tell() and not _ends_a_line(path):
            file.write(b"\n")  # what a crash has torn stays a line of its own
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def read(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and files of each whole line, in the order of writing."""
    try:
        file = (directory / JOURNAL).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            seal, _, content = line.rstrip(b"\n").partition(b" ")
            if hashlib.sha256(content).hexdigest().encode() == seal:
                entry = json.loads(content)
                yield entry["name"], entry["files"]


def results(directory: Path) -> dict[str, Result]:
    """How each run of the journal ended, by its identity."""
    found = {}
    for name, files in read(directory):
        try:
            result = run_directory.parse_result(files[run_directory.RESULT], directory / JOURNAL)
        except (UserError, KeyError) as error:
            raise UserError(f"{directory / JOURNAL}: the line of {name} cannot be used; {error}") from error
        found[result.identity] = result
    return found


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
