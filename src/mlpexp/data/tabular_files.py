"""Tables in CSV and Parquet files, for training and for new samples: the columns of a file and what they hold.

CSV is read by Python's `csv` in strict mode, which never guesses and knows its line. Of Parquet the column types and
the metadata of pandas are followed: an index is not a feature, a categorical is not a number.
"""

import base64
import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlpexp.config.overrides import shell_word
from mlpexp.data.cell_values import INFINITE, Cell, NumberFormat, canonical, is_missing, looks_numeric
from mlpexp.data.data_config import FILE_KEYS, DataConfig
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
PARQUET = b"PAR1"  # the first bytes of such a file
LARGEST = 2 * 2**30  # bytes
SHOWN = 12  # names in a message
_EXCEL = re.compile(r'"?sep=([,;\t| ])"?\s*?(?:\r\n|\r|\n)')

# what a column may hold; a text column of a CSV file may hold numbers, of a Parquet file it holds texts
Kind = Literal["cells", "number", "category", "refused"]


@dataclass(frozen=True)
class Source:
    """A file and how messages speak of it.

    Attributes:
        called: e.g. `data.path=table.csv`.
        settings: the configuration, where the user can change it; messages then propose overrides.
    """

    called: str
    content: bytes
    settings: DataConfig | None = None

    @property
    def settable(self) -> bool:
        return self.settings is not None

    def advice(self, key: str, value: Any, otherwise: str) -> str:
        """What to do: set a key of the configuration, or `otherwise` where that is impossible."""
        return f"set {shell_word(f'data.{key}', value)}" if self.settable else otherwise

    def drop(self, name: str) -> str:
        """The override that leaves out a column, beside those that are left out."""
        return _with_name(self.settings, "drop", name)

    def categorical(self, name: str) -> str:
        """The override that makes categories of a column, beside those that are."""
        return _with_name(self.settings, "categorical", name)

    def line(self, line: int) -> str:
        return f"{self.called}, line {line}"


def _with_name(settings: DataConfig | None, key: str, name: str) -> str:
    assert settings is not None, "nothing can be set for this file"
    return shell_word(f"data.{key}", list(dict.fromkeys((*getattr(settings, key), name))))


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

    def where(self, row: int, column: Column) -> str:
        """E.g. `data.path=table.csv, line 9, column size`."""
        return f"{self.source.line(self.lines[row])}, column {column.name}"


def digest(cfg: DataConfig) -> str:
    """SHA-256 of the bytes of the files that `cfg` names.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    # a sweep asks once for each run; a file that was written to has another stamp
    return _digest_of_files(tuple((key, path, *_stamp(key, path)) for key, path in own_files(cfg).items()))


@lru_cache(maxsize=64)
def _digest_of_files(files: tuple[tuple[Any, ...], ...]) -> str:
    return digest_of({key: read_bytes(key, path) for key, path, *_ in files})


def digest_of(contents: Mapping[str, bytes]) -> str:
    """Of the bytes of one file, or of several with the keys that name them."""
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def own_files(cfg: DataConfig) -> dict[str, str]:
    """The user's files by the keys that name them, the training file first.

    Raises:
        UserError: no file is named.
    """
    if cfg.path is None:
        raise UserError("data=csv needs a file and its column of classes, e.g. data.path=table.csv data.target=species")
    return {f"data.{key}": path for key in FILE_KEYS if (path := getattr(cfg, key)) is not None}


def _stamp(key: str, path: str) -> tuple[int, ...]:
    """What changes when a file is written to."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        read_bytes(key, path)  # says why
        raise
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def called(key: str, path: str) -> str:
    """How messages name a file: below the working directory by its relative path."""
    try:
        return f"{key}={Path(path).relative_to(Path.cwd())}"
    except (ValueError, OSError):
        return f"{key}={path}"


def read_bytes(key: str, path: str) -> bytes:
    """The content of a regular file; `key` is the setting that names it.

    Raises:
        UserError: there is none, or it is a directory, a device, a FIFO, unreadable, too large, or empty.
    """
    try:
        content = safe_files.read_bytes(path, LARGEST)
    except FileNotFoundError:
        raise UserError(f"{called(key, path)} does not exist; give the path of a CSV or Parquet file") from None
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if not content.strip():
        raise UserError(f"{called(key, path)} is empty; it needs a line of column names and a line for each sample")
    return content


