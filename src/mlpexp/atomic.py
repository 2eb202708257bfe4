"""Files that are whole or not there: written under a temporary name beside the target, then renamed."""

import os
from pathlib import Path

SUFFIX = ".partial"


def write(path: Path, content: bytes | str) -> None:
    """Make `path` hold `content`; a reader, or a crash at any moment, sees the old file or the new one.

    The temporary file lies in the same directory, so that the rename stays inside one file system.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        # os-level calls: a sweep writes ten thousand small files
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            data = memoryview(content.encode() if isinstance(content, str) else content)
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
