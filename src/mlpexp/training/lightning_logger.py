"""A Lightning logger that writes what user-defined callbacks log into the run's event file."""

import time
from argparse import Namespace
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from mlpexp.tracking.event_files import EventLog
from mlpexp.tracking.events import scalar


class RunLogger(Logger):
    """Writes the scalars that the recorder does not write, e.g. of a learning-rate monitor."""

    def __init__(self, directory: Path, events: EventLog | None, recorded: Collection[str]) -> None:
        """
        Args:
            recorded: columns that the recorder writes.
        """
        super().__init__()
        self._columns = recorded
        self._directory, self._events = directory, events
        self._writer = _LateWriter(directory)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def log_dir(self) -> str:
        return str(self._directory)

    @property
    def save_dir(self) -> str:
        return str(self._directory)

    @property
    def experiment(self) -> Any:
        """Like torch's `SummaryWriter` for the run's directory."""
        return self._writer

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the recorder writes the hyperparameters; Lightning would log the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._events is not None:
            now = time.time()
            recorded = {*self._columns, "epoch"}  # by the recorder itself
            self._events.add(
                *(scalar(name, step or 0, value, now) for name, value in metrics.items() if name not in recorded)
            )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._writer.finish()


class _LateWriter:
    """A `SummaryWriter` that is created at its first use: Lightning requests one of every logger, used or not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._directory))
        return getattr(self._writer, name)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
