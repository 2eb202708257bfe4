"""`tracker=csv`: one table of a sweep with every metric of every epoch of every run, for any program that reads CSV."""

import csv
import io
from collections.abc import Container, Iterable, Iterator, Sequence

from mlpexp.store import atomic_files
from mlpexp.store.csv_tables import safe_cell
from mlpexp.tracking.trackers import Group, TrackedRun

NAME = "curves.csv"
COLUMNS = ("run", "training", "epoch", "metric", "value")
STATUS = "status"  # the metric in the last row of a run, whose value is its status
DIGITS = 16  # of a run's identity that name its training

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
            rows = [row for row in self._rows() if row[1] in self._complete and row[1] not in shorter]
            atomic_files.refuse_link(self._path)
            atomic_files.write(self._path, _text([COLUMNS, *rows]))
            self._complete -= shorter
            self._is_new = False
        new = (row for run in runs if run.identity not in self.known() for row in _rows_of(run))
        atomic_files.append(self._path, _text(new))
        self._complete |= {run.identity[:DIGITS] for run in runs}

    def close(self) -> None: ...

    def _rows(self) -> Iterator[Row]:
        """The whole rows of the file."""
        if self._path is None or not self._path.is_file():
            return
        with self._path.open(encoding="utf-8", newline="") as file:
            yield from (row for row in csv.reader(file) if len(row) == len(COLUMNS) and row != list(COLUMNS))


class _Identities:
    """A container of identities, of which the file has the first digits."""

    def __init__(self, beginnings: set[str]) -> None:
        self._beginnings = beginnings

    def __contains__(self, identity: object) -> bool:
        return str(identity)[:DIGITS] in self._beginnings


def _rows_of(run: TrackedRun) -> Iterator[Row]:
    name, training = safe_cell(run.name), run.identity[:DIGITS]
    for epoch, values in enumerate(run.history):
        for metric, value in values.items():
            yield [name, training, str(epoch), metric, str(value)]
    final_epoch = "" if run.epoch is None else str(run.epoch)
    for metric, value in run.summary.items():
        yield [name, training, final_epoch, metric, str(value)]
    yield [name, training, final_epoch, STATUS, run.status]


def _text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
