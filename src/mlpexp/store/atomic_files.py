"""Atomic writing: a file is written under a temporary name beside the target, then renamed, so it is whole or absent.

The directory of the target is opened without following a symbolic link, and a file is never changed in place, so that
neither a symbolic nor a hard link leads the writer to another file. Nothing is buffered in this process: if it is
killed, no written file is lost. If the machine loses power, some files may be lost, because waiting for the disk after
each one would take longer than training a small network; the checksums of a run show it, and it is trained again. Only
`durable` files, which cannot be made again, are synchronised with the disk.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlpexp.runtime import portable
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import read_bytes

SUFFIX = ".partial"


Content = bytes | str | Iterable[str]


def write(path: Path, content: Content, *, durable: bool = False) -> None:
    """Make `path` hold `content`; a reader, or a crash at any moment, sees the old file or the new one.

    Args:
        content: if it is an iterable of pieces, they are taken one by one and never held in memory as a whole.
        durable: return only when the disk has it.

    Raises:
        UserError: the directory of `path` is a symbolic link.
    """
    with _opened(path.parent) as directory:
        _replace(path.parent, directory, path.name, content, durable=durable)


def write_all(directory: Path, files: Mapping[str, bytes | str]) -> None:
    """`write` several files of one directory, in their order; the directory is opened once.

    Raises:
        UserError: it is a symbolic link.
    """
    with _opened(directory) as handle:
        for name, content in files.items():
            _replace(directory, handle, name, content)


def _replace(folder: Path, directory: int, name: str, content: Content, *, durable: bool = False) -> None:
    """Write one file of `folder`, which is open as `directory`."""
    temporary = f".{name[:200]}.{os.getpid()}{SUFFIX}"
    try:
        # os-level calls: a sweep writes ten thousand small files
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(temporary, flags, 0o666, dir_fd=directory)
        _fill(handle, content, durable=durable)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        if durable:
            portable.sync(directory)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error says more
            os.unlink(temporary, dir_fd=directory)
        if isinstance(error, IsADirectoryError):
            raise UserError(f"{folder / name} is a directory where a file should be; move it away") from error
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(folder / name), None  # the name that a person knows
        raise


def append(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Append `content` to a file of mlpexp, which is created if it is missing.

    Raises:
        UserError: the file, or its directory, is a symbolic link, or the file is not a regular one.
    """
    detach(path)
    with _opened(path.parent) as directory:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(path.name, flags, 0o666, dir_fd=directory)
            _fill(handle, content, durable=durable)
        except OSError as error:
            error.filename = str(path)
            raise


def _fill(handle: int, content: Content, *, durable: bool) -> None:
    """Write `content` to an open file and close it."""
    try:
        for piece in [content] if isinstance(content, bytes | str) else content:
            write_whole(handle, piece.encode() if isinstance(piece, str) else piece)
        if durable:
            portable.sync(handle)
    finally:
        os.close(handle)


def detach(path: Path) -> None:
    """Replace a file that has several hard links by a copy, before it is changed in place.

    Raises:
        UserError: it is a symbolic link, or not a regular file.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    refuse_link(path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file; move it away")
    if status.st_nlink > 1:
        write(path, read_bytes(path, max(status.st_size, 1), follow=False))


def make_directory(path: Path, *, parents: bool = False) -> None:
    """Create a directory unless it exists.

    Raises:
        UserError: it is a symbolic link, or a file.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except FileExistsError:
        if not path.is_symlink():
            raise UserError(f"{path} is a file where a directory should be; move it away") from None
    refuse_link(path)


def clean(directory: Path) -> None:
    """Remove what a killed writer has left in `directory`; no other process may be writing there."""
    for name in os.listdir(directory):  # noqa: PTH208 - ten times faster, and there are thousands
        if name.startswith(".") and name.endswith(SUFFIX):
            (directory / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            refuse_link(directory)
        raise
    try:
        yield handle
    finally:
        os.close(handle)


def write_whole(handle: int, content: bytes) -> None:
    """Write all of `content` to an open file; the system may take it in several parts."""
    data = memoryview(content)
    while data:
        data = data[os.write(handle, data) :]


def refuse_link(path: Path) -> None:
    """Raises `UserError`: it is a symbolic link."""
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link; nothing is written through it: move it away") from None
