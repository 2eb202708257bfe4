"""A person's own table: what is in a CSV or Parquet file, as texts by column, or in one line why it cannot be.

Read by Python's `csv` in strict mode: unlike faster readers it never guesses, and it knows its line.
"""

import codecs
import csv
import io
import stat
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from mlpexp.config.schema import DataConfig
from mlpexp.runtime.errors import UserError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
PARQUET = b"PAR1"  # how such a file begins
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # in a column of numbers; elsewhere they may be values
ENCODING_ADVICE = "set the file's encoding, e.g. data.encoding=cp1252"
SHOWN = 12  # names in a message


class Cells(NamedTuple):
    """A file's content: one text for each row in every column."""

    path: str
    columns: dict[str, list[str]]
    lines: list[int]  # of each row, in the file


def stamp(key: str, path: str) -> tuple[int, ...]:
    """What changes when a file is written to.

    Raises:
        UserError: there is no file.
    """
    try:
        found = Path(path).stat()
    except OSError:
        read_bytes(key, path)  # says why
        raise
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def read_bytes(key: str, path: str) -> bytes:
    """A regular file's content; `key` is the setting that names it.

    Raises:
        UserError: there is none, or it is a directory, a device, a FIFO, unreadable, or empty.
    """
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{key}={path} is a directory; give a file, e.g. {key}=table.csv")
        if not stat.S_ISREG(mode):
            raise UserError(f"{key}={path} is a device or a pipe, which cannot be read twice; copy it to a file first")
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key}={path} does not exist; give the path of a CSV or Parquet file") from None
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise UserError(f"{key}={path} is empty; it needs a line of column names and a line for each sample")
    return content


def cells(key: str, path: str, content: bytes, cfg: DataConfig) -> Cells:
    """The columns of a file with that content.

    Raises:
        UserError: naming line and column of what is wrong.
    """
    found = rows(f"{key}={path}", content, cfg)
    names = found[0][1]
    if content[:4] != PARQUET:
        _check_names(f"{key}={path}", names, cfg)
    if len(found) == 1:
        raise UserError(f"{key}={path} has a line of column names and no samples")
    long = [len(row) for _, row in found[1:]]
    if set(long) == {len(names) + 1}:
        raise UserError(
            f"{key}={path}: every row has {len(names) + 1} fields, but the first line names {len(names)} columns; "
            "name the missing column in the first line"
        )
    for line, row in found[1:]:
        if len(row) != len(names):
            raise UserError(
                f"{key}={path}, line {line}: {len(row)} fields, but the first line names {len(names)} columns; "
                "mend the line, or set data.separator if another character separates"
            )
    columns = {name: [row[i] for _, row in found[1:]] for i, name in enumerate(names)}
    return Cells(path, columns, [line for line, _ in found[1:]])


def rows(called: str, content: bytes, cfg: DataConfig, advice: str = ENCODING_ADVICE) -> list[tuple[int, list[str]]]:
    """Every row of a file that is not blank, the column names' first, each with its line; no blanks around cells.

    Args:
        called: the file, in errors.
        advice: what to do about a wrong encoding.

    Raises:
        UserError: it cannot be told apart into cells.
    """
    if content[:4] == PARQUET:
        return _parquet(called, content)
    text = _text(called, content, cfg.encoding, advice)
    return [(line, [cell.strip() for cell in row]) for line, row in _split(called, text, SEPARATORS[cfg.separator])]


def number(cell: str, decimal: str) -> float | None:
    """What a cell says, where `decimal` (point or comma) stands before a fraction; None where it is no number."""
    try:
        return float(cell.replace(",", ".") if decimal == "comma" else cell)
    except ValueError:
        return None


def _text(called: str, content: bytes, encoding: str, advice: str) -> str:
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(
            f"data.encoding={encoding} is unknown; e.g. data.encoding=utf-8 or data.encoding=cp1252"
        ) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not codec.startswith("utf-16"):
        raise UserError(f"{called} is not {encoding} but UTF-16; set data.encoding=utf-16")
    try:
        text = content.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{called}, line {line}: the byte 0x{content[error.start]:02x} is not {encoding}; {advice}"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{called}, line {line}: a NUL byte; this is no text, or it is damaged")
    return text


def _split(called: str, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Every row that is not blank, with the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    found: list[tuple[int, list[str]]] = []
    begins = 1
    try:
        for row in reader:
            if row:
                found.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        what = "a quote is opened and never closed" if "unexpected end" in str(error) else str(error)
        raise UserError(f"{called}, line {begins}: {what}; mend the line") from None
    return found


def _check_names(given: str, names: list[str], cfg: DataConfig) -> None:
    if "" in names:
        raise UserError(f"{given}: column {names.index('') + 1} has no name; give it one in the first line")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{given}: two columns are called {twice[0]}; give each a name of its own in the first line")
    if len(names) == 1:
        for word, separator in SEPARATORS.items():
            if separator in names[0] and word not in (cfg.separator, "space"):
                raise UserError(f"{given} has one column, {names[0]!r}; it seems that data.separator={word} is needed")


def _parquet(called: str, content: bytes) -> list[tuple[int, list[str]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{called} is a Parquet file, for which pyarrow is needed: pip install 'mlpexp[parquet]'"
        ) from None
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{called} is a damaged Parquet file: {str(error).splitlines()[0]}") from error
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in table.columns]
    return [(0, table.column_names), *((i, list(row)) for i, row in enumerate(zip(*columns, strict=True), start=1))]


def some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
