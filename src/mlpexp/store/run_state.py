"""What is already there when a sweep starts: which runs are finished, torn, failed, and which are new.

Everything in a sweep's directory is data: names are compared, bytes are hashed, nothing is executed.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mlpexp.runtime.errors import UserError
from mlpexp.store import run_directory
from mlpexp.store.run_directory import Result

SET_ASIDE = ".set_aside"
# what a run's directory holds before its training has written anything
BEFORE_TRAINING = {".hydra", run_directory.LOG, run_directory.LOCK}


class State(Enum):
    """How a run's directory is found."""

    NEW = "new"
    DONE = "done"
    TORN = "torn"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


# what lies there is moved out of the way before the run is trained again
UNUSABLE = (State.TORN, State.FAILED, State.INTERRUPTED)


@dataclass
class Found:
    """One run as it is found: its directory, which may be one that an older spelling of it was given."""

    directory: Path
    state: State
    result: Result | None = None
    trained: bool = True
    """whether training has left anything there, beside a marker"""
    other: bool = False
    """it holds another run, which is done"""


def survey(directories: Sequence[Path], identities: Sequence[str], known: dict[str, str], sweep: Path) -> list[Found]:
    """Look at the directory of each run, in the order of the grid.

    Args:
        known: directory names by identity, from the manifest; a finished run is recognised under any name.
    """
    found = []
    for directory, identity in zip(directories, identities, strict=True):
        one = look(directory, identity)
        if one.state is not State.DONE and (name := known.get(identity)) and name != directory.name:
            elsewhere = sweep / name
            if elsewhere.parent == sweep and (other := look(elsewhere, identity)).state is State.DONE:
                one = other
        found.append(one)
    return found


def look(directory: Path, identity: str) -> Found:
    """The state of one directory for the run of this identity.

    Raises:
        UserError: the directory's place is taken by a file, or by a link out of the tree.
    """
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; a run's directory must be a real one: move it away")
    try:
        with os.scandir(directory) as found:
            entries = {entry.name: entry for entry in found}
    except FileNotFoundError:
        return Found(directory, State.NEW)
    except NotADirectoryError:
        raise UserError(f"{directory} is a file where a run's directory should be; move it away") from None
    if any(entry.is_symlink() for entry in entries.values()):  # nothing is written through a link
        return Found(directory, State.TORN)
    if run_directory.RESULT not in entries:
        return Found(directory, State.NEW if entries.keys() <= BEFORE_TRAINING else State.TORN)
    if not entries[run_directory.RESULT].is_file():
        return Found(directory, State.TORN)
    try:
        result = run_directory.read_result(directory)
    except UserError:
        return Found(directory, State.TORN)
    if result.identity != identity:
        return Found(directory, State.TORN, other=result.status in run_directory.FINAL)
    if result.status not in run_directory.FINAL:
        state = State.FAILED if result.status == "failed" else State.INTERRUPTED
        return Found(directory, state, trained=not entries.keys() <= {*BEFORE_TRAINING, run_directory.RESULT})
    whole = all(_is_whole(directory / name, noted) for name, noted in result.files.items())
    return Found(directory, State.DONE, result) if whole else Found(directory, State.TORN)


def set_aside(found: Found, sweep: Path) -> Path:
    """Move a run's directory out of the way, below the sweep's `.set_aside`; returns where.

    Raises:
        UserError: see `vacant`.
    """
    place = vacant(sweep / SET_ASIDE, found.directory.name)
    found.directory.rename(place)
    return place


def vacant(shelf: Path, name: str) -> Path:
    """A place on the shelf for what was called `name`.

    Raises:
        UserError: the shelf leads out of the tree, or is full.
    """
    check_shelf(shelf)
    shelf.mkdir(exist_ok=True)
    for number in range(10_000):
        if not os.path.lexists(place := shelf / f"{name}-{number}"):
            return place
    raise UserError(f"{shelf} is full; delete what you do not need there")


def check_shelf(shelf: Path) -> None:
    """
    Raises:
        UserError: it leads out of the tree.
    """
    if shelf.is_symlink():
        raise UserError(f"{shelf} is a symbolic link; nothing is moved through it: move it away")


def _is_whole(path: Path, noted: dict[str, int | str]) -> bool:
    try:
        # a marker is data, and may name anything: a device would be read for ever
        found = os.stat(path)  # noqa: PTH116 - faster, and there are thousands
        if found.st_size != noted.get("size") or not stat.S_ISREG(found.st_mode):
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == noted.get("sha256")
    except (OSError, ValueError):
        return False
