"""Exceptions that end a program with one line and an exit code, and texts of errors."""

import errno
from pathlib import Path

# errors of the disk or the process's limits: every later run would fail in the same way
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENFILE, errno.EMFILE)


class Error(Exception):
    """Every error that mlpexp itself raises; the message is what the command line prints."""


class UserError(Error):
    """What was given cannot be done; the message says what was given, what is allowed, how to fix it (exit code 2)."""


class ConfigError(UserError):
    """All problems of one configuration.

    Attributes:
        problems: one line each, never empty.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


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


def first_line(error: BaseException | Warning) -> str:
    """An error's message on one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def described(error: BaseException) -> str:
    """Type and message, e.g. `ValueError: no such thing`."""
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__


def sentence(error: OSError) -> str:
    """E.g. `No space left on device: multirun/study/results.csv`."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
