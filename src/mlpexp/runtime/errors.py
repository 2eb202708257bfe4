"""The ways in which mlpexp ends before its time; scripts turn them into one line and an exit code."""

import errno

# the disk, not what was asked of it: every run that comes next would meet the same
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENFILE, errno.EMFILE)


class UserError(Exception):
    """What was given cannot be done: says what was given, what is allowed, how to mend it (exit code 2)."""


class ConfigError(UserError):
    """All problems of one configuration at once.

    Attributes:
        problems: one line each, never empty.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Interrupted(BaseException):
    """Training was stopped from outside, in order: what was finished is kept.

    Like `KeyboardInterrupt` no `Exception`: nobody's `except Exception` on the way may take it for a run's failure.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM or SIGHUP.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class RunsFailed(Exception):
    """Some runs of a sweep failed; the others are done (exit code 1)."""


class StorageError(Exception):
    """The disk is full or broken, so that nothing further can be written; what was finished is kept (exit code 1)."""


def is_storage(error: BaseException) -> bool:
    """Whether it is the disk's fault, and not one run's."""
    return isinstance(error, OSError) and error.errno in _STORAGE


def first_line(error: BaseException | Warning) -> str:
    """An error's message in one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def described(error: BaseException) -> str:
    """E.g. `ValueError: no such thing`."""
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__


def sentence(error: OSError) -> str:
    """E.g. `No space left on device: multirun/study/results.csv`."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
