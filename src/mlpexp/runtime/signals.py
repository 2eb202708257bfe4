"""Ctrl-C, SIGTERM and SIGHUP become one exception, which every layer above knows how to end in order."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mlpexp.runtime.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
# whoever is impatient must not tear the orderly end; but should somebody's code have swallowed the first signal,
# a later one gets through
PATIENCE_S = 5.0


class _State:
    stopped_at: float | None = None
    deferring = 0
    pending: signal.Signals | None = None


_state = _State()


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state.stopped_at is not None and now - _state.stopped_at < PATIENCE_S:
        return
    _state.stopped_at = now
    if _state.deferring:
        _state.pending = signal.Signals(number)
    else:
        raise _interrupted(signal.Signals(number))


def _interrupted(number: signal.Signals) -> Interrupted:
    return Interrupted(f"stopped by {number.name}", EXIT_CODES[number])


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the first of these signals raises `Interrupted`; those that follow at once are ignored.

    In a thread that is not the main one (a dask worker's, say) no signal is ever heard, and nothing changes.
    """
    if not _hears():
        yield
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in EXIT_CODES}
    arm()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before[signal.SIGINT] is not _stop:  # the outermost of several
            _state.stopped_at = None


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes while the block runs is heard at its end: for what takes a moment and should be whole."""
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
        if not _state.deferring and _state.pending is not None:
            number, _state.pending = _state.pending, None
            raise _interrupted(number)


def at_once() -> None:
    """From a script's first line on, while there is nothing to end in order: no traceback out of half an import."""
    for number in EXIT_CODES if _hears() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    script = os.path.basename(sys.argv[0])  # noqa: PTH119 - nothing is imported in a handler
    os.write(2, f"{script}: stopped by {signal.Signals(number).name} while nothing was under way\n".encode())
    os._exit(EXIT_CODES[signal.Signals(number)])


def arm() -> None:
    """Install the handlers; again once Lightning has put its own over them."""
    for number in EXIT_CODES if _hears() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _stop)


def _hears() -> bool:
    return threading.current_thread() is threading.main_thread()
