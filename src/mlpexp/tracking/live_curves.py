"""Curves of runs that train together, for TensorBoard, until the runs themselves are written.

TensorBoard does not read a file again that has been replaced, and a stack may train the same epochs twice after a
crash. So these curves have event files of their own, one for each line of a chart:

    DIRECTORY/TIME/RUN              each of up to `MAX_LINES` runs
    DIRECTORY/TIME/STATISTIC/LABEL  of more runs `STATISTICS`, in each epoch of those that have trained it

`TIME` is when the line began: TensorBoard may show nothing more of a line that was removed and has come back under the
same name. Letters: R runs, C columns of metrics, Q quantiles.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path

import numpy as np

from mlpexp.nn.metric_columns import higher_is_better, is_registered
from mlpexp.tracking.event_files import EventLog
from mlpexp.tracking.events import restart, scalars
from mlpexp.tracking.run_events import train_against_validation

EVERY_S = 2.0  # between two updates, and before the first
SHARE = 200  # training takes at least so many times as long as the updates
MAX_LINES = 10  # of single runs
MAX_POINTS = 50  # of a line in one update
QUANTILES = {"10 % quantile": 0.1, "median": 0.5, "90 % quantile": 0.9}
STATISTICS = ("best", *QUANTILES)
SUFFIX = ".live"  # of the files
_TIME = "%H.%M.%S"
_IS_TIME = re.compile(r"\d\d\.\d\d\.\d\d")

History = Sequence[Mapping[str, float]]


class LiveCurves:
    """The lines of some runs in training; for one thread.

    Args:
        directory: of all lines of a sweep; several processes may write there.
        label: of these runs, different from those of others that train now.
    """

    def __init__(self, directory: Path, label: str) -> None:
        self._directory, self._label = directory, label
        self._lines: dict[str, _Line] = {}
        self._lengths: dict[str, int] = {}  # the epochs of each run at the last update
        self._due = time.monotonic() + EVERY_S

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def update(
        self, histories: Mapping[str, History], times: Sequence[float], titles: Sequence[tuple[str, str]]
    ) -> None:
        """Show the epochs that these runs have trained so far.

        Args:
            histories: of each run by its name, the metrics of each epoch.
            times: seconds since 1970, of the longest history: the start, then the end of each epoch.
            titles: see `run_events.curve_titles`.
        """
        started = time.monotonic()
        lengths = {name: len(history) for name, history in histories.items() if history}
        points = self._of_runs(histories, lengths) if len(lengths) <= MAX_LINES else self._of_all(histories, lengths)
        for name in self._lines.keys() - points.keys():
            self._lines.pop(name).remove()
        begun = self._directory / time.strftime(_TIME)
        for name, rows in points.items():
            if name not in self._lines:
                for file in self._directory.glob(f"*/{escape(name)}/*{SUFFIX}"):
                    _remove(file)  # of a worker that was lost: its runs train here now
                self._lines[name] = _Line(begun / name, titles)
            self._lines[name].add(rows, times)
        self._lengths = lengths
        now = time.monotonic()
        self._due = now + max(EVERY_S, SHARE * (now - started))

    def close(self) -> None:
        """Remove all lines; of their directories, which other processes may use, those that `clean` removes stay."""
        for line in self._lines.values():
            line.remove()
        self._lines.clear()

    def _of_runs(self, histories: Mapping[str, History], lengths: Mapping[str, int]) -> dict[str, "Points"]:
        """The new points of each run."""
        return {
            name: {epoch: histories[name][epoch] for epoch in self._new(name, self._lengths.get(name, 0), length)}
            for name, length in lengths.items()
        }

    def _of_all(self, histories: Mapping[str, History], lengths: Mapping[str, int]) -> dict[str, "Points"]:
        """The new points of the statistics, and those that are others now: a run was added, or has left."""
        names = {statistic: f"{statistic}/{self._label}" for statistic in STATISTICS}
        has_left = any(name not in lengths for name in self._lengths)
        grown = [self._lengths.get(name, 0) for name, length in lengths.items() if length != self._lengths.get(name)]
        first = 0 if has_left else min(grown, default=max(lengths.values()))
        points: dict[str, Points] = {name: {} for name in names.values()}
        for epoch in self._new(names["median"], first, max(lengths.values())):
            rows = [histories[name][epoch] for name, length in lengths.items() if length > epoch]
            for statistic, values in summary(rows).items():
                points[names[statistic]][epoch] = values
        return points

    def _new(self, line: str, first: int, length: int) -> list[int]:
        """The epochs from `first` on that are added to a line; not all, if there are many."""
        first = first if line in self._lines else 0
        count = max(0, min(MAX_POINTS, length - first))  # a stack that has failed is trained again, in parts
        return [round(float(epoch)) for epoch in np.linspace(first, length - 1, count)]


Points = dict[int, Mapping[str, float]]
"""the values by tag of each epoch"""


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """`STATISTICS` of each metric over runs, without the values that are not finite.

    The best value is that of each metric, of whichever run; columns that are no metrics of the registry have none.

    Args:
        rows: of each run, the metrics of one epoch.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = np.array([[row.get(column, np.nan) for column in columns] for row in rows])  # (R, C)
    values[~np.isfinite(values)] = np.nan
    values.sort(0)  # NaN last
    last = np.isfinite(values).sum(0) - 1  # (C,)
    places = np.array([*QUANTILES.values()])[:, None] * last.clip(0)  # (Q, C)
    low, high = (np.take_along_axis(values, turned(places).astype(int), 0) for turned in (np.floor, np.ceil))
    quantiles = low + (high - low) * (places % 1)
    statistics: dict[str, dict[str, float]] = {statistic: {} for statistic in STATISTICS}
    for number, column in enumerate(columns):
        if last[number] < 0:
            continue
        for statistic, value in zip(QUANTILES, quantiles[:, number], strict=True):
            statistics[statistic][column] = float(value)
        if is_registered(column):
            place = last[number] if higher_is_better(column) else 0
            statistics["best"][column] = float(values[place, number])
    return statistics


class _Line:
    """The event file of one line, in a directory of its own."""

    def __init__(self, directory: Path, titles: Sequence[tuple[str, str]]) -> None:
        self._log = EventLog(directory, suffix=SUFFIX)
        self._log.add(restart(0, time.time()), train_against_validation(time.time(), titles))
        self._length = 0

    def add(self, points: Points, times: Sequence[float]) -> None:
        """Add points in place of those at the same epochs and later ones."""
        if not points:
            return
        if min(points) < self._length:
            self._log.add(restart(min(points), time.time()))
        self._log.add(*(scalars(epoch, values, times[epoch + 1]) for epoch, values in points.items()))
        self._log.flush()
        self._length = max(points) + 1

    def remove(self) -> None:
        self._log.close()
        _remove(self._log.path)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    with suppress(OSError):  # it is gone already, or holds something else
        file.parent.rmdir()


def clean(directory: Path) -> None:
    """Remove all lines, e.g. of a process that was killed; no process may be training there."""
    for time_directory in directory.iterdir():
        if not _IS_TIME.fullmatch(time_directory.name) or time_directory.is_symlink():
            continue
        for folder, _, files in os.walk(time_directory, topdown=False):
            for name in files:
                if name.endswith(SUFFIX):
                    Path(folder, name).unlink(missing_ok=True)
            with suppress(OSError):  # other files are there
                Path(folder).rmdir()
    with suppress(OSError):
        directory.rmdir()
