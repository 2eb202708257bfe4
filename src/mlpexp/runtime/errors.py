"""Exceptions that end a program with one line and an exit code, and texts of errors."""

import errno
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

# errors of the disk or the process's limits: every later run would fail in the same way
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENFILE, errno.EMFILE)
_PACKAGE = Path(__file__).parents[1]


class _ShortInNotebooks(BaseException):
    """An exception of which a notebook shows the message and the line of the user's code, without further frames."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in place of a traceback."""
        frames = traceback.extract_tb(self.__traceback__)
        users = list(takewhile(lambda frame: not Path(frame.filename).is_relative_to(_PACKAGE), frames))
        message = f"{type(self).__name__}: {self}"
        if not users or not users[-1].line:
            return [message]
        call = users[-1]
        file = f"{call.filename}, " if Path(call.filename).is_file() else ""  # a cell has none
        return [f"{file}line {call.lineno}: {call.line}", message]


class Error(_ShortInNotebooks, Exception):
    """Every error that mlpexp itself raises; the message is what the command line prints."""


class UserError(Error):
    """An error of the user; the message says what was given, what is allowed, how to fix it (exit code 2)."""


class ConfigError(UserError):
    """All problems of one configuration.

    Attributes:
        problems: one line each, never empty.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Stopped(_ShortInNotebooks, KeyboardInterrupt):
    """A call from Python was stopped by Ctrl-C or a notebook's stop button; finished runs are kept."""


class Interrupted(BaseException):
    """Training was stopped by a signal; finished runs are kept.

    Not an `Exception`, like `KeyboardInterrupt`: no `except Exception` may take it for the failure of a run.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM or SIGHUP.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class RunsFailed(Error):
    """Some runs of a sweep failed; the others are done (exit code 1).

    Attributes:
        directory: of the sweep, where a Python program has called `mlpexp.sweep`.
    """

    directory: Path | None = None


class StorageError(Error):
    """The disk is full or broken, so that nothing further can be written; finished runs are kept (exit code 1)."""


def is_storage(error: BaseException) -> bool:
    """Whether the disk or a limit of the process is the cause, and not one run."""
    return isinstance(error, OSError) and error.errno in _STORAGE


@contextmanager
def writing() -> Iterator[None]:
    """In the block an error of the disk, or a place that cannot be written to, becomes a `StorageError`."""
    try:
        yield
    except OSError as error:
        if not (is_storage(error) or isinstance(error, PermissionError)):
            raise
        raise StorageError(f"{os_error_text(error)}; make room, or choose a place that can be written to") from error


def first_line(error: BaseException | Warning) -> str:
    """An error's message on one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def described(error: BaseException) -> str:
    """Type and message, e.g. `ValueError: no such thing`."""
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__


def did_you_mean(
    name: object, names: Iterable[str], otherwise: str = "", *, prefix: str = "", suffix: str = "", cutoff: float = 0.6
) -> str:
    """`did you mean NAME?` with the most similar name; `otherwise` where none is similar.

    Args:
        prefix: before the name; `suffix` after it.
        cutoff: least similarity, see `difflib.get_close_matches`.
    """
    close = get_close_matches(str(name), list(names), 1, cutoff)
    return f"did you mean {prefix}{close[0]}{suffix}?" if close else otherwise


def os_error_text(error: OSError) -> str:
    """E.g. `No space left on device: multirun/study/results.csv`."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
