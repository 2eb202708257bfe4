"""New samples out of a CSV file, in the raw units in which the network's own data came.

Letters: m samples, J number columns, K category columns.
"""

import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.schema import DataConfig
from mlpexp.data import tabular_files
from mlpexp.data.data_description import Description
from mlpexp.runtime.errors import UserError

LARGEST = 2**30  # bytes of a file that is read at once
SEPARATORS: dict[Literal["comma", "semicolon", "tab"], bytes] = {"comma": b",", "semicolon": b";", "tab": b"\t"}
LABEL_NAMES = ("label", "target", "class", "digit", "y")


class Samples(NamedTuple):
    """What a file holds."""

    numbers: NDArray[np.float64]  # (m, J); NaN where a value is missing
    categories: NDArray[np.object_] | None  # (m, K) texts, None where one is missing
    labels: NDArray[np.int64] | None  # (m,); None where there is no such column, or it is not wanted
    remarks: list[str]
    content: bytes


class _Columns(NamedTuple):
    numbers: list[int]
    categories: list[int]
    label: int | None
    names: Sequence[str]  # of all columns, for errors
    remarks: list[str]


def read(path: Path, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    """All samples in a file with the same columns as the training's, by name, or without a header by their order.

    Args:
        cfg: how the run's own data was read.
        labelled: a column of true classes is needed; otherwise one that is there is left alone.

    Raises:
        UserError: naming the file, and the row and column where there is one.
    """
    content = contents(path)
    try:
        return _read(path, content, data, cfg, labelled=labelled)
    except UserError as error:
        given = {key: getattr(cfg, key) for key in ("separator", "decimal", "encoding")}
        others = [f"data.{key}={value}" for key, value in given.items() if value != getattr(DataConfig(), key)]
        if cfg.name != "csv" or not others:
            raise
        raise UserError(f"{error} (it is read as the run's own data, with {' '.join(others)})") from error


def _read(path: Path, content: bytes, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    rows = _rows(path, content, cfg)
    features = data.features
    header = _has_header(rows[0][1], data, cfg.decimal)
    columns = _columns(path, rows[0][1], header, data, cfg.target, labelled=labelled)
    body = rows[1:] if header else rows
    if not body:
        raise UserError(f"{path} has a header, but no samples")
    for line, row in body:
        if len(row) != len(columns.names):
            raise UserError(f"{path}, line {line}: {len(row)} fields, but {len(columns.names)} columns")
    numbers = np.array(
        [[_number(path, line, columns.names[c], row[c], cfg.decimal) for c in columns.numbers] for line, row in body],
        dtype=np.float64,
    ).reshape(len(body), len(features.names))
    if not features.fill:
        for (line, _), gaps in zip(body, np.isnan(numbers), strict=True):
            if gaps.any():
                name = columns.names[columns.numbers[int(gaps.argmax())]]
                raise UserError(f"{path}, line {line}: {name} is missing, and no value was missing in training")
    categories = None
    if features.category_names:
        categories = np.empty((len(body), len(features.category_names)), dtype=object)
        for i, (line, row) in enumerate(body):
            for k, c in enumerate(columns.categories):
                value = row[c] or None  # a text such as NA may be a category
                if value is None and not features.category_fill:
                    raise UserError(
                        f"{path}, line {line}: {columns.names[c]} is missing, and no value was missing in training"
                    )
                categories[i, k] = value
    labels = None
    if labelled:
        assert columns.label is not None
        labels = np.array([_label(path, line, row[columns.label], data) for line, row in body], dtype=np.int64)
    remarks = [*columns.remarks, *_scale_remarks(numbers, data), *_new_values(categories, data)]
    return Samples(numbers, categories, labels, remarks, content)


def contents(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        UserError: it is missing, no file, empty or too large.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a file with samples") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path} is a directory; give a file with samples")
    if not stat.S_ISREG(found.st_mode):  # a device or a pipe might never end
        raise UserError(f"{path} is no regular file; give a file with samples")
    if found.st_size == 0:
        raise UserError(f"{path} is empty")
    if found.st_size > LARGEST:
        raise UserError(f"{path} has {found.st_size / 2**20:,.0f} MiB; give it in parts of at most 1,024")
    return path.read_bytes()


def _rows(path: Path, content: bytes, cfg: DataConfig) -> list[tuple[int, list[str]]]:
    """As a run's own table is read; of data that is no table of a person's, the first line shows the separator."""
    if cfg.name != "csv":
        line = next((line for line in content.splitlines() if line.strip()), b"")
        found = max(SEPARATORS, key=lambda separator: line.count(SEPARATORS[separator]))
        cfg = DataConfig(separator=found)
    rows = tabular_files.rows(str(path), content, cfg, f"save it as {cfg.encoding}")
    if not (rows := [(line, row) for line, row in rows if any(row)]):
        raise UserError(f"{path} is empty")
    return rows


def _has_header(first: Sequence[str], data: Description, decimal: str) -> bool:
    features = data.features
    if {*features.names, *features.category_names} <= set(first):
        return True
    if features.category_names:
        return True  # without names there is no telling the columns apart
    values = first if len(first) <= len(features.names) else first[: len(features.names)]
    return all(
        tabular_files.number(cell, decimal) is None for cell in values
    )  # one wrong cell is a mistake, not a header


def _columns(
    path: Path, first: Sequence[str], header: bool, data: Description, target: str | None, *, labelled: bool
) -> _Columns:
    features = data.features
    wanted, given = [*features.names, *features.category_names], len(first)
    remarks: list[str] = []
    by_name = header and set(wanted) <= set(first)
    if by_name:
        if doubled := [name for name in wanted if first.count(name) > 1]:
            raise UserError(f"{path} has the column {doubled[0]} twice")
        places = [first.index(name) for name in wanted]
        others = [c for c in range(given) if c not in places]
    else:
        if features.category_names or (header and given not in (len(wanted), len(wanted) + 1)):
            missing = [name for name in wanted if name not in first]
            raise UserError(
                f"{path} lacks the column{'s' * (len(missing) != 1)} {_listed(missing)}; it has {_listed(list(first))}"
            )
        if given not in (len(wanted), len(wanted) + 1):
            raise UserError(
                f"{path} has {given} columns, but the network was trained on {len(wanted)}"
                f"{' (and a last one with the class)' if labelled else ''}"
            )
        if header:
            remarks.append(f"{path.name}: its columns have other names than in training, so they are taken in order")
        places = list(range(len(wanted)))
        others = list(range(len(wanted), given))
    names = list(first) if header else [f"column {c + 1}" for c in range(given)]
    label = None
    if labelled:
        named = [c for c in others if header and first[c] == target] or [
            c for c in others if header and first[c].lower() in LABEL_NAMES
        ]
        if not named and len(others) != 1:
            what = f"no column {target}" if target else f"no column of true classes (e.g. {LABEL_NAMES[0]})"
            raise UserError(f"{path} has {what}: an evaluation needs it; predict.py does not")
        label = (named or others)[0]
    return _Columns(places[: len(features.names)], places[len(features.names) :], label, names, remarks)


def _number(path: Path, line: int, name: str, cell: str, decimal: str) -> float:
    if cell.lower() in tabular_files.MISSING:
        return math.nan
    value = tabular_files.number(cell, decimal)
    if value is None:
        mend = "; write decimals with a point" if tabular_files.number(cell, "comma") is not None else ""
        raise UserError(f"{path}, line {line}: {name} is {cell[:40]!r}, no number{mend}")
    if math.isinf(value):
        raise UserError(f"{path}, line {line}: {name} is infinite")
    return value


def _label(path: Path, line: int, cell: str, data: Description) -> int:
    names = data.class_names
    if cell in names:
        return names.index(cell)
    value = tabular_files.number(cell, "point")
    if value is not None and f"{value:g}" in names:  # 3.0 is the class 3
        return names.index(f"{value:g}")
    raise UserError(f"{path}, line {line}: the class {cell[:40]!r} is none of the network's: {_listed(names)}")


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _scale_remarks(numbers: NDArray[np.float64], data: Description) -> list[str]:
    """Pictures in another range of values than the training's are classified, but hardly meant so."""
    if data.image_shape is None or not numbers.size:
        return []
    top, largest = float(np.max(np.add(data.features.shift, data.features.scale))), float(numbers.max())
    if largest > 1.5 * top:
        return [f"values go up to {largest:g}, but in training to {top:g}: give raw values from 0 to {top:g}"]
    if top > 2 and 0 < largest <= 1:
        return [f"no value is above 1, but in training they go up to {top:g}: raw values are wanted, not scaled ones"]
    return []


def _new_values(categories: NDArray[np.object_] | None, data: Description) -> list[str]:
    if categories is None:
        return []
    found = []
    for name, known, column in zip(data.features.category_names, data.features.values, categories.T, strict=True):
        new = sorted({value for value in column if value is not None and value not in known})
        if new:
            found.append(f"{name}: {_listed(new)} did not occur in training, and counts as none of its values")
    return found
