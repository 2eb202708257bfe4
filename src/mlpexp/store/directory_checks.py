"""Checks of a directory before a sweep or a run is written there."""

import os
from collections.abc import Iterable
from pathlib import Path

from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names

MAX_NAME = 255  # bytes, in all common file systems


def check_place(directory: Path, key: str) -> None:
    """Raise `UserError` if `directory`, the value of `key`, is a file, or cannot be created or written to."""
    path = directory.absolute()
    try:
        existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
    except (OSError, ValueError) as error:  # a NUL, say
        raise UserError(f"{key}: {error}; give another directory") from None
    longest = max(len(os.fsencode(part)) for part in path.parts)
    if longest > MAX_NAME:
        raise UserError(f"{key} has a name of {longest} bytes, {MAX_NAME} are possible; choose a shorter one")
    if not existing.is_dir():
        raise UserError(f"{key}={directory}: {existing} is a file; give another directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{key}={directory}: {existing} cannot be written to; give another directory")


def check_sweep_directory(directory: Path) -> None:
    """Raise `UserError` if a sweep cannot be written there, e.g. because it holds other files."""
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; choose another name=…, or give its target as hydra.sweep.dir")
    check_place(directory, "hydra.sweep.dir")
    if directory.is_dir():
        names = {path.name for path in directory.iterdir()}
        if names and not names & file_names.OF_A_SWEEP:
            raise UserError(
                f"{directory} is not empty and holds no sweep; choose another name=… (nothing in it was changed)"
            )


def outside_of(sweep: Path, places: Iterable[str]) -> str | None:
    """The first of the directories of a sweep's runs that is outside of the sweep's; None if there is none."""
    base = os.path.normpath(sweep)
    inside = f"{base}{os.sep}"
    for place in places:  # texts, because there may be a hundred thousand
        if place.startswith(inside) and f"{os.sep}.." not in place:
            continue
        path = os.path.normpath(place)
        if path != base and not path.startswith(inside):
            return path
    return None


def check_unused(directory: Path, *, under_way: bool = False) -> None:
    """
    Args:
        under_way: the run may have its metrics so far there, as a stack writes them while it trains.

    Raises:
        UserError: a run has been trained in `directory`.
    """
    for name in (file_names.RESULT, file_names.METRICS, file_names.LAST, file_names.BEST):
        if os.path.lexists(f"{directory}/{name}") and not (under_way and name == file_names.METRICS):
            raise UserError(
                f"{directory} holds a run already ({name}); choose another directory, "
                f"or train it further with resume={directory}"
            )
