"""Directories named by date and time: each process makes its own, also when several start in one second."""

import contextlib
import os
from datetime import datetime
from itertools import count
from pathlib import Path

_taken: dict[str, str] = {}  # the directory that this process has made, by the name that it asked for


def named(root: str, started: datetime) -> str:
    """`ROOT/DATE/TIME`, with a number behind it once `claim` had to add one."""
    asked = f"{root}/{started:%Y-%m-%d}/{started:%H-%M-%S}"
    return _taken.get(asked, asked)


def claim(asked: str) -> str:
    """Make the directory, or the first of `asked-2`, `asked-3`, ... that no other process has made."""
    if asked in _taken.values():
        return asked
    Path(asked).parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = asked if number == 1 else f"{asked}-{number}"
        with contextlib.suppress(FileExistsError):
            Path(path).mkdir()
            break
    _taken[asked] = path
    return path


def release() -> None:
    """Remove what this process has made and not used, after a refusal, say."""
    for path in _taken.values():
        with contextlib.suppress(OSError):  # it is in use, or something else is there
            os.removedirs(path)
    _taken.clear()
