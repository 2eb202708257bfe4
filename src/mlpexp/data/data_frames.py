"""A DataFrame (of pandas, polars, pyarrow, or a mapping of columns) as the text of a CSV file for `data=csv`.

Numbers keep all their digits; truth values become 0 and 1; what is missing becomes an empty cell.
"""

import csv
import io
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from mlpexp.runtime.errors import UserError

_MISSING = ("NAType", "NaTType")  # pandas' own values, whose comparison gives no truth value


def is_frame(value: Any) -> bool:
    """Whether it has named columns.

    Raises:
        UserError: it has, but not yet their values.
    """
    kind = type(value)
    for method in ("collect", "compute"):  # polars, dask
        if hasattr(kind, method) and hasattr(kind, "columns"):
            raise UserError(f"the table is a {kind.__name__}, whose values are not computed yet; give frame.{method}()")
    return isinstance(value, Mapping) or (hasattr(value, "columns") and hasattr(value, "__getitem__"))


def column_names(frame: Any) -> list[Any]:
    """The names of the columns, in their order."""
    if hasattr(frame, "column_names"):  # pyarrow, whose `columns` are values
        return list(frame.column_names)
    return list(frame.keys() if isinstance(frame, Mapping) else frame.columns)


def to_csv(frame: Any) -> tuple[str, list[str]]:
    """The CSV text, and the names of the columns that hold texts.

    Raises:
        UserError: a column holds neither numbers nor texts, or columns are not equally long.
    """
    names = column_names(frame)
    if not names:
        raise UserError("the table has no column; a network needs features and a target")
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"the table has the column {repeated[0]!r} twice; rename one of them")
    cells = {str(name): _cells(str(name), frame[name]) for name in names}
    lengths = {name: len(column) for name, column in cells.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise UserError(f"the columns of the table are not equally long: {shown}")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    texts = [name for name, column in cells.items() if any(isinstance(cell, str) and cell for cell in column)]
    return buffer.getvalue(), texts


def _cells(name: str, column: Any) -> list[Any]:
    """The values of a column: numbers, texts, and "" where one is missing."""
    methods = (getattr(column, name, None) for name in ("tolist", "to_pylist", "to_list"))
    to_list = next(filter(None, methods), None)
    values = list(to_list() if to_list else column)
    if hasattr(column, "ndim") and column.ndim != 1:
        raise UserError(f"column {name} has {column.ndim} dimensions; a cell holds one number or text")
    return [_cell(name, row, value) for row, value in enumerate(values)]


def _cell(name: str, row: int, value: Any) -> Any:
    if value is None or type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, Decimal | Fraction):
        return float(value)
    if callable(getattr(value, "item", None)):  # a number of numpy
        return _cell(name, row, value.item())
    raise UserError(
        f"column {name}, row {row} holds {type(value).__name__}, neither a number nor a text; convert it, or leave the "
        "column out"
    )
