"""One process per directory, by a lock that frees itself when its holder is killed."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpexp.errors import UserError
from mlpexp.runs import LOCK


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Keep `directory` for this process while the block runs.

    Raises:
        UserError: another process holds it; names its host and pid.
    """
    handle = take(directory)
    try:
        yield
    finally:
        os.close(handle)


def take(directory: Path) -> int:
    """Keep `directory` until the returned file descriptor is closed, at the latest when the process ends.

    Raises:
        UserError: another process holds it; names its host and pid.
    """
    handle = _open(directory / LOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise UserError(
            f"{directory} is in use by {holder}; wait until it has finished, or choose another directory"
        ) from None
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError:
        os.close(handle)
        raise
    return handle


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a symbolic link; nothing is written through it: move it away") from None
