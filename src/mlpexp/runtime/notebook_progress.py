"""A progress bar in a notebook's output, by IPython's display; with the interface of `rich.progress.Progress`."""

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

REDRAW_S = 0.2  # a notebook draws in another process


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """One bar, redrawn in place, gone at the end.

    Args:
        text: a format string over `completed`, `total`, `left` (seconds) and the task's own fields.
        seconds_left: an estimate, None where there is none yet; by default from the time that has passed.
    """

    def __init__(self, text: str, seconds_left: Callable[[], float | None] | None = None) -> None:
        self._text, self._seconds_left = text, seconds_left
        self._fields: dict[str, Any] = {}
        self._handle: Any = None
        self._drawn = self._started = 0.0

    def __enter__(self) -> "NotebookProgress":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def add_task(self, description: str, total: float, **fields: Any) -> int:
        self._fields = {"completed": 0, "total": total, **fields}
        self._draw()
        return 0

    def start(self) -> None:
        from IPython.display import HTML, display

        self._started = time.monotonic()
        self._handle = display(HTML(""), display_id=True)
        self._draw()

    def update(self, task: int, **fields: Any) -> None:
        self._fields |= fields
        if time.monotonic() - self._drawn > REDRAW_S:
            self._draw()

    def _draw(self) -> None:
        """Draw it where it has been started and has a task, in any order."""
        if self._handle is None or not self._fields:
            return
        from IPython.display import HTML

        self._drawn = time.monotonic()
        self._handle.update(HTML(self._html()))

    def stop(self) -> None:
        if self._handle is not None:
            from IPython.display import HTML

            self._handle.update(HTML(""))
            self._handle = None

    def _html(self) -> str:
        completed, total = self._fields.get("completed", 0), self._fields.get("total", 1)
        elapsed = time.monotonic() - self._started
        seconds = elapsed * (total - completed) / completed if completed and elapsed > 1 else None
        if self._seconds_left is not None:
            seconds = self._seconds_left()
        left = "" if seconds is None else f"{seconds:.0f} s left"
        text = self._text.format(**self._fields, left=left)
        return f'<progress value="{completed:.2f}" max="{total}" style="width: 16em"></progress> {escape(text)}'
