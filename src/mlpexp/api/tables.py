"""Tables that pandas, polars and notebooks take: `Records`, a dict for each run, `Columns`, an array for each name."""

from html import escape
from typing import Any

import numpy as np

from mlpexp.runtime.errors import UserError

SHOWN = 20  # rows in a notebook


class Records(list[dict[str, Any]]):
    """Rows with equal keys."""

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`."""
        return _library("pandas").DataFrame(list(self))

    def to_polars(self) -> Any:
        """A `polars.DataFrame`."""
        return _library("polars").DataFrame(list(self), infer_schema_length=None)

    def _repr_html_(self) -> str:
        return _html(list(self[0]) if self else [], [list(row.values()) for row in self[:SHOWN]], len(self))


class Columns(dict[str, np.ndarray]):
    """Arrays of equal length by the names of their columns."""

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.values()), ()))

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`."""
        return _library("pandas").DataFrame(dict(self))

    def to_polars(self) -> Any:
        """A `polars.DataFrame`."""
        values = {name: column.tolist() if column.dtype == object else column for name, column in self.items()}
        return _library("polars").DataFrame(values, strict=False)

    def _repr_html_(self) -> str:
        rows = [[column[i] for column in self.values()] for i in range(min(self.num_rows, SHOWN))]
        return _html(list(self), rows, self.num_rows)


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed; install it with: python -m pip install {name}") from None


def _html(header: list[str], rows: list[list[Any]], total: int) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    more = f"<p>{total:,} rows, the first {len(rows)} of them</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
