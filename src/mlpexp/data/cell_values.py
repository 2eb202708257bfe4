"""The values of a table's cells: numbers by an exact grammar, and one canonical text for equal labels and categories.

A number is an optional sign, ASCII digits with at most one decimal mark, and an optional exponent (`e` or `E` with
digits). Digits may be grouped in threes by a thousands mark where `data.thousands` names one. Nothing else is a number:
not `1_000`, `0x1F`, full-width digits, `infinity`, or `1.5` where the decimal mark is a comma.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mlpexp.data.data_config import DataConfig

Decimal = Literal["point", "comma"]
Thousands = Literal["comma", "point", "space", "apostrophe", "underscore"]
Cell = str | int | float  # a text file has texts only; "" and NaN are missing values

# in a column of numbers; elsewhere they are values
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
INFINITE = {sign + word for sign in ("", "+", "-") for word in ("inf", "infinity")}
# regular expressions
MARKS = {
    "comma": ",",
    "point": r"\.",
    "space": "[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]",
    "apostrophe": "['\N{RIGHT SINGLE QUOTATION MARK}]",
    "underscore": "_",
}
EXACT = 2**53  # up to here every whole number is a float
MINUS = "\N{MINUS SIGN}"  # of text processors; no sign of a number
_SIGN = f"[+\\-{MINUS}]?"
_NUMERIC = re.compile(rf"{_SIGN}[.,]?\d")
_WHOLE = re.compile(r"[+-]?\d{1,300}", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0\d", re.ASCII)


@dataclass(frozen=True)
class NumberFormat:
    """The notation of numbers in a file."""

    decimal: Decimal = "point"
    thousands: Thousands | None = None

    @classmethod
    def from_config(cls, cfg: DataConfig) -> "NumberFormat":
        return cls(cfg.decimal, cfg.thousands)

    def number(self, cell: Cell) -> float | None:
        """The value of a cell; None where it is not a number. May be infinite where the number is too large."""
        if not isinstance(cell, str):
            return float(cell)
        if _pattern(self.decimal, self.thousands).fullmatch(cell) is None:
            return None
        if self.thousands is not None:
            cell = re.sub(MARKS[self.thousands], "", cell)
        return float(cell.replace(",", ".") if self.decimal == "comma" else cell)

    def settings_for(self, cell: str) -> list[dict[str, str]]:
        """The keys below `data` with which `cell` would be a number: each dictionary is one way to read it."""
        formats = [NumberFormat(decimal, mark) for decimal in ("point", "comma") for mark in (None, *MARKS)]  # type: ignore[arg-type]
        ways = [
            {
                key: getattr(number_format, key)
                for key in ("decimal", "thousands")
                if getattr(number_format, key) != getattr(self, key)
            }
            for number_format in formats
            if number_format.decimal != number_format.thousands and number_format.number(cell) is not None
        ]
        fewest = min(map(len, ways), default=0)
        return [way for way in ways if len(way) == fewest and None not in way.values()]


POINT = NumberFormat()


@lru_cache(maxsize=32)
def _pattern(decimal: Decimal, thousands: Thousands | None) -> re.Pattern[str]:
    mark = MARKS[decimal]
    integer_part = r"\d+" if thousands is None else rf"(?:\d{{1,3}}(?:{MARKS[thousands]}\d{{3}})+|\d+)"
    return re.compile(rf"[+-]?(?:{integer_part}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def looks_numeric(cell: Cell) -> bool:
    """Whether a cell is, or may be meant as, a number: such a column is not taken for categories."""
    return not isinstance(cell, str) or _NUMERIC.match(cell) is not None or cell.lower() in INFINITE


def is_missing(cell: Cell) -> bool:
    """Whether a cell of a number column has no value."""
    return cell.lower() in MISSING if isinstance(cell, str) else math.isnan(cell)


def canonical(cell: Cell, numbers: NumberFormat = POINT) -> str:
    """One text for all spellings of a label or category: 1, 1.0 and 1e0 are `1`. A missing value is empty.

    Other texts stay as they are, also numbers with leading zeros such as `007`, which are codes.
    """
    if isinstance(cell, str):
        if _WHOLE.fullmatch(cell) and not _LEADING_ZERO.match(cell):
            return str(int(cell))  # exact, however large
        value = None if _LEADING_ZERO.match(cell) else numbers.number(cell)
        if value is None:
            return cell
    elif isinstance(cell, bool | int):
        return str(cell)
    else:
        value = cell
    if math.isnan(value):
        return ""
    return str(int(value)) if abs(value) <= EXACT and value == int(value) else repr(value)


def position_of(cell: Cell, positions: Mapping[str, int], numbers: NumberFormat = POINT) -> int | None:
    """The position of a label or category among known names, in any spelling; None where it is new."""
    if isinstance(cell, str) and cell in positions:  # checkpoints of earlier versions have names as they were written
        return positions[cell]
    return positions.get(canonical(cell, numbers))


def positions_by_name(names: Iterable[str]) -> dict[str, int]:
    """The argument of `position_of`: each name, and its canonical text where that is no other name."""
    exact = {name: i for i, name in enumerate(names)}
    return {canonical(name): i for name, i in reversed(exact.items())} | exact
