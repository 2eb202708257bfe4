"""Standard output and error that never end a program.

Errors of writing (closed pipe, full device, closed terminal) and characters that the terminal's encoding lacks do not
raise: training continues, and the program reports a full device once at its end.
"""

import codecs
import errno
import io
import logging
import os
import select
import sys
from pathlib import Path
from typing import Any

STREAMS = (("stdout", 1), ("stderr", 2))
NO_READER = (errno.EPIPE, errno.ECONNRESET)
# characters of our texts, for encodings that lack them; others are written as escapes
PLAIN = {
    "±": "+/-",
    "×": "x",
    "·": ".",
    "…": "...",
    "–": "-",
    "—": "-",
    "→": "->",
    "μ": "mu",
    "µ": "mu",
    "σ": "sigma",
    "≥": ">=",
    "≤": "<=",
    "“": '"',
    "”": '"',
    "’": "'",
}
_ERRORS = "mlpexp.plain"
_failures: dict[int, OSError] = {}


def protect() -> None:
    """Make `sys.stdout` and `sys.stderr` ignore errors from now on; a second call changes nothing."""
    codecs.register_error(_ERRORS, _plain)
    for name, number in STREAMS:
        stream = getattr(sys, name)
        if stream is None:  # closed before the start; a file opened later would get its number and be printed into
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
        elif _is_standard(stream, number):
            buffer = io.BufferedWriter(_TolerantFile(number, "w", closefd=False))
            wrapped = io.TextIOWrapper(
                buffer,
                stream.encoding,
                _ERRORS,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, wrapped)


def failure() -> OSError | None:
    """The first error of writing to standard output, after a flush; None where all was written or the reader left."""
    sys.stdout.flush()
    error = _failures.get(1)
    return None if error is None or error.errno in NO_READER else error


def write_result(text: str) -> None:
    """Print a program's result, as opposed to what it says about its progress.

    The encoding is UTF-8 whatever the terminal's, as in a file; nothing is replaced.

    Raises:
        OSError: it could not be written; not where the reader has left.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # a text stream without bytes, e.g. in a notebook
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        buffer.write(text.encode())
    if error := failure():
        raise OSError(error.errno, f"standard output cannot be written: {error.strerror}")


def _is_standard(stream: Any, number: int) -> bool:
    """Whether it is Python's stream of this file descriptor, and has not been replaced."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    try:
        return stream.fileno() == number and not isinstance(getattr(stream.buffer, "raw", None), _TolerantFile)
    except (OSError, ValueError):
        return False


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replacement of characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end


class _TolerantFile(io.FileIO):
    """A file descriptor that becomes the null device at the first error."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # a non-blocking pipe is full
                select.select([], [self.fileno()], [])
        except OSError as error:
            _failures.setdefault(self.fileno(), error)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # libraries and workers may write there, too
            os.close(null)
            return len(data)
        return written


def ignore_unwritable_logs(directory: Path) -> None:
    """Log files in `directory` lose lines that cannot be written, e.g. on a full disk.

    `logging` prints a traceback for each, in which the one line that says what is wrong would be lost.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(directory):
            handler.handleError = lambda record: None  # type: ignore[method-assign]
