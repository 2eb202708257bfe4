"""The records of the runs of a stack: arrays over the runs while it trains, made into those of each run on request.

Letters: R runs of the stack, A those that are training, M columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlpexp.config.schema import Config
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.early_stopping import Progress

Array = np.ndarray[Any, Any]


class StackProgress:
    """`Progress` of R runs, updated at once.

    Attributes:
        stopped: (R,) bool; see `Progress`.
    """

    def __init__(self, runs: Sequence[Progress]) -> None:
        self._runs = list(runs)
        self._sign = np.array([1.0 if run.smaller_is_better else -1.0 for run in runs])
        self._patience = np.array([np.inf if run.patience is None else run.patience for run in runs])
        self._is_patient = np.array([run.patience is None for run in runs], dtype=bool)
        self._min_delta = np.array([run.min_delta for run in runs])
        self._first_epoch = np.array([run.first_epoch for run in runs])
        self._best_epoch = np.array([-1 if run.best_epoch is None else run.best_epoch for run in runs])
        self._best_value = np.array([run.best_value for run in runs])
        self._reference = np.array([run.reference for run in runs])
        self._waited = np.array([run.waited for run in runs])
        self.stopped: Array = np.array([run.stopped for run in runs], dtype=bool)

    def update(self, runs: Array, epoch: int, values: Array) -> Array:
        """Add the values (A,) of an epoch of these runs; returns for which it is the best so far, (A,) bool."""
        sign, counts, finite = self._sign[runs], epoch >= self._first_epoch[runs], np.isfinite(values)
        value, reference = sign * values, self._reference[runs]
        valid = counts & finite
        best = valid & ~(value >= sign * self._best_value[runs])  # true for a NaN best
        better = valid & ~(value + self._min_delta[runs] >= sign * reference)
        waited = np.where(better, 0, self._waited[runs] + counts)
        stops = ~self._is_patient[runs] & ((waited >= self._patience[runs]) | ~finite)
        self._best_epoch[runs[best]], self._best_value[runs[best]] = epoch, values[best]
        self._reference[runs], self._waited[runs] = np.where(better, values, reference), waited
        self.stopped[runs] = np.where(counts, stops, self.stopped[runs])
        return best

    def write(self) -> None:
        """Bring the `Progress` of each run up to date."""
        columns = self._best_epoch, self._best_value, self._reference, self._waited, self.stopped
        rows = zip(self._runs, *(column.tolist() for column in columns), strict=True)
        for run, best_epoch, run.best_value, run.reference, run.waited, run.stopped in rows:
            run.best_epoch = None if best_epoch < 0 else best_epoch


class _Epoch(NamedTuple):
    runs: Array
    names: Sequence[str]
    numbers: Array  # (M, A)
    further: Sequence[dict[str, float]] | None


class StackRecords:
    """The records of R runs.

    Args:
        records: of each run, to which epochs are added.

    Attributes:
        epochs: the number behind each run, (R,).
    """

    def __init__(self, configs: Sequence[Config], records: Sequence[RunRecord]) -> None:
        self._records, self._monitors = list(records), [cfg.monitor for cfg in configs]
        self._max_epochs = np.array([cfg.trainer.max_epochs for cfg in configs])
        self.epochs: Array = np.array([len(record.history) for record in records])
        self._progress = StackProgress([record.progress for record in records])
        self._unwritten: list[_Epoch] = []

    @property
    def runs(self) -> list[RunRecord]:
        """The record of each run, up to date; shared with this object."""
        for epoch in self._unwritten:
            names, further = list(epoch.names), epoch.further
            for i, (run, row) in enumerate(zip(epoch.runs.tolist(), epoch.numbers.T.tolist(), strict=True)):
                columns = dict(zip(names, row, strict=True))
                self._records[run].history.append(columns if further is None else columns | further[i])
        if self._unwritten:
            self._progress.write()
            self._unwritten.clear()
        return self._records

    def add(
        self,
        runs: Sequence[int],
        epoch: int,
        names: Sequence[str],
        numbers: Array,
        further: Sequence[dict[str, float]] | None = None,
    ) -> tuple[list[int], Array]:
        """Add an epoch.

        Args:
            runs: the A that were trained.
            names: of M columns, every run's monitor among them.
            numbers: (M, A) float64.
            further: columns of each of these runs that not all have.

        Returns:
            for which of the A runs it is the best epoch so far, and the monitored values (A,)
        """
        rows = np.asarray(runs)
        places = {monitor: list(names).index(monitor) for monitor in set(self._monitors)}
        monitored = np.asarray(numbers)[[places[self._monitors[run]] for run in runs], np.arange(len(runs))]
        self._unwritten.append(_Epoch(rows, names, numbers, further))
        self.epochs[rows] += 1
        return np.flatnonzero(self._progress.update(rows, epoch, monitored)).tolist(), monitored

    def add_layers(self, run: int, rows: Sequence[list[float | str]]) -> None:
        """Add rows of layers to a run's record."""
        self._records[run].layer_rows += rows

    @property
    def ended(self) -> Array:
        """Which runs have trained their last epoch or were stopped early, (R,) bool."""
        return self._progress.stopped | (self.epochs >= self._max_epochs)

    @property
    def trained_runs(self) -> float:
        """The share of the stack's epochs that is trained, counted in runs, from 0 to R.

        Where runs have stopped early, the others are expected to stop at the rate since the first one did.
        """
        left = np.where(self.ended, 0, self._max_epochs - self.epochs).astype(float)
        early = self._progress.stopped & (self.epochs < self._max_epochs)
        if early.any():
            rate = early.sum() / (self.epochs - self.epochs[early].min() + 1).clip(0).sum()
            left = -np.expm1(-rate * left) / rate  # the mean of an exponential distribution that is cut off
        trained = self.epochs.sum()
        return float(len(left) * trained / max(1, trained + left.sum()))
