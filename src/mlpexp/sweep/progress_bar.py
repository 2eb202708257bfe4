"""The progress bar of a sweep, in a terminal or in a notebook."""

import math
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from mlpexp.nn.metric_columns import higher_is_better
from mlpexp.runtime.notebook_progress import NotebookProgress, in_notebook
from mlpexp.runtime.rich_console import Console
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.sweep_progress import SweepProgress

REDRAW_S = 0.05
LABEL, BAR, MIN_BAR = "training", 16, 4  # columns of the terminal; the bar shrinks where there are fewer
LEAST = 60  # columns of a terminal in which the label is shown


class SweepBar:
    """E.g. `42 %, 100 of 1,000 runs, 0:02:10 left, 2 failed, best val/loss 0.2409`, as far as there is room.

    Args:
        progress: of the runs that are trained now.
        total: their number.
        known: outcomes of the runs of the sweep that have ended before.
        search_left: seconds until the end of the search that the runs are a part of; None: they are all.
    """

    def __init__(
        self,
        progress: SweepProgress,
        total: int,
        console: Console,
        known: Iterable[Outcome] = (),
        search_left: Callable[[SweepProgress], float | None] | None = None,
    ) -> None:
        self._progress, self._total, self._search_left = progress, total, search_left
        self._best: float | None = None
        self._monitor = ""
        self._failures = 0
        self._drawn_s = -math.inf
        for outcome in known:
            self.note(outcome)
        columns = (
            *([TextColumn(LABEL)] if console.width >= LEAST else []),
            _BarColumn(self, console),
            _StatusColumn(self, console),
        )
        disable = not sys.stderr.isatty()
        self._bar: Any = Progress(*columns, console=console, disable=disable, transient=search_left is not None)
        if in_notebook():
            self._bar = NotebookProgress("{status}")
        self._task = self._bar.add_task("", total=total, status="")

    def __enter__(self) -> "SweepBar":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.draw(every_s=0)
        self._bar.stop()

    def note(self, outcome: Outcome) -> None:
        """Take a run that has ended into account: whether it failed, and whether it is the best so far."""
        result = outcome.result
        self._failures += outcome.error is not None
        if result is not None and math.isfinite(result.objective):
            better = max if higher_is_better(result.monitor) else min
            if self._best is None or better(self._best, result.objective) != self._best:
                self._best, self._monitor = result.objective, result.monitor

    def draw(self, every_s: float = REDRAW_S) -> None:
        """Update the bar, at most once in `every_s` seconds, since thousands of runs may end at once."""
        now = time.monotonic()
        if now >= self._drawn_s + every_s:
            self._drawn_s = now
            trained = min(self._progress.trained_runs, self._total)
            self._bar.update(self._task, completed=trained, status=", ".join(self.status()))

    def status(self, width: float = math.inf) -> list[str]:
        """The parts of the text, in their order, without the least important ones if all are wider than `width`."""
        parts = {
            "share": f"{self._progress.trained_runs / self._total:.0%}".replace("%", " %"),
            "runs": f"{self._progress.written_runs:,} of {self._total:,} runs",
            "left": self._left(),
            "failed": f"{self._failures:,} failed" if self._failures else "",
            "best": "" if self._best is None else f"best {self._monitor} {self._best:.4f}",
        }
        for least in ("", "best", "failed", "runs"):
            parts.pop(least, None)
            shown = [part for part in parts.values() if part]
            if len(", ".join(shown)) <= width:
                break
        return shown

    def _left(self) -> str:
        """Nothing at the end."""
        if self._progress.written_runs >= self._total:
            return ""
        seconds = self._progress.seconds_left() if self._search_left is None else self._search_left(self._progress)
        left = f"{'-:--:--' if seconds is None else timedelta(seconds=math.ceil(seconds))} left"
        return left if self._search_left is None else f"search {left}"


class _BarColumn(BarColumn):
    """The bar, as long as there is room beside the status."""

    def __init__(self, bar: SweepBar, console: Console) -> None:
        super().__init__()
        self._sweep_bar, self._console = bar, console

    def render(self, task: Task) -> ProgressBar:
        room = _room(self._console)
        self.bar_width = min(BAR, room + MIN_BAR - len(", ".join(self._sweep_bar.status(room))))
        return super().render(task)


class _StatusColumn(ProgressColumn):
    """`SweepBar.status`."""

    def __init__(self, bar: SweepBar, console: Console) -> None:
        super().__init__()
        self._sweep_bar, self._console = bar, console

    def render(self, task: Task) -> Text:
        text = Text(no_wrap=True)
        for number, part in enumerate(self._sweep_bar.status(_room(self._console))):
            text.append(", " if number else "")
            text.append(part, style="red" if part.endswith(" failed") else None)
        return text


def _room(console: Console) -> int:
    """Columns for the status, beside the label and the shortest bar."""
    return console.width - MIN_BAR - 1 - (len(LABEL) + 1 if console.width >= LEAST else 0)
