"""New samples from a CSV or Parquet file, in the units of the data that the network was trained on.

Letters: m samples, J number columns, K category columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpexp.data import file_table, tabular_files
from mlpexp.data.cell_values import POINT, NumberFormat, canonical, position_of, positions_by_name
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.data.file_table import Column, FileTable, Source, listed
from mlpexp.data.tabular_files import SEPARATORS
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError

LARGEST = 2**30  # bytes of a file
LABEL_NAMES = ("label", "target", "class", "digit", "y")


class Samples(NamedTuple):
    """The content of a file."""

    numbers: NDArray[np.float64]  # (m, J); NaN where a value is missing
    categories: NDArray[np.object_] | None  # (m, K) texts, None where one is missing
    labels: NDArray[Any] | None  # classes (m,), or standardised values (m, T) float32; None where they are not wanted
    remarks: list[str]
    content: bytes


class _Columns(NamedTuple):
    numbers: list[Column]
    categories: list[Column]
    labels: list[Column]
    remarks: list[str]


def read(path: Path, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    """All samples in a file with the columns of the training data, by name, or without a header in their order.

    Args:
        cfg: how the run's own data was read.
        labelled: a column of true classes is needed; otherwise one that is there is ignored.

    Raises:
        UserError: naming the file, and the row and column where there is one.
    """
    return parse(path, contents(path), data, cfg, labelled=labelled)


def parse(path: Path, content: bytes, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    """As `read`, of bytes that are at hand; `path` is named in messages."""
    try:
        return _read(path, content, data, cfg, labelled=labelled)
    except UserError as error:
        given = {key: getattr(cfg, key) for key in ("separator", "decimal", "thousands", "encoding")}
        others = [f"data.{key}={value}" for key, value in given.items() if value != getattr(DataConfig(), key)]
        if cfg.name != "csv" or not others:
            raise
        raise UserError(f"{error} (it is read as the run's own data, with {' '.join(others)})") from error


def _read(path: Path, content: bytes, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    own = cfg if cfg.name == "csv" else DataConfig(separator=_separator(content))
    form, features = NumberFormat.from_config(own), data.features
    table = tabular_files.read(Source(str(path), content), own, lambda first: _has_header(first, data, form))
    columns = _columns(path, table, data, own.targets, labelled=labelled)
    size = len(table.lines)
    numbers = [file_table.numbers(table, each, form, missing=bool(features.fill)) for each in columns.numbers]
    texts = [
        file_table.categories(table, each, form, missing=bool(features.category_fill)) for each in columns.categories
    ]
    categories, remarks = _known(texts, data, size)
    values = np.array(numbers, dtype=np.float64).reshape(len(numbers), size).T
    labels: NDArray[Any] | None = None
    if labelled and data.target_names:
        true = [file_table.numbers(table, each, form, missing=False) for each in columns.labels]
        labels = ((np.array(true).T - data.target_shift) / data.target_scale).astype(np.float32)
    elif labelled:
        labels = _labels(table, columns.labels[0], data, form)
    return Samples(values, categories, labels, [*columns.remarks, *_scale_remarks(values, data), *remarks], content)


def contents(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        UserError: it is missing, not a regular file, empty or too large.
    """
    try:
        content = safe_files.read_bytes(path, LARGEST)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a file with samples") from None
    if not content.strip():
        raise UserError(f"{path} is empty; give a file with samples")
    return content


def _separator(content: bytes) -> Literal["comma", "semicolon", "tab"]:
    """The most frequent separator of the first line: the network's own data was not a file of the user."""
    line = next((line for line in content.splitlines() if line.strip()), b"")
    choices: tuple[Literal["comma", "semicolon", "tab"], ...] = ("comma", "semicolon", "tab")
    return max(choices, key=lambda name: line.count(SEPARATORS[name].encode()))


def _has_header(first: Sequence[str], data: Description, form: NumberFormat) -> bool:
    features = data.features
    if {*features.names, *features.category_names} <= set(first) or features.category_names:
        return True  # categories are found by their names only
    values = first if len(first) <= len(features.names) else first[: len(features.names)]
    return all(form.number(cell) is None for cell in values)  # one wrong cell is a mistake, not a header


