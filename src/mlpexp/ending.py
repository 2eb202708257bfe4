"""How a script without Hydra ends: an exit code, and one line on stderr for what went wrong (with Hydra: `app.run`)."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mlpexp.errors import UserError

FULL_ERROR = "HYDRA_FULL_ERROR"  # the variable that asks for tracebacks, as with train.py


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and leave: 0 done, 1 failed, 2 the user's error, 130 interrupted."""
    code = 0
    try:
        main()
        sys.stdout.flush()
    except SystemExit:  # argparse's, for --help and for a wrong option
        raise
    except BaseException as error:  # every way out ends in a code
        if os.environ.get(FULL_ERROR) == "1":
            traceback.print_exception(error)
        code = _told(error)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _told(error: BaseException) -> int:
    def say(line: str) -> None:
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)

    match error:
        case KeyboardInterrupt():
            say("interrupted")
            return 130
        case BrokenPipeError():
            return 0
        case UserError():
            for line in str(error).splitlines():
                say(line)
            return 2
        case OSError():
            say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            return 1
    hint = "" if os.environ.get(FULL_ERROR) == "1" else f" (set {FULL_ERROR}=1 for the traceback)"
    say(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}{hint}")
    return 1
