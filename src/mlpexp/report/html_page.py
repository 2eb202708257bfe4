"""One self-contained HTML page: no script, no remote asset, no inline style; everything escaped."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from mlpexp.report.report_tables import Table


@dataclass(frozen=True)
class Heading:
    """The head of a column; numbers are aligned to the right."""

    text: str
    number: bool


@dataclass(frozen=True)
class Grid:
    """A table of the page."""

    header: list[Heading]
    rows: list[list[str]]


def render(content: dict[str, Any]) -> str:
    """The page; `content` as `page.html.j2` names it."""
    package = files("mlpexp.report")
    style = package.joinpath("page.css").read_text(encoding="utf-8").strip()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    template = environment.from_string(package.joinpath("page.html.j2").read_text(encoding="utf-8"))
    from markupsafe import Markup

    return template.render(content, style=Markup(style), policy=policy(style))


def policy(style: str) -> str:
    """The content policy: nothing is loaded or run; the style sheet is allowed by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def grid(table: Table, columns: Sequence[int] | None = None) -> Grid:
    """A table, or some of its columns, with rounded numbers."""
    indices = list(range(len(table.header)) if columns is None else columns)
    rows = table.rows
    numbers = [any(isinstance(row[c], int | float) or "±" in str(row[c]) for row in rows) for c in indices]
    header = [Heading(table.header[c], number) for c, number in zip(indices, numbers, strict=True)]
    return Grid(header, [[cell(row[c]) for c in indices] for row in rows])


def cell(value: Any) -> str:
    """A value as text; numbers with about four digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)
