"""Reads files that may be anything: bounded in size, never blocking, regular files only.

A missing file raises `FileNotFoundError`, as `open` does. Every other obstacle says what it is: `NotRegularFile` for a
directory, FIFO, socket, device, link loop or a file that is too large, and `UnreadableFile` where the system refuses to
read. Errors of the disk itself (EIO, ENOSPC, ...) are passed on as `OSError`, since they concern every other file too.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from mlpexp.runtime.errors import UserError, is_storage

MIB = 2**20
LIMIT = 64 * MIB
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class NotRegularFile(UserError):
    """There is something, but no file that can be read as data."""


class UnreadableFile(UserError):
    """The operating system refuses to read the file; its content may be perfectly sound."""


class DamagedFile(UserError):
    """The content is not what was written, or never was of this format."""


def open_regular(path: str | Path, limit: int = LIMIT, *, follow: bool = True) -> BinaryIO:
    """A regular file of at most `limit` bytes, opened for reading.

    Args:
        follow: read through a symbolic link in the last component of `path`.

    Raises:
        FileNotFoundError: there is nothing.
        NotRegularFile: a directory, FIFO, socket, device, link loop, a link with `follow=False`, or too large.
        UnreadableFile: the operating system refuses.
        OSError: the disk fails.
    """
    handle, _ = _opened(path, limit, follow=follow)
    try:
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, limit: int = LIMIT, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes; arguments and errors as for `open_regular`."""
    handle, size = _opened(path, limit, follow=follow)
    try:  # os-level calls: a sweep reads ten thousand small files
        content = os.read(handle, size + 1)
        if not size or len(content) != size:  # files of /proc and /sys state a size of 0
            while len(content) <= limit and (more := os.read(handle, limit + 1 - len(content))):
                content += more
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        os.close(handle)
    if len(content) > limit:
        raise _too_large(path, limit + 1, limit)
    return content


def read_text(
    path: str | Path, limit: int = LIMIT, *, follow: bool = True, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """As `read_bytes`, decoded.

    Raises:
        UnicodeDecodeError: the bytes are no text of this encoding.
    """
    return read_bytes(path, limit, follow=follow).decode(encoding, errors)


def is_regular(path: str | Path, *, follow: bool = True) -> bool:
    """Whether a regular file is there.

    Raises:
        UnreadableFile: the operating system does not say.
    """
    try:
        return stat.S_ISREG(Path(path).stat(follow_symlinks=follow).st_mode)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _MISSING:
            return False
        if isinstance(explained := _explained(path, error), NotRegularFile):
            return False
        raise explained from error


def _opened(path: str | Path, limit: int, *, follow: bool) -> tuple[int, int]:
    """The handle of `open_regular`, and the size that the file states."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _explained(path, error) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularFile(f"{path} is no regular file: it is {_kind(status.st_mode)}; move it away")
        if status.st_size > limit:
            raise _too_large(path, status.st_size, limit)
    except BaseException:
        os.close(handle)
        raise
    return handle, status.st_size


def _explained(path: str | Path, error: OSError | ValueError) -> Exception:
    """The exception to raise for an error of a system call with `path`."""
    if not isinstance(error, OSError):  # a NUL in the name
        return NotRegularFile(f"{str(path)!r} is no name of a file ({error})")
    if error.errno in _MISSING:
        return FileNotFoundError(error.errno, error.strerror, str(path))
    if error.errno == errno.ELOOP:
        return NotRegularFile(f"{path} is a symbolic link that is not followed; replace it by the file itself")
    if error.errno == errno.ENXIO:
        return NotRegularFile(f"{path} is no regular file: it is a socket or a device; move it away")
    if is_storage(error):
        return error
    return UnreadableFile(f"{path} cannot be read ({error.strerror or error}); make it readable and try again")


def _too_large(path: str | Path, size: int, limit: int) -> NotRegularFile:
    return NotRegularFile(
        f"{path} has {'more than ' if size == limit + 1 else ''}{size / MIB:,.0f} MiB, "
        f"at most {limit / MIB:,.0f} MiB are read; give a smaller file"
    )


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a directory", stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")
