"""Ctrl-C, SIGTERM and SIGHUP become one exception, which every layer above knows how to end in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mlpexp.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}


def _stop(number: int, frame: FrameType | None) -> None:
    # whoever is impatient must not tear the orderly end
    for other in EXIT_CODES:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(f"stopped by {signal.Signals(number).name}", EXIT_CODES[signal.Signals(number)])


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the first of these signals raises `Interrupted`; further ones are ignored."""
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in EXIT_CODES}
    arm()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def arm() -> None:
    """Install the handlers; again once Lightning has put its own over them."""
    for number in EXIT_CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _stop)