def read(source: Source, cfg: DataConfig, has_header: Callable[[list[str]], bool] = lambda first: True) -> FileTable:
    """The columns of a file.

    Args:
        has_header: whether the first row of a CSV file, given to it, holds the names; otherwise columns are numbered.

    Raises:
        UserError: naming the file, and the line where there is one.
    """
    if source.content[:4] == PARQUET:
        return _parquet(source)
    rows = _rows(source, cfg)
    if not rows:
        raise UserError(f"{source.called} is empty; it needs a line for each sample")
    header = has_header(rows[0][1])
    names, body = (rows[0][1], rows[1:]) if header else ([f"{i + 1}" for i in range(len(rows[0][1]))], rows)
    if not body:
        raise UserError(f"{source.called} has a line of column names and no samples")
    if header and len(names) == 1 and source.settable:
        _refuse_separator(source, names[0], cfg)
    body = [(line, _without_empty_end(row, len(names))) for line, row in body]
    if {len(row) for _, row in body} == {len(names) + 1} and header:
        raise UserError(
            f"{source.called}: every row has {len(names) + 1} fields, but the first line names {len(names)} columns; "
            "add the missing name to the first line"
        )
    for line, row in body:
        if len(row) != len(names):
            other = "; or set data.separator if another character separates fields" if source.settable else ""
            raise UserError(
                f"{source.line(line)}: {len(row)} fields, but {len(names)} columns; correct the line{other}"
            )
    columns = [
        Column(name, list(cells))
        for name, cells in zip(names, zip(*(row for _, row in body), strict=True), strict=True)
    ]
    columns = [column for column in columns if column.name or any(column.cells)]  # Excel writes `,,` at line ends
    return FileTable(source, columns, [line for line, _ in body], header)


def _without_empty_end(row: list[str], length: int) -> list[str]:
    return row[:length] if len(row) > length and not any(row[length:]) else row


