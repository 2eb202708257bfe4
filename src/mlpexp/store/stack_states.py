"""Saved states of stacks in training, from which a stopped or killed sweep continues.

One file per stack in `.stacks` of the sweep's directory, replaced as a whole and removed when its runs are written:

    SHA-256 of the rest
    {"schema_version": 1, "runs": {IDENTITY: {"epochs": epochs done, "metrics": of the last epoch}, …}}
    an archive with the tensors, see `models.saved_states`

A run is found by its identity, so that stacks may be formed differently after a restart. Of two states of a run the
later one counts. A damaged file is named in a warning and otherwise ignored.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from mlpexp.runtime.safe_files import read_bytes
from mlpexp.store import atomic_files
from mlpexp.store.file_names import STATES

SUFFIX = ".state"
SCHEMA_VERSION = 1
MAX_BYTES = 2**33
log = logging.getLogger(__name__)


class SavedRun(BaseModel, frozen=True):
    """The entry of a run in the header of a file."""

    epochs: Annotated[int, Field(gt=0, le=2**53, strict=True)]
    metrics: dict[str, float | None]
    """of the last epoch; None where a value is not finite"""


class Header(BaseModel, frozen=True):
    """The line of JSON at the start of a file."""

    schema_version: int
    runs: dict[str, SavedRun]
    """by identity"""


def write(sweep: Path, history: Mapping[str, tuple[int, Mapping[str, float]]], archive: bytes) -> None:
    """Save a stack, in place of what was saved of the same runs before.

    Args:
        history: of each run, by its identity, the epochs done and the metrics of the last one.
    """
    runs = {
        identity: {"epochs": epochs, "metrics": {k: v if math.isfinite(v) else None for k, v in metrics.items()}}
        for identity, (epochs, metrics) in history.items()
    }
    header = json.dumps({"schema_version": SCHEMA_VERSION, "runs": runs}, allow_nan=False)
    content = header.encode() + b"\n" + archive
    seal = hashlib.sha256(content).hexdigest().encode()
    name = hashlib.sha256("".join(sorted(runs)).encode()).hexdigest()[:20] + SUFFIX
    atomic_files.make_directory(sweep / STATES)
    # a state takes the place of the one before, so it must be on the disk before that is gone
    atomic_files.write(sweep / STATES / name, seal + b"\n" + content, durable=True)


def read(sweep: Path) -> Iterator[tuple[Path, Header, bytes]]:
    """Path, header and archive of each file that is whole.

    Raises:
        UserError: there is a link or something else that is no regular file, or the system refuses to read one.
    """
    folder = sweep / STATES
    atomic_files.refuse_link(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix != SUFFIX or path.name.startswith("."):
            continue
        try:
            content = read_bytes(path, MAX_BYTES, follow=False)
        except FileNotFoundError:
            continue  # its stack has just been written
        try:
            seal, _, content = content.partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != seal:
                raise ValueError("its checksum does not match")
            header, _, archive = content.partition(b"\n")
            checked = Header.model_validate_json(header)
            if checked.schema_version != SCHEMA_VERSION:
                raise ValueError(f"schema version {checked.schema_version}; this mlpexp knows {SCHEMA_VERSION}")
        except ValueError as error:
            warn(path, error)
            continue
        yield path, checked, archive


def saved_runs(sweep: Path) -> dict[str, SavedRun]:
    """The saved runs by identity, without their tensors."""
    runs: dict[str, SavedRun] = {}
    for _, header, _ in read(sweep):
        for identity, run in header.runs.items():
            if identity not in runs or runs[identity].epochs < run.epochs:
                runs[identity] = run
    return runs


def remove(sweep: Path, ended: Iterable[str]) -> None:
    """Remove the states of runs that have ended, by identity; a file that holds another run's state stays."""
    if not (sweep / STATES).is_dir():
        return
    ended = set(ended)
    _remove_files(sweep, lambda runs: runs <= ended)
    with suppress(OSError):  # not empty
        (sweep / STATES).rmdir()


def keep_only(sweep: Path, unfinished: Collection[str]) -> None:
    """Remove the states of all runs but these, by identity, and temporary files of killed writers."""
    if (sweep / STATES).is_dir():
        _remove_files(sweep, lambda runs: runs.isdisjoint(unfinished))
        clean(sweep)


def _remove_files(sweep: Path, is_over: Callable[[KeysView[str]], bool]) -> None:
    """Remove the files for whose identities `is_over` is true."""
    for path, header, _ in read(sweep):
        if is_over(header.runs.keys()):
            path.unlink(missing_ok=True)


def clean(sweep: Path) -> None:
    """Remove temporary files of killed writers; no process may be training in this sweep."""
    if (sweep / STATES).is_dir() and not (sweep / STATES).is_symlink():
        atomic_files.clean(sweep / STATES)
        with suppress(OSError):  # not empty
            (sweep / STATES).rmdir()


def warn(path: Path, error: Exception) -> None:
    """Log once per file that it is damaged."""
    _warn(path, " ".join(str(error).split())[:200])


@cache
def _warn(path: Path, reason: str) -> None:
    log.warning("%s is damaged (%s); its runs train from their beginning", path, reason)