def _columns(path: Path, table: FileTable, data: Description, targets: Sequence[str], *, labelled: bool) -> _Columns:
    features, given = data.features, table.columns
    wanted, there = [*features.names, *features.category_names], [column.name for column in table.columns]
    remarks: list[str] = []
    if table.header and set(wanted) <= set(there):
        if repeated := [name for name in wanted if there.count(name) > 1]:
            raise UserError(f"{path} has the column {repeated[0]} twice; remove one of them")
        chosen = [table.by_name[name] for name in wanted]
        others = [column for column in given if column not in chosen]
    else:
        if features.category_names or (table.header and len(given) not in (len(wanted), len(wanted) + 1)):
            missing = [name for name in wanted if name not in there]
            raise UserError(
                f"{path} lacks the column{'s' * (len(missing) != 1)} {listed(missing)}; it has {listed(there)}"
            )
        if len(given) not in (len(wanted), len(wanted) + 1):
            raise UserError(
                f"{path} has {len(given)} columns, but the network was trained on {len(wanted)}"
                f"{' (and a last one with the class)' if labelled else ''}"
            )
        if table.header:
            remarks.append(f"{path.name}: its columns have other names than in training, so they are taken in order")
        chosen, others = given[: len(wanted)], given[len(wanted) :]
    for column in chosen:
        if column.kind == "refused":
            raise UserError(f"{path}: column {column.name} holds {column.type}, neither numbers nor texts; convert it")
    labels: list[Column] = []
    if labelled:
        targets = data.target_names or targets
        by_name = {column.name: column for column in others} if table.header else {}
        labels = [by_name[name] for name in targets if name in by_name]
        if len(labels) < max(1, len(data.target_names)):
            labels = [column for name, column in by_name.items() if name.lower() in LABEL_NAMES][:1] or others
            if len(labels) != 1 or len(data.target_names) > 1:
                kind = "values" if data.target_names else "classes"
                absent = [name for name in targets if name not in by_name]
                what = f"no column {listed(absent)}" if absent else f"no column of true {kind} (e.g. {LABEL_NAMES[0]})"
                raise UserError(f"{path} has {what}: an evaluation needs it; predict.py does not")
    return _Columns(chosen[: len(features.names)], chosen[len(features.names) :], labels, remarks)


def _known(texts: list[list[str | None]], data: Description, size: int) -> tuple[NDArray[np.object_] | None, list[str]]:
    """The categories as training spelled them (m, K), and a remark for each column with others."""
    if not texts:
        return None, []
    remarks = []
    columns = np.empty((size, len(texts)), dtype=object)
    for k, (name, values, column) in enumerate(
        zip(data.features.category_names, data.features.values, texts, strict=True)
    ):
        known, new = positions_by_name(values), set()
        for row, text in enumerate(column):
            place = None if text is None else position_of(text, known)
            columns[row, k] = text if place is None else values[place]
            if text is not None and place is None:
                new.add(text)
        if new:
            remarks.append(f"{name}: {listed(sorted(new))} did not occur in training, and counts as none of its values")
    return columns, remarks


def _labels(table: FileTable, column: Column, data: Description, form: NumberFormat) -> NDArray[np.int64]:
    known, labels = positions_by_name(data.class_names), []
    for row, cell in enumerate(column.cells):
        place = position_of(cell, known, form)
        if place is None:
            raise UserError(
                f"{table.location(row, column)}: the class {canonical(cell, POINT)[:40]!r} is not among the network's: "
                f"{listed(data.class_names, 10)}"
            )
        labels.append(place)
    return np.array(labels, dtype=np.int64)


def _scale_remarks(numbers: NDArray[np.float64], data: Description) -> list[str]:
    """Images with another range of values than the training data are classified, but are probably a mistake."""
    if data.image_shape is None or not numbers.size:
        return []
    top, largest = float(np.max(np.add(data.features.shift, data.features.scale))), float(numbers.max())
    if largest > 1.5 * top:
        return [f"values go up to {largest:g}, but in training to {top:g}: give raw values from 0 to {top:g}"]
    if top > 2 and 0 < largest <= 1:
        return [f"no value is above 1, but in training they go up to {top:g}: raw values are wanted, not scaled ones"]
    return []