def _rows(source: Source, cfg: DataConfig) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with the line where it begins, without blanks around cells."""
    text, separator, line = _text(source, cfg.encoding), SEPARATORS[cfg.separator], 1
    if match := _EXCEL.match(text):  # Excel's first line `sep=;`
        text, separator, line = text[match.end() :], match[1], 2
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator != " ")
    found: list[tuple[int, list[str]]] = []
    offset, begins = line - 1, line
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((begins, cells))
            begins = reader.line_num + offset + 1
    except csv.Error as error:
        what = str(error)
        if "unexpected end" in what:
            what = "a quote is opened and never closed"
        elif "expected after" in what:
            what = "a closing quote is followed by something else than a separator; double the quotes inside a text"
        raise UserError(f"{source.line(begins)}: {what}; correct the line") from None
    return found


def _text(source: Source, encoding: str) -> str:
    content = source.content
    unknown = f"data.encoding={encoding} is not a text encoding; e.g. data.encoding=utf-8 or data.encoding=cp1252"
    try:
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UserError(unknown) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not codec.startswith("utf-16"):
        advice = source.advice("encoding", "utf-16", f"save it as {encoding}")
        raise UserError(f"{source.called} is not {encoding} but UTF-16; {advice}")
    try:
        text = content.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        advice = source.advice("encoding", "cp1252", f"save it as {encoding}")
        if source.settable:
            advice = f"{advice}, or the encoding in which it was saved"
        raise UserError(
            f"{source.line(line)}: the byte 0x{content[error.start]:02x} is not {encoding}; {advice}"
        ) from None
    except (LookupError, ValueError):  # such as hex, which decodes to bytes
        raise UserError(unknown) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{source.line(line)}: a NUL byte; this is not text, or it is damaged")
    return text


def _refuse_separator(source: Source, name: str, cfg: DataConfig) -> None:
    for word, separator in SEPARATORS.items():
        if separator in name and word not in (cfg.separator, "space"):
            advice = f"if another character separates fields, set data.separator={word}"
            raise UserError(f"{source.called} has one column, {name!r}; {advice}")


def _parquet(source: Source) -> FileTable:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{source.called} is a Parquet file, for which pyarrow is needed: pip install 'mlpexp[parquet]'"
        ) from None
    try:
        file = parquet.ParquetFile(io.BytesIO(source.content))
        table = file.read()
        stored = _stored_types(file)
        pandas = _pandas_metadata(file)
        columns = [
            _parquet_column(name, array, stored.get(name, array.type), pandas)
            for name, array in zip(table.column_names, table.columns, strict=True)
        ]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source.called} is a damaged Parquet file: {str(error).splitlines()[0]}") from error
    if not table.num_rows:
        raise UserError(f"{source.called} has columns and no samples")
    return FileTable(source, columns, list(range(1, table.num_rows + 1)))


def _stored_types(file: Any) -> dict[str, Any]:
    """The Arrow types with which a file was written: Parquet itself knows no dictionary of whole numbers."""
    from pyarrow import ipc

    encoded = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return {}
    return {each.name: each.type for each in ipc.read_schema(io.BytesIO(base64.b64decode(encoded)))}


class _Pandas(NamedTuple):
    indices: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()


def _pandas_metadata(file: Any) -> _Pandas:
    encoded = (file.metadata.metadata or {}).get(b"pandas")
    if encoded is None:
        return _Pandas()
    plain = json.loads(encoded)
    columns = [each for each in plain["columns"] if each.get("pandas_type") == "categorical"]
    return _Pandas(
        frozenset(name for name in plain["index_columns"] if isinstance(name, str)),
        frozenset(str(each.get("field_name", each.get("name"))) for each in columns),
    )


def _parquet_column(name: str, array: Any, stored: Any, pandas: _Pandas) -> Column:
    from pyarrow import types

    of_values = array.type.value_type if types.is_dictionary(array.type) else array.type
    cells = array.to_pylist
    is_category = types.is_dictionary(stored) or types.is_dictionary(array.type) or name in pandas.categorical
    column = Column(name, [], type=str(of_values), is_index=name in pandas.indices)
    if types.is_null(of_values):
        return column._replace(kind="number", cells=["" for _ in range(len(array))])
    if types.is_integer(of_values) or types.is_floating(of_values) or types.is_decimal(of_values):
        numbers: list[Cell] = [
            "" if cell is None else cell if isinstance(cell, int | float) else float(cell) for cell in cells()
        ]
        if is_category:
            return column._replace(kind="category", cells=[canonical(cell) for cell in numbers])
        return column._replace(kind="number", cells=numbers)
    if types.is_boolean(of_values) or types.is_string(of_values) or types.is_large_string(of_values):
        return column._replace(kind="category", cells=["" if cell is None else str(cell) for cell in cells()])
    return column._replace(kind="refused")


def numbers(table: FileTable, column: Column, form: NumberFormat, *, missing: bool) -> list[float]:
    """The values of a column, NaN where one is missing.

    Args:
        missing: whether values may be missing.

    Raises:
        UserError: naming line and column of what is not a finite number.
    """
    found: list[float] = []
    for row, cell in enumerate(column.cells):
        if is_missing(cell):
            if not missing:
                raise _missing(table, row, column)
            found.append(float("nan"))
            continue
        value = form.number(cell)
        if value is None and str(cell).lower() not in INFINITE:
            raise _not_a_number(table, row, column, str(cell), form)
        if value is None or value in (float("inf"), float("-inf")):
            other = f", or leave the column out with {table.source.drop(column.name)}" if table.source.settable else ""
            raise UserError(f"{table.where(row, column)}: {str(cell)[:40]!r} is not finite; correct it{other}")
        found.append(value)
    return found


def categories(table: FileTable, column: Column, form: NumberFormat, *, missing: bool) -> list[str | None]:
    """The canonical texts of a column, None where one is missing.

    Raises:
        UserError: a value is missing and may not be.
    """
    texts = {cell: canonical(cell, form) for cell in set(column.cells)}
    found = [texts[cell] or None for cell in column.cells]
    if not missing and None in found:
        raise _missing(table, found.index(None), column)
    return found


def _missing(table: FileTable, row: int, column: Column) -> UserError:
    cell = column.cells[row]
    advice = table.source.advice("missing", "median", "add it: no value was missing in training")
    what = repr(cell) if isinstance(cell, str) and cell else "the value"
    return UserError(f"{table.where(row, column)}: {what} is missing; correct it, or {advice}")


def _not_a_number(table: FileTable, row: int, column: Column, cell: str, form: NumberFormat) -> UserError:
    said = f"{table.where(row, column)}: {cell[:40]!r} is not a number"
    if not table.source.settable:
        mark = " with a decimal point" if form == NumberFormat() else ""
        return UserError(f"{said}; write digits{mark}, as in training")
    ways = []
    for way in form.settings_for(cell):
        value = NumberFormat(**{"decimal": form.decimal, "thousands": form.thousands} | way).number(cell)  # type: ignore[arg-type]
        ways.append(f"{' '.join(f'data.{key}={mark}' for key, mark in way.items())} (reads {value!r})")
    categorical = table.source.categorical(column.name)
    if ways:
        return UserError(f"{said}; set {' or '.join(ways)}, or use the column as categories with {categorical}")
    return UserError(f"{said}; correct it, or use the column as categories with {categorical}")


def listed(names: Sequence[str], most: int = SHOWN) -> str:
    """Names in a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def is_category(column: Column) -> bool:
    """Whether a column holds categories: by its type, or because no cell of it looks like a number."""
    if column.kind != "cells":
        return column.kind == "category"
    filled = [cell for cell in column.cells if not is_missing(cell)]
    return bool(filled) and not any(map(looks_numeric, filled))
