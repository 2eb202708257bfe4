"""Printing to the terminal, with control characters shown as escapes, e.g. `\\x1b`.

Names of files, classes and columns are printed, and a control character in one could move the cursor, change colours
or the title, or hide text.
"""

import logging
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)

# C0 but for tab and new line, DEL, C1, line separators, and the marks that reverse the direction of text
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """The text with its control characters as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def counted(number: int, noun: str) -> str:
    """E.g. `1 run` or `1,080 runs`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def say(*lines: object, error: bool = False) -> None:
    """Print lines to standard output, or to standard error."""
    if is_library():
        log.log(logging.WARNING if error else logging.INFO, "%s", "\n".join(map(printable, lines)))
        return
    stream = sys.stderr if error else sys.stdout
    print("\n".join(map(printable, lines)), file=stream, flush=True)


def wrapped(sentence: object, indent: str = "") -> str:
    """The sentence broken between words at the terminal's width; where standard output is a file, one line.

    Lines after the first are commands: they stay whole, so that they can be copied.
    """
    first, *commands = str(sentence).split("\n")
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns, 40)
        first = textwrap.fill(
            first,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    else:
        first = f"{indent}{first}"
    return "\n".join([first, *(f"{indent}  {command}" for command in commands)])


_library: ContextVar[bool] = ContextVar("library", default=False)


def is_library() -> bool:
    """Whether another program calls mlpexp's functions: nothing is printed then, warnings are logged."""
    return _library.get()


@contextmanager
def as_library() -> Iterator[None]:
    """While the block runs, `is_library` is true in this thread."""
    token = _library.set(True)
    try:
        yield
    finally:
        _library.reset(token)


class TerminalFormatter(logging.Formatter):
    """For the log messages that a person sees."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
