"""What is already there when a sweep starts: which runs are finished, torn, failed, and which are new.

Everything in a sweep's directory is data: names are compared, bytes are hashed, nothing is executed.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mlpexp import runs
from mlpexp.errors import UserError
from mlpexp.runs import Result

SET_ASIDE = ".set_aside"
# what a run's directory holds before its training has written anything
BEFORE_TRAINING = (".hydra", runs.LOG, runs.LOCK)
FINAL = ("ok", "diverged")


class State(Enum):
    """How a run's directory is found."""

    NEW = "new"
    DONE = "done"
    TORN = "torn"
    FAILED = "failed"


@dataclass
class Found:
    """One run as it is found: its directory, which may be one that an older spelling of it was given."""

    directory: Path
    state: State
    result: Result | None = None


@dataclass
class Survey:
    """All runs of a sweep as they are found, in the order of the grid."""

    found: list[Found] = field(default_factory=list)

    def count(self, state: State) -> int:
        return sum(one.state is state for one in self.found)


def survey(directories: Sequence[Path], identities: Sequence[str], known: dict[str, str], sweep: Path) -> Survey:
    """Look at the directory of each run.

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
    return Survey(found)


def look(directory: Path, identity: str) -> Found:
    """The state of one directory for the run of this identity.

    Raises:
        UserError: the directory's place is taken by a file, or by a link out of the tree.
    """
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; a run's directory must be a real one: move it away")
    try:
        names = set(os.listdir(directory))  # noqa: PTH208 - ten times faster, and there are thousands
    except FileNotFoundError:
        return Found(directory, State.NEW)
    except NotADirectoryError:
        raise UserError(f"{directory} is a file where a run's directory should be; move it away") from None
    if runs.RESULT not in names:
        return Found(directory, State.NEW if names <= set(BEFORE_TRAINING) else State.TORN)
    try:
        result = runs.read_result(directory)
    except UserError:
        return Found(directory, State.TORN)
    if result.identity != identity:
        return Found(directory, State.TORN)
    if result.status not in FINAL:
        return Found(directory, State.FAILED if result.status == "failed" else State.TORN)
    whole = all(_is_whole(directory / name, noted) for name, noted in result.files.items())
    return Found(directory, State.DONE, result) if whole else Found(directory, State.TORN)


def set_aside(found: Found, sweep: Path) -> Path:
    """Move a torn or failed run's directory out of the way, below the sweep's `.set_aside`; returns where."""
    shelf = sweep / SET_ASIDE
    shelf.mkdir(exist_ok=True)
    for number in range(10_000):
        place = shelf / f"{found.directory.name}-{number}"
        if not place.exists():
            found.directory.rename(place)
            return place
    raise UserError(f"{shelf} is full; delete what you do not need there")


def _is_whole(path: Path, noted: dict[str, int | str]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return noted == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
