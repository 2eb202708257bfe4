"""The report for TensorBoard: its figures as images, its answer and its ranking as text, in one event file.

It lies beside the page, so that `tensorboard --logdir multirun/NAME` shows it as the run `report` among the others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpexp.report.html_page import Grid
from mlpexp.store import atomic_files
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.events import Event, image, plain, text

PATTERN = "events.out.tfevents.*"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One figure as TensorBoard gets it."""

    name: str
    title: str
    caption: str
    png: bytes
    width: int
    height: int


def answer(headline: Sequence[str], counts: str, command: str) -> str:
    """The page's first box in Markdown."""
    paragraphs = [f"**{plain(headline[0])}**", *map(plain, headline[1:]), f"{plain(counts)}."]
    if command:
        paragraphs.append(f"To train its first run again:\n\n    {' '.join(command.split())}")
    return "\n\n".join(paragraphs)


def table(grid: Grid, note: str) -> str:
    """The ranking in Markdown."""
    rows = [[heading.text for heading in grid.header], *grid.rows]
    lines = ["| " + " | ".join(map(plain, row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("---:" if heading.number else "---" for heading in grid.header) + "|")
    return f"{plain(note)}\n\n" + "\n".join(lines)


def write(directory: Path, texts: Sequence[tuple[str, str]], pictures: Sequence[Shown]) -> None:
    """One event file in `directory`; those of earlier reports go, or TensorBoard would show both.

    Args:
        texts: name and Markdown.
    """
    now = time.time()
    events: list[Event] = [text(f"report/{name}", 0, markdown, now) for name, markdown in texts]
    for number, shown in enumerate(pictures, 1):
        event = image(f"report/{number:02d} {shown.name}", 0, shown.png, shown.width, shown.height, wall_time=now)
        metadata = event.summary.value[0].metadata
        metadata.display_name = f"{number:02d} {shown.title}"
        metadata.summary_description = plain(shown.caption)
        events.append(event)
    earlier = list(directory.glob(PATTERN))
    atomic_files.write(directory / file_name(now), encode(events))
    for path in earlier:
        path.unlink(missing_ok=True)
