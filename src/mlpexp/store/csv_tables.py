"""CSV text of tables whose cells may hold any text, safe to open in a spreadsheet.

A spreadsheet evaluates a cell that starts with `=`, `+`, `-` or `@` as a formula. Such a text gets an apostrophe in
front, which a spreadsheet hides; `original` removes it again. Numbers stay as they are.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

PIECE = 4096  # rows
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_RISKY = tuple("'=+-@\t\r")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV: floats at full precision; NaN, infinity and None as empty cells."""
    return "".join(csv_parts(header, rows))


def csv_parts(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """As `csv_text`, in pieces, so that a long table is never in memory as a whole."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in header])
    iterator = iter(rows)
    while True:
        writer.writerows([safe_cell(value) for value in row] for row in islice(iterator, PIECE))
        if not (piece := content.getvalue()):
            return
        yield piece
        content.seek(0)
        content.truncate()


def original(cell: str) -> str:
    """The text that `csv_text` was given for this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def safe_cell(value: Any) -> Any:
    """The cell for a value: risky texts with an apostrophe, floats that are not finite as empty."""
    if isinstance(value, str):
        if value[:1] not in _RISKY:  # as nearly all are
            return value
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return value
