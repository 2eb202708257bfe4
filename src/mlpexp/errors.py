"""The two ways in which mlpexp says no; scripts turn them into one line and an exit code."""


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


class Interrupted(Exception):
    """Training was stopped from outside, in order: what was finished is kept.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM or SIGHUP.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class RunsFailed(Exception):
    """Some runs of a sweep failed; the others are done (exit code 1)."""
