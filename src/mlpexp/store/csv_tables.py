"""CSV text of tables whose cells may hold any text, safe to open in a spreadsheet.

A spreadsheet evaluates a cell that starts with `=`, `+`, `-` or `@` as a formula. Such a text gets an apostrophe in
front, which a spreadsheet hides; `original` removes it again. Numbers stay as they are.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The table as CSV; floats at full precision, what is not finite or None as an empty cell."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return content.getvalue()


def original(cell: str) -> str:
    """The text that `csv_text` was given for this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return value
