"""`weights.bin`: with `record=table` the weights of all runs, one checkpoint after another.

A run's line in the table gives the position of its checkpoint. Weights are written before lines, so that bytes which a
crash has left at the end of the file belong to no run and are ignored.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, file_names, run_table

MAX_FILE, MAX_CHECKPOINT = 2**42, 2**33  # bytes
_ENTRY = re.compile(r"(\S+) (\d{1,13}) (\d{1,10}) ([0-9a-f]{64})")


class Weights(NamedTuple):
    """A run's checkpoint without the state of its optimizer."""

    checkpoint: str  # `file_names.BEST` or `LAST`: the one that the run was tested with
    content: bytes


def append(directory: Path, weights: Sequence[Weights]) -> list[str]:
    """Add checkpoints; they are on the disk when this returns.

    Returns:
        For each the entry `file_names.WEIGHTS` of its line in the table.
    """
    path = directory / file_names.WEIGHTS
    try:
        with safe_files.open_regular(path, MAX_FILE, follow=False) as file:
            offset = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        offset = 0
    entries = []
    for name, content in weights:
        entries.append(f"{name} {offset} {len(content)} {hashlib.sha256(content).hexdigest()}")
        offset += len(content)
    if weights:
        atomic_files.append(path, b"".join(content for _, content in weights), durable=True)
    return entries


def checkpoint_of(run: Path) -> str | None:
    """The name of the checkpoint that is kept of a run without a directory; None if there is none.

    Args:
        run: the directory that it would have.
    """
    entry = _entry(run)
    return None if entry is None else entry[1]


def read(checkpoint: Path) -> bytes | None:
    """The content of a checkpoint of a run without a directory; None if it is not kept.

    Args:
        checkpoint: the path that it would have.

    Raises:
        UserError: the file of weights is damaged.
    """
    run = checkpoint.parent.parent
    entry = _entry(run)
    if entry is None or run / entry[1] != checkpoint:
        return None
    sweep, _, offset, size, digest = entry
    path = sweep / file_names.WEIGHTS
    try:
        with safe_files.open_regular(path, MAX_FILE) as file:
            file.seek(offset)
            content = file.read(size) if size <= MAX_CHECKPOINT else b""
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, and has the weights of {run}; train the sweep again") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path} is damaged: the weights of {run} are not what was written; train the sweep again")
    return content


def is_in_table(run: Path) -> bool:
    """Whether a run without a directory has a line in a table."""
    return _files(run) is not None


def result_text(run: Path) -> str | None:
    """The content of `result.json` of a run without a directory; None if there is no such run."""
    place = _files(run)
    return None if place is None else place[1].get(file_names.RESULT)


def _entry(run: Path) -> tuple[Path, str, int, int, str] | None:
    place = _files(run)
    if place is None or (entry := place[1].get(file_names.WEIGHTS)) is None:
        return None
    match = _ENTRY.fullmatch(entry)
    if match is None or match[1] not in (file_names.BEST, file_names.LAST):
        raise UserError(f"{place[0] / file_names.TABLE}: the weights of {run} are listed as {entry[:80]!r}; remove it")
    return place[0], match[1], int(match[2]), int(match[3]), match[4]


def _files(run: Path) -> tuple[Path, Mapping[str, str]] | None:
    """The sweep of a run, and the run's files in its table."""
    for sweep in list(run.parents)[:2]:  # a name may have two parts
        table = run_table.by_name(sweep, (file_names.WEIGHTS, file_names.RESULT))
        if (files := table.get(run.relative_to(sweep).as_posix())) is not None:
            return sweep, files
    return None
