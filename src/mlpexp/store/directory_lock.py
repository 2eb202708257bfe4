"""One process per directory, by a file lock, which the system releases when the process ends."""

import errno
import os
import socket
import stat
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpexp.runtime import portable
from mlpexp.runtime.errors import UserError
from mlpexp.store.atomic_files import refuse_link
from mlpexp.store.file_names import LOCK

LOOKS, LOOK_S = 3, 0.01  # how often a lock is tried again, and after how long


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Lock `directory` for this process while the block runs.

    Raises:
        UserError: another process holds it; names its host and pid.
    """
    handle = take(directory)
    try:
        yield
    finally:
        release(handle)


def take(directory: Path) -> int:
    """Lock `directory` until its file descriptor, which is returned, is given to `release`, or the process ends.

    Raises:
        UserError: another process holds it; names its host and pid.
    """
    handle = _open(directory / LOCK, os.O_CREAT)
    _lock(handle, directory)
    try:
        sign(handle)
    except OSError:
        release(handle)
        raise
    return handle


def reserve(directory: Path) -> int | None:
    """As `take`, but nothing is written before `sign`; None if there is no lock file.

    Raises:
        UserError: another process holds it.
    """
    try:
        handle = _open(directory / LOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    _lock(handle, directory)
    return handle


def is_held(directory: Path) -> bool | None:
    """Whether a process keeps `directory`; None where the file system has no locks."""
    try:
        handle = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # there has never been a lock, or none that can be read
        return False
    try:
        locked = portable.lock(handle, shared=True)
        return None if locked is None else not locked
    finally:
        os.close(handle)


def sign(handle: int) -> None:
    """Write pid and host into the lock file, unless the file has several hard links."""
    if os.fstat(handle).st_nlink > 1:
        return
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def close_in_forks(handle: int) -> None:
    """Close this descriptor in forked processes: a lock lasts until the last process has closed it."""
    _held.add(handle)


def release(handle: int) -> None:
    """Close the descriptor, if this process has opened it."""
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


def release_with(owner: object, handle: int) -> None:
    """Release when `owner` is collected, at the end of `released`, or when the process ends."""
    _releases.append(weakref.finalize(owner, release, handle))


@contextmanager
def released() -> Iterator[None]:
    """At the end of the block, release the directories that `release_with` was called for in the block.

    Otherwise a lock lasts as long as its owner, which Hydra's objects keep until a garbage collection.
    """
    count = len(_releases)
    try:
        yield
    finally:
        for release_now in _releases[count:]:
            release_now()
        del _releases[count:]


_releases: list[weakref.finalize] = []
_held: set[int] = set()


def _forget() -> None:
    for handle in list(_held):
        release(handle)


portable.after_fork_in_child(_forget)


def _lock(handle: int, directory: Path) -> None:
    tries = 0
    while (locked := portable.lock(handle)) is False and tries < LOOKS:  # `is_held` of another process has it briefly
        time.sleep(LOOK_S)
        tries += 1
    if locked is False:
        signed = os.fstat(handle).st_nlink == 1
        holder = (os.read(handle, 200).decode(errors="replace").strip() if signed else "") or "another process"
        os.close(handle)
        raise UserError(f"{directory} is in use by {holder}; wait until it has finished, or choose another directory")
    close_in_forks(handle)


def _open(path: Path, flags: int = 0) -> int:
    try:
        handle = os.open(path, os.O_RDWR | flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        refuse_link(path)
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise UserError(f"{path} is no regular file; move it away") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path} is no regular file; move it away")
    return handle
