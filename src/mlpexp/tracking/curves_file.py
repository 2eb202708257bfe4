"""`tracker=csv`: one table of a sweep with every metric of every epoch of every run, for any program that reads CSV."""

import csv
import io
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from mlpexp.tracking.trackers import Group, TrackedRun

NAME = "curves.csv"
COLUMNS = ("run", "training", "epoch", "metric", "value")
STATUS = "status"  # the metric in the last row of a run, whose value is its status
DIGITS = 16  # of a run's identity that name its training
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet evaluates a cell that begins with one of them

Row = list[str]


class CurvesFile:
    """`curves.csv` in the directory of the sweep; a run alone has its `metrics.csv`, and needs no other table.

    A run is complete with the row of its status; rows without one were left by a crash, and are removed.
    """

    def __init__(self, group: Group) -> None:
        self._path = group.directory / NAME if group.is_sweep else None
        self._complete = {row[1] for row in self._rows() if row[3] == STATUS}
        self._is_new = True  # nothing was added by this process

    def known(self) -> Container[str]:
        return _Identities(self._complete)

    def record(self, runs: Sequence[TrackedRun]) -> None:
        if self._path is None:
            return
        shorter = {name[:DIGITS] for run in runs for name in run.earlier} & self._complete
        if self._is_new or shorter:
            kept = [row for row in self._rows() if row[1] in self._complete and row[1] not in shorter]
            self._replace(self._path, [list(COLUMNS), *kept])
            self._complete -= shorter
            self._is_new = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._path, flags), "wb") as file:
            file.write(_text(row for run in runs if run.identity not in self.known() for row in _rows_of(run)))
        self._complete |= {run.identity[:DIGITS] for run in runs}

    def close(self) -> None: ...

    def _rows(self) -> Iterator[Row]:
        """The whole rows of the file."""
        if self._path is None or not self._path.is_file():
            return
        with self._path.open(encoding="utf-8", newline="") as file:
            yield from (row for row in csv.reader(file) if len(row) == len(COLUMNS) and row != list(COLUMNS))

    @staticmethod
    def _replace(path: Path, rows: Iterable[Row]) -> None:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(f"{path} is not a regular file; move it away")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            temporary.write_bytes(_text(rows))
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)


class _Identities:
    """The identities whose beginnings are in the file."""

    def __init__(self, beginnings: set[str]) -> None:
        self._beginnings = beginnings

    def __contains__(self, identity: object) -> bool:
        return str(identity)[:DIGITS] in self._beginnings


def _rows_of(run: TrackedRun) -> Iterator[Row]:
    training = run.identity[:DIGITS]
    name = f"'{run.name}" if run.name[:1] in FORMULA else run.name
    for epoch, values in enumerate(run.history):
        for metric, value in values.items():
            yield [name, training, str(epoch), metric, str(value)]
    last = "" if run.epoch is None else str(run.epoch)
    for metric, value in run.summary.items():
        yield [name, training, last, metric, str(value)]
    yield [name, training, last, STATUS, run.status]


def _text(rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
