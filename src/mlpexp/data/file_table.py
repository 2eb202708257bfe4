"""The columns of a user's file, what they hold, and what is wrong with a cell.

Messages name file, line and column, and propose overrides where the user can set them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mlpexp.config.overrides import shell_word
from mlpexp.data.cell_values import INFINITE, MINUS, Cell, NumberFormat, canonical, is_missing, looks_numeric
from mlpexp.data.data_config import DataConfig
from mlpexp.runtime.errors import UserError

SHOWN = 12  # names in a message
# what a column may hold; a text column of a CSV file may hold numbers, of a Parquet file it holds texts
Kind = Literal["cells", "number", "category", "refused"]


@dataclass(frozen=True)
class Source:
    """The content of a file, and how messages name the file.

    Attributes:
        label: the name in messages, e.g. `data.path=table.csv`.
        settings: the configuration, where the user can change it; messages then propose overrides.
    """

    label: str
    content: bytes
    settings: DataConfig | None = None

    @property
    def settable(self) -> bool:
        return self.settings is not None

    def advice(self, key: str, value: Any, otherwise: str) -> str:
        """How to correct the problem: set a key of the configuration, or `otherwise` where that is impossible."""
        return f"set {shell_word(f'data.{key}', value)}" if self.settable else otherwise

    def drop(self, name: str) -> str:
        """The override that leaves out a column, beside those that are left out."""
        return self._with_name("drop", name)

    def categorical(self, name: str) -> str:
        """The override that makes categories of a column, beside those that are."""
        return self._with_name("categorical", name)

    def _with_name(self, key: str, name: str) -> str:
        assert self.settings is not None, "nothing can be set for this file"
        return shell_word(f"data.{key}", list(dict.fromkeys((*getattr(self.settings, key), name))))

    def line(self, line: int) -> str:
        return f"{self.label}, line {line}"


class Column(NamedTuple):
    """One column of a file.

    Attributes:
        type: the type that a Parquet file states, for messages.
        is_index: an index that pandas stored beside the columns.
    """

    name: str
    cells: list[Cell]
    kind: Kind = "cells"
    type: str = "text"
    is_index: bool = False


@dataclass(frozen=True)
class FileTable:
    """The content of a file: its columns, and the line (in Parquet the number) of each row."""

    source: Source
    columns: list[Column]
    lines: list[int]
    header: bool = True
    by_name: Mapping[str, Column] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})

    def location(self, row: int, column: Column) -> str:
        """E.g. `data.path=table.csv, line 9, column size`."""
        return f"{self.source.line(self.lines[row])}, column {column.name}"


def numbers(
    table: FileTable, column: Column, form: NumberFormat, *, missing: bool = False, feature: bool = True
) -> list[float]:
    """The values of a column, NaN where one is missing.

    Args:
        missing: whether values may be missing.
        feature: whether the column is one; of others no replacement, category or omission is proposed.

    Raises:
        UserError: naming line and column of what is not a finite number.
    """
    values: list[float] = []
    for row, cell in enumerate(column.cells):
        if is_missing(cell):
            if not missing:
                raise _missing(table, row, column, feature)
            values.append(float("nan"))
            continue
        value = form.number(cell)
        if value is None and str(cell).lower() not in INFINITE:
            raise _not_a_number(table, row, column, str(cell), form, feature)
        if value is None or value in (float("inf"), float("-inf")):
            alternative = (
                f", or leave the column out with {table.source.drop(column.name)}" if table.source.settable else ""
            )
            alternative = alternative if feature else ", or remove the line"
            raise UserError(f"{table.location(row, column)}: {str(cell)[:40]!r} is not finite; correct it{alternative}")
        values.append(value)
    return values


def categories(table: FileTable, column: Column, form: NumberFormat, *, missing: bool) -> list[str | None]:
    """The canonical texts of a column, None where one is missing.

    Raises:
        UserError: a value is missing and may not be.
    """
    texts = {cell: canonical(cell, form) for cell in set(column.cells)}
    values = [texts[cell] or None for cell in column.cells]
    if not missing and None in values:
        raise _missing(table, values.index(None), column)
    return values


def _missing(table: FileTable, row: int, column: Column, feature: bool = True) -> UserError:
    cell = column.cells[row]
    cell_text = repr(cell) if isinstance(cell, str) and cell else "the value"
    if not feature:
        return UserError(f"{table.location(row, column)}: {cell_text} is missing; add it, or remove the line")
    advice = table.source.advice("missing", "median", "add it: no value was missing in training")
    return UserError(f"{table.location(row, column)}: {cell_text} is missing; correct it, or {advice}")


def _not_a_number(
    table: FileTable, row: int, column: Column, cell: str, form: NumberFormat, feature: bool
) -> UserError:
    problem = f"{table.location(row, column)}: {cell[:40]!r} is not a number"
    if cell.startswith(MINUS):
        problem += ", its sign is U+2212 and not the hyphen -"
    if not table.source.settable:
        mark = " with a decimal point" if form == NumberFormat() else ""
        return UserError(f"{problem}; write digits{mark}, as in training")
    ways = []
    for way in form.settings_for(cell):
        value = NumberFormat(**{"decimal": form.decimal, "thousands": form.thousands} | way).number(cell)  # type: ignore[arg-type]
        ways.append(f"{' '.join(f'data.{key}={mark}' for key, mark in way.items())} (reads {value!r})")
    alternative = f"use the column as categories with {table.source.categorical(column.name)}"
    alternative = alternative if feature else "remove the line"
    correction = f"set {' or '.join(ways)}" if ways else "correct it"
    return UserError(f"{problem}; {correction}, or {alternative}")


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """Names in a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def is_category(column: Column) -> bool:
    """Whether a column holds categories: by its type, or because no cell of it looks like a number."""
    if column.kind != "cells":
        return column.kind == "category"
    filled = [cell for cell in column.cells if not is_missing(cell)]
    return bool(filled) and not any(map(looks_numeric, filled))
