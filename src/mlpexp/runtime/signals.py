"""Ctrl-C, SIGTERM and SIGHUP raise `Interrupted`, so that every layer can save what is finished."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from mlpexp.runtime.errors import Interrupted

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
# Repeated signals during shutdown are ignored for this long. A later one is raised again, in case other code has
# caught the first.
REPEAT_S = 5.0
AGAIN_S = 0.02  # after which a signal is sent again whose exception Python has dropped


class _State:
    stopped_at: float | None = None
    deferring = 0
    pending: signal.Signals | None = None
    raised: signal.Signals = signal.SIGINT


_state = _State()


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, the first of these signals raises `Interrupted`; repeated ones are ignored.

    Python delivers signals to the main thread only; in any other (e.g. a dask worker's) this does nothing.
    """
    if not _is_main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in EXIT_CODES}
    if before[signal.SIGINT] is not _stop:  # the outermost of nested blocks; after it `_exit` may be at work again
        _state.stopped_at = None
    install_handlers()
    dropped = sys.unraisablehook
    sys.unraisablehook = partial(_unraisable, dropped)
    try:
        yield
    finally:
        sys.unraisablehook = dropped
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that arrives while the block runs raises at its end: for short work that must be complete."""
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
        if not _state.deferring and _state.pending is not None:
            number, _state.pending = _state.pending, None
            raise _interrupted(number)


@contextmanager
def blocked() -> Iterator[None]:
    """The system holds signals back while the block runs, also from processes that it starts; see `let_parent_stop`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def importing() -> Iterator[None]:
    """A signal that arrives while modules are imported is handled at the end of the block.

    A program that goes on after it, such as a notebook's kernel, could not import a library again of which it has half.
    One that `exit_at_once` ends need not wait.
    """
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in EXIT_CODES if _is_main_thread()}
    handled = {number: handler for number, handler in before.items() if callable(handler) and handler is not _exit}
    for number in handled:
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def let_parent_stop() -> None:
    """In a worker process started within `blocked`: Ctrl-C is handled by its parent, other signals simply end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)


def is_pending() -> bool:
    """Whether a signal has arrived that a `deferred` block holds back."""
    return _state.pending is not None


def install_handlers() -> None:
    """Install the handlers; called again after Lightning has replaced them."""
    _handle(_stop)


def exit_at_once() -> None:
    """Outside `interruptible`, a signal ends the program with its exit code and one line, never with a traceback.

    Repeated signals that arrive while a program that was stopped ends are ignored here, too.
    """
    _handle(_exit)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in EXIT_CODES if _is_main_thread() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: stay ignored
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_repeated():
        return
    if _is_called_by(_unraisable, frame):  # an exception from here would be dropped, too
        _send_again(signal.Signals(number))
        return
    _state.stopped_at = time.monotonic()
    if _state.deferring:
        _state.pending = signal.Signals(number)
    else:
        raise _interrupted(signal.Signals(number))


def _interrupted(number: signal.Signals) -> Interrupted:
    _state.raised = number
    return Interrupted(f"stopped by {number.name}", EXIT_CODES[number])


def _unraisable(otherwise: Callable[[Any], Any], dropped: Any) -> None:
    """Python drops exceptions raised in a finalizer, a garbage collector's or a C library's callback: signal again."""
    if not isinstance(dropped.exc_value, Interrupted):
        otherwise(dropped)
        return
    _send_again(_state.raised)


def _send_again(number: signal.Signals) -> None:
    """Send the main thread a signal until its exception is raised; may be called in a signal's handler."""
    _state.stopped_at, _state.raised = None, number
    _thread.start_new_thread(_send_until_raised, (number,))  # `threading` holds locks where a handler may interrupt it


def _send_until_raised(number: signal.Signals) -> None:
    main = threading.main_thread().ident
    assert main is not None
    time.sleep(AGAIN_S)
    while _state.stopped_at is None:
        signal.pthread_kill(main, number)
        if signal.getsignal(number) is not _stop:  # the block has ended
            break
        time.sleep(AGAIN_S)


def _is_called_by(function: Callable[..., Any], frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is function.__code__:
            return True
        frame = frame.f_back
    return False


def _is_repeated() -> bool:
    return _state.stopped_at is not None and time.monotonic() - _state.stopped_at < REPEAT_S


def _exit(number: int, frame: FrameType | None) -> None:
    if _is_repeated():
        return
    when = " before anything was started" if _state.stopped_at is None else ""
    _state.stopped_at = time.monotonic()  # a second signal may arrive before the last line
    script = os.path.basename(sys.argv[0])  # noqa: PTH119 - nothing is imported in a handler
    os.write(2, f"{script}: stopped by {signal.Signals(number).name}{when}\n".encode())
    os._exit(EXIT_CODES[signal.Signals(number)])


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
