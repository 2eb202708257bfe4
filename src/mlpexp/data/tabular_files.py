"""Tables in files, for training and for new samples: bytes, digests, and the rows of CSV files.

CSV is read by Python's `csv` in strict mode, which does not guess, and counts lines.
"""

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlpexp.data.data_config import FILE_KEYS, DataConfig
from mlpexp.data.file_table import Column, FileTable, Source
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
PARQUET = b"PAR1"  # the first bytes of such a file
LARGEST = 2 * 2**30  # bytes
_EXCEL = re.compile(r'"?sep=([,;\t| ])"?\s*?(?:\r\n|\r|\n)')


def digest(cfg: DataConfig) -> str:
    """SHA-256 of the bytes of the files that `cfg` names.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    # called once for each run of a sweep; a file that was written to has another stamp
    return _digest_of_files(tuple((key, path, *_stamp(key, path)) for key, path in own_files(cfg).items()))


@lru_cache(maxsize=64)
def _digest_of_files(files: tuple[tuple[Any, ...], ...]) -> str:
    return digest_of({key: read_bytes(key, path) for key, path, *_ in files})


def digest_of(contents: Mapping[str, bytes]) -> str:
    """SHA-256 of the bytes of one file, or of several files with the keys that name them."""
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
    """Times, size and inode of a file: they change when it is written to."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        read_bytes(key, path)  # says why
        raise
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def file_label(key: str, path: str) -> str:
    """The name of a file in messages; below the working directory its path is relative."""
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
        raise UserError(f"{file_label(key, path)} does not exist; give the path of a CSV or Parquet file") from None
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if not content.strip():
        raise UserError(f"{file_label(key, path)} is empty; it needs a line of column names and a line for each sample")
    return content


def read(source: Source, cfg: DataConfig, has_header: Callable[[list[str]], bool] = lambda first: True) -> FileTable:
    """The columns of a file.

    Args:
        has_header: decides by the first row of a CSV file whether it holds the names; otherwise columns are numbered.

    Raises:
        UserError: naming the file, and the line where there is one.
    """
    if source.content[:4] == PARQUET:
        from mlpexp.data import parquet_files

        return parquet_files.read(source)
    rows = _rows(source, cfg)
    if not rows:
        raise UserError(f"{source.label} is empty; it needs a line for each sample")
    header = has_header(rows[0][1])
    names, body = (rows[0][1], rows[1:]) if header else ([f"{i + 1}" for i in range(len(rows[0][1]))], rows)
    if not body:
        raise UserError(f"{source.label} has a line of column names and no samples")
    if header and len(names) == 1 and source.settable:
        _refuse_separator(source, names[0], cfg)
    body = [(line, _without_empty_end(row, len(names))) for line, row in body]
    if header and len(names) == 1 and (line := next((line for line, row in body if len(row) > 1), None)) is not None:
        raise UserError(
            f"{source.line(line)}: several fields, but the first line has one column name, {names[0]!r}; if it is no "
            "line of column names, remove it"
        )
    if {len(row) for _, row in body} == {len(names) + 1} and header:
        raise UserError(
            f"{source.label}: every row has {len(names) + 1} fields, but the first line names {len(names)} columns; "
            "add the missing name to the first line"
        )
    for line, row in body:
        if len(row) != len(names):
            advice = "; or set data.separator if another character separates fields" if source.settable else ""
            raise UserError(
                f"{source.line(line)}: {len(row)} fields, but {len(names)} columns; correct the line{advice}"
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
    rows: list[tuple[int, list[str]]] = []
    offset, begins = line - 1, line
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((begins, cells))
            begins = reader.line_num + offset + 1
    except csv.Error as error:
        reason = str(error)
        if "unexpected end" in reason:
            reason = "a quote is opened and never closed"
        elif "expected after" in reason:
            reason = "a closing quote is followed by something else than a separator; double the quotes inside a text"
        raise UserError(f"{source.line(begins)}: {reason}; correct the line") from None
    return rows


def _text(source: Source, encoding: str) -> str:
    content = source.content
    unknown = f"data.encoding={encoding} is not a text encoding; e.g. data.encoding=utf-8 or data.encoding=cp1252"
    try:
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UserError(unknown) from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not codec.startswith("utf-16"):
        advice = source.advice("encoding", "utf-16", f"save it as {encoding}")
        raise UserError(f"{source.label} is not {encoding} but UTF-16; {advice}")
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
            raise UserError(f"{source.label} has one column, {name!r}; {advice}")
