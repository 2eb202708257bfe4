"""Writes the report of a sweep again, whenever its results have grown, while a process trains it."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlpexp.report.build_report import WrittenReport
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, sweep_activity

POLL_S = 1.0
MIN_WAIT_S = 10.0
MIN_WAIT_RATIO = 10  # of the wait to the time that the report took


def watch(
    directories: Sequence[Path], build: Callable[[], WrittenReport], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[WrittenReport]:
    """Yield a report at once, and again whenever the results have grown, until no process trains one of the sweeps.

    Where the file system has no locks, which would show that, it ends when no planned run is missing.

    Args:
        build: writes one.

    Raises:
        UserError: a directory is neither sweep nor run; a sweep that has begun and has no results so far is waited for.
    """
    reported: list[tuple[int, int] | None] = []
    missing: int | None = None
    due = 0.0
    while True:
        trained = {sweep_activity.is_in_use(directory) for directory in directories}
        has_ended = trained == {False}
        states = [_state(directory / file_names.RESULTS) for directory in directories]
        if states == reported and (has_ended or (True not in trained and missing == 0)):
            return
        if states == reported or (time.monotonic() < due and not has_ended):
            sleep(POLL_S)
            continue
        started = time.monotonic()
        try:
            report = build()
        except UserError:
            if has_ended or all(states) or not all(_has_begun(directory) for directory in directories):
                raise
        else:
            yield report
            missing = report.missing
            if has_ended:
                return
        reported = states
        due = time.monotonic() + max(MIN_WAIT_S, MIN_WAIT_RATIO * (time.monotonic() - started))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _has_begun(directory: Path) -> bool:
    return any((directory / name).exists() for name in file_names.OF_A_SWEEP)
