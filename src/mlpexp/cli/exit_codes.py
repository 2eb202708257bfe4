"""Exit codes of the scripts, and one line on stderr for each problem."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mlpexp.runtime import fast_imports, output_streams
from mlpexp.runtime.errors import Interrupted, RunsFailed, StorageError, UserError, os_error_text
from mlpexp.runtime.shell_commands import program
from mlpexp.runtime.terminal import say

FULL_ERROR = "HYDRA_FULL_ERROR"  # the variable that asks for tracebacks

ExitLines = tuple[int, list[str]]  # an exit code and its lines


def wants_traceback() -> bool:
    return os.environ.get(FULL_ERROR) == "1"


def run(
    main: Callable[[], Any],
    *,
    verbose: bool | None = None,
    describe: Callable[[BaseException], ExitLines | None] = lambda error: None,
) -> NoReturn:
    """Call `main` and exit: 0 done, 1 failed, 2 the user's error, 130 interrupted, 143 terminated.

    Args:
        verbose: show tracebacks; by default when `HYDRA_FULL_ERROR=1`.
        describe: exit code and messages for further kinds of errors; None for others.
    """
    output_streams.protect()
    fast_imports.install()
    verbose = wants_traceback() if verbose is None else verbose
    code = 0
    try:
        _check_working_directory()
        main()
        if failure := output_streams.failure():
            say(f"{program()}: standard output was cut: {failure.strerror}; all else is done", error=True)
    except SystemExit:  # argparse's, for --help and for a wrong option, and those of a script itself
        raise
    except BaseException as error:  # every error ends in an exit code
        if verbose:
            traceback.print_exception(error)
        error = _interruption(error) or error
        code, lines = describe(error) or _exit_lines(error, verbose)
        for line in lines:
            say(f"{program()}: {line}", error=True)
    sys.exit(code)


def _interruption(error: BaseException) -> Interrupted | None:
    """The signal that has led to an error; None where another thing has, or the disk failed after the signal.

    A library whose objects are half changed when a signal interrupts it may raise an error of its own while it cleans
    up, as OmegaConf does.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [] if isinstance(error, OSError | StorageError) else [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Interrupted):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
    return None


def _check_working_directory() -> None:
    """Raises `UserError`: it has been deleted, which libraries answer with errors of their own."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the working directory has been deleted; change to one that exists, e.g. with cd") from None


def _exit_lines(error: BaseException, verbose: bool) -> ExitLines:
    match error:
        case Interrupted():
            return error.exit_code, [str(error)]
        case KeyboardInterrupt():
            return 130, ["interrupted"]
        case UserError():
            return 2, str(error).splitlines()
        case OSError():
            return 1, [os_error_text(error)]
        case RunsFailed() | StorageError():
            return 1, [str(error)]
    hint = "" if verbose else f" (set {FULL_ERROR}=1 for the traceback)"
    return 1, [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}{hint}"]
