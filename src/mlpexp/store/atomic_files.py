"""Files that are whole or not there: written under a temporary name beside the target, then renamed.

Nothing is kept in a buffer of ours, so a process that is killed loses no file it has written. A machine that loses
its power may: waiting for the disk after each file would cost more than training a small network. What is torn
then is found by its checksum and trained again, so only `durable` files, which cannot be made anew, are waited for.
"""

import contextlib
import os
from pathlib import Path

from mlpexp.runtime import portable

SUFFIX = ".partial"


def write(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Make `path` hold `content`; a reader, or a crash at any moment, sees the old file or the new one.

    The temporary file lies in the same directory, so that the rename stays inside one file system.

    Args:
        durable: return only when the disk has it.
    """
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}{SUFFIX}")
    try:
        # os-level calls: a sweep writes ten thousand small files
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            data = memoryview(content.encode() if isinstance(content, str) else content)
            while data:
                data = data[os.write(handle, data) :]
            if durable:
                portable.sync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        if durable:
            _sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the error that is on its way says more
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # the name that a person knows
        raise


def clean(directory: Path) -> None:
    """Remove what a writer that was killed has left in `directory`; nobody else may be writing there."""
    for name in os.listdir(directory):  # noqa: PTH208 - ten times faster, and there are thousands
        if name.startswith(".") and name.endswith(SUFFIX):
            (directory / name).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        portable.sync(handle)
    finally:
        os.close(handle)
