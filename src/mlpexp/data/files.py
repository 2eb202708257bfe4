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

from mlpexp.config import DataConfig
from mlpexp.errors import UserError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
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
    if content[:4] == b"PAR1":
        return _parquet(key, path, content)
    rows = _rows(key, path, _text(key, path, content, cfg.encoding), SEPARATORS[cfg.separator])
    names = [name.strip() for name in rows[0][1]]
    _check_names(f"{key}={path}", names, cfg)
    if len(rows) == 1:
        raise UserError(f"{key}={path} has a line of column names and no samples")
    long = [len(row) for _, row in rows[1:]]
    if set(long) == {len(names) + 1}:
        raise UserError(
            f"{key}={path}: every row has {len(names) + 1} fields, but the first line names {len(names)} columns; "
            "name the missing column in the first line"
        )
    for line, row in rows[1:]:
        if len(row) != len(names):
            raise UserError(
                f"{key}={path}, line {line}: {len(row)} fields, but the first line names {len(names)} columns; "
                "mend the line, or set data.separator if another character separates"
            )
    columns = {name: [row[i].strip() for _, row in rows[1:]] for i, name in enumerate(names)}
    return Cells(path, columns, [line for line, _ in rows[1:]])


def _text(key: str, path: str, content: bytes, encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(
            f"data.encoding={encoding} is unknown; e.g. data.encoding=utf-8 or data.encoding=cp1252"
        ) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not codec.startswith("utf-16"):
        raise UserError(f"{key}={path} is not {encoding} but UTF-16; set data.encoding=utf-16")
    try:
        text = content.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{key}={path}, line {line}: the byte 0x{content[error.start]:02x} is not {encoding}; "
            "set the file's encoding, e.g. data.encoding=cp1252"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{key}={path}, line {line}: a NUL byte; this is no text, or it is damaged")
    return text


def _rows(key: str, path: str, text: str, separator: str) -> list[tuple[int, list[str]]]:
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
        raise UserError(f"{key}={path}, line {begins}: {what}; mend the line") from None
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


def _parquet(key: str, path: str, content: bytes) -> Cells:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{key}={path} is a Parquet file, for which pyarrow is needed: pip install 'mlpexp[parquet]'"
        ) from None
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{key}={path} is a damaged Parquet file: {str(error).splitlines()[0]}") from error
    columns = {
        name: ["" if value is None else str(value) for value in table.column(i).to_pylist()]
        for i, name in enumerate(table.column_names)
    }
    if not table.num_rows:
        raise UserError(f"{key}={path} has column names and no samples")
    return Cells(path, columns, list(range(1, table.num_rows + 1)))


def some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
