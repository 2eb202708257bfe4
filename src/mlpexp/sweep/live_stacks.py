"""Shows in TensorBoard the curves of runs that train in stacks, until their files are written."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime.errors import is_storage, os_error_text
from mlpexp.store import run_directory
from mlpexp.store.directory_checks import MAX_NAME
from mlpexp.store.file_names import UNDER_WAY
from mlpexp.sweep.jobs import Job
from mlpexp.tracking.live_curves import LiveCurves
from mlpexp.tracking.run_events import curve_titles

log = logging.getLogger(__name__)


class LiveStacks:
    """A context in which the curves of some runs are shown; at its end they are removed.

    Args:
        sweep: its directory; None: nothing is shown.
        label: of these runs, see `LiveCurves`; by default the first of them and their number.
    """

    def __init__(self, sweep: Path | None, jobs: Sequence[Job], label: str = "") -> None:
        self._sweep = sweep
        shown = [job for job in jobs if job.config.writes_events]
        self._curves: LiveCurves | None = None
        if sweep is not None and shown:
            self._curves = LiveCurves(sweep / UNDER_WAY, label or _label(sweep, shown))

    def show(self, jobs: Sequence[Job], module: StackModule, paused: Iterable[tuple[Job, TrainingState]] = ()) -> None:
        """Show the epochs so far, unless that was done in the last seconds.

        Args:
            jobs: the runs of the stack in training.
            paused: others that are shown, too.
        """
        if self._curves is None or not self._curves.is_due:
            return
        assert self._sweep is not None
        curves = [(job, state.record.history, state.wall_times) for job, state in paused]
        curves += [(job, module.records[row].history, module.times(row)) for row, job in enumerate(jobs)]
        shown = {_name(self._sweep, job): history for job, history, _ in curves if job.config.writes_events}
        times = max((times for *_, times in curves), key=len)
        cfg = jobs[0].config
        titles = curve_titles(cfg.metric_names, module.data[0].num_classes, cfg.loss_function.name)
        try:
            self._curves.update(shown, times, titles)
        except OSError as error:
            if is_storage(error):
                raise
            log.warning("%s; TensorBoard shows these runs when they have ended", os_error_text(error))
            self._curves = None

    def close(self) -> None:
        if self._curves is not None:
            self._curves.close()

    def __enter__(self) -> "LiveStacks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _name(sweep: Path, job: Job) -> str:
    return run_directory.name_in(sweep, job.place)


def _label(sweep: Path, jobs: Sequence[Job]) -> str:
    label = f"{len(jobs):,} runs from {_name(sweep, jobs[0])}"
    is_long = any(len(os.fsencode(part)) > MAX_NAME for part in label.split("/"))
    return f"{len(jobs):,} runs from number {jobs[0].number}" if is_long else label
