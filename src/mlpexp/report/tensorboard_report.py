"""The report for TensorBoard: figures as images, answer and ranking as text, in one event file.

It is beside the page, so that `tensorboard --logdir multirun/NAME` shows it as the run `report` among the others.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from mlpexp.report.html_page import Grid
from mlpexp.report.report_figure import ReportFigure
from mlpexp.runtime import safe_files
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.events import Event, image, plain, text

_FIGURES = "best|heat|effects|variance|interactions|cost|curves|boundary|gradients|saturation|sweeps"
_TABLES = "ranking|runs|effects|variance|trouble|provenance|heat|cost|curves|interactions|gradients|saturation|sweeps"
EARLIER_NAMES = re.compile(rf"figures/(\d+-)?({_FIGURES})\.(png|svg)|tables/(\d+-)?({_TABLES})\.csv")
EARLIER_PAGE = '<p class="kind">Report of '


def answer(headline: Sequence[str], counts: str, command: str) -> str:
    """The summary of the page in Markdown."""
    sentences = [*headline[1:], f"{counts}."]
    if command:
        sentences.append(f"To train its first run again:\n{command}")
    paragraphs = [f"**{plain(headline[0])}**"]
    for sentence in sentences:
        text_of_sentence, *commands = sentence.split("\n")
        paragraphs += [plain(text_of_sentence), *(f"    {' '.join(text.split())}" for text in commands)]
    return "\n\n".join(paragraphs)


def table(grid: Grid, note: str) -> str:
    """The ranking in Markdown."""
    rows = [[heading.text for heading in grid.header], *grid.rows]
    lines = ["| " + " | ".join(map(plain, row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("---:" if heading.number else "---" for heading in grid.header) + "|")
    return f"{plain(note)}\n\n" + "\n".join(lines)


def event_file(
    texts: Sequence[tuple[str, str]], figures: Sequence[tuple[str, ReportFigure, tuple[bytes, int, int]]]
) -> tuple[str, bytes]:
    """Name and content of the event file.

    Args:
        texts: name and Markdown.
        figures: name, figure, and its PNG with width and height in pixels.
    """
    now = time.time()
    events: list[Event] = [text(f"report/{name}", 0, markdown, now) for name, markdown in texts]
    for number, (name, figure, png) in enumerate(figures, 1):
        event = image(f"report/{number:02d} {name}", 0, *png, wall_time=now)
        metadata = event.summary.value[0].metadata
        metadata.display_name = f"{number:02d} {figure.title}"
        metadata.summary_description = plain(figure.caption)
        events.append(event)
    return file_name(now), encode(events)


def earlier_files(directory: Path) -> list[str]:
    """The files of a report that was written before reports had a manifest; empty where it is no report."""
    page = directory / "index.html"
    try:
        if EARLIER_PAGE not in safe_files.read_text(page, errors="replace", follow=False)[:100_000]:
            return []
    except FileNotFoundError:
        return []
    names = [name for pattern in ("figures/*", "tables/*") for path in directory.glob(pattern)
             if EARLIER_NAMES.fullmatch(name := path.relative_to(directory).as_posix())]  # fmt: skip
    for path in directory.glob("events.out.tfevents.*"):
        if safe_files.is_regular(path) and b"report/answer" in safe_files.read_bytes(path):
            names.append(path.name)
    return [*names, "index.html"]
