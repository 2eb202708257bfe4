"""A report that is made again and again while its sweep trains."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlpexp.report.build_report import Written
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names

POLL_S = 1.0
EVERY_S = 10.0  # at most so often
SHARE = 10  # waiting takes at least so many times as long as making a report


def watch(
    directories: Sequence[Path], build: Callable[[], Written], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Written]:
    """A report at once and whenever the results have grown, until no planned run is missing.

    Args:
        build: makes one.

    Raises:
        UserError: a directory is neither sweep nor run; a sweep that has begun and has no results so far is waited for.
    """
    shown: list[tuple[int, int] | None] = []
    while True:
        found = [_state(directory / file_names.RESULTS) for directory in directories]
        if found == shown:
            sleep(POLL_S)
            continue
        started = time.monotonic()
        try:
            written = build()
        except UserError:
            if all(found) or not all(_has_begun(directory) for directory in directories):
                raise
        else:
            yield written
            if written.missing == 0:
                return
        shown = found
        sleep(max(EVERY_S, SHARE * (time.monotonic() - started)))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _has_begun(directory: Path) -> bool:
    return any((directory / name).exists() for name in file_names.OF_A_SWEEP)
