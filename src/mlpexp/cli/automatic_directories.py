"""Directories named by date and time: each process makes its own, also when several start in one second."""

import contextlib
import os
from datetime import datetime
from itertools import count
from pathlib import Path

_taken: dict[str, str] = {}  # the directory that this process has made, by the name that it asked for


def named(root: str, started: datetime) -> str:
    """`ROOT/DATE/TIME`, with a number behind it once `claim` had to add one."""
    name = f"{root}/{started:%Y-%m-%d}/{started:%H-%M-%S}"
    return _taken.get(name, name)


def claim(name: str) -> str:
    """Make the directory, or the first of `asked-2`, `asked-3`, ... that no other process has made."""
    if name in _taken.values():
        return name
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            Path(path).mkdir()
            break
    _taken[name] = path
    return path


def release() -> None:
    """Remove what this process has made and not used, after a refusal, say."""
    for path in _taken.values():
        with contextlib.suppress(OSError):  # it is in use, or something else is there
            os.removedirs(path)
    _taken.clear()
