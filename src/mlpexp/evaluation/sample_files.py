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
        reading = {key: getattr(cfg, key) for key in ("separator", "decimal", "thousands", "encoding")}
        options = [f"data.{key}={value}" for key, value in reading.items() if value != getattr(DataConfig(), key)]
        if cfg.name != "csv" or not options:
            raise
        raise UserError(f"{error} (it is read as the run's own data, with {' '.join(options)})") from error


def _read(path: Path, content: bytes, data: Description, cfg: DataConfig, *, labelled: bool) -> Samples:
    file_cfg = cfg if cfg.name == "csv" else DataConfig(separator=_separator(content))
    form, features = NumberFormat.from_config(file_cfg), data.features
    table = tabular_files.read(Source(str(path), content), file_cfg, lambda first: _has_header(first, data, form))
    columns = _columns(path, table, data, file_cfg.targets, labelled=labelled)
    size = len(table.lines)
    numbers = [file_table.numbers(table, column, form, missing=bool(features.fill)) for column in columns.numbers]
    texts = [
        file_table.categories(table, column, form, missing=bool(features.category_fill))
        for column in columns.categories
    ]
    categories, remarks = _known(texts, data, size)
    values = np.array(numbers, dtype=np.float64).reshape(len(numbers), size).T
    labels: NDArray[Any] | None = None
    if labelled and data.target_names:
        true = [file_table.numbers(table, column, form, missing=False) for column in columns.labels]
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


def _has_header(first_row: Sequence[str], data: Description, form: NumberFormat) -> bool:
    features = data.features
    if {*features.names, *features.category_names} <= set(first_row) or features.category_names:
        return True  # categories are found by their names only
    values = first_row if len(first_row) <= len(features.names) else first_row[: len(features.names)]
    return all(form.number(cell) is None for cell in values)  # one wrong cell is a mistake, not a header


def _columns(path: Path, table: FileTable, data: Description, targets: Sequence[str], *, labelled: bool) -> _Columns:
    features, all_columns = data.features, table.columns
    names, present = [*features.names, *features.category_names], [column.name for column in table.columns]
    remarks: list[str] = []
    if table.header and set(names) <= set(present):
        if repeated := [name for name in names if present.count(name) > 1]:
            raise UserError(f"{path} has the column {repeated[0]} twice; remove one of them")
        inputs = [table.by_name[name] for name in names]
        unused = [column for column in all_columns if column not in inputs]
    else:
        if features.category_names or (table.header and len(all_columns) not in (len(names), len(names) + 1)):
            missing = [name for name in names if name not in present]
            raise UserError(
                f"{path} lacks the column{'s' * (len(missing) != 1)} {listed(missing)}; it has {listed(present)}"
            )
        if len(all_columns) not in (len(names), len(names) + 1):
            raise UserError(
                f"{path} has {len(all_columns)} columns, but the network was trained on {len(names)}"
                f"{' (and a last one with the class)' if labelled else ''}"
            )
        if table.header:
            remarks.append(f"{path.name}: its columns have other names than in training, so they are taken in order")
        inputs, unused = all_columns[: len(names)], all_columns[len(names) :]
    for column in inputs:
        if column.kind == "refused":
            raise UserError(f"{path}: column {column.name} holds {column.type}, neither numbers nor texts; convert it")
    labels: list[Column] = []
    if labelled:
        targets = data.target_names or targets
        by_name = {column.name: column for column in unused} if table.header else {}
        labels = [by_name[name] for name in targets if name in by_name]
        if len(labels) < max(1, len(data.target_names)):
            labels = [column for name, column in by_name.items() if name.lower() in LABEL_NAMES][:1] or unused
            if len(labels) != 1 or len(data.target_names) > 1:
                kind = "values" if data.target_names else "classes"
                absent = [name for name in targets if name not in by_name]
                problem = (
                    f"no column {listed(absent)}" if absent else f"no column of true {kind} (e.g. {LABEL_NAMES[0]})"
                )
                raise UserError(f"{path} has {problem}: an evaluation needs it; predict.py does not")
    return _Columns(inputs[: len(features.names)], inputs[len(features.names) :], labels, remarks)


def _known(texts: list[list[str | None]], data: Description, size: int) -> tuple[NDArray[np.object_] | None, list[str]]:
    """The categories as training spelled them (m, K), and a remark for each column with others."""
    if not texts:
        return None, []
    remarks = []
    columns = np.empty((size, len(texts)), dtype=object)
    for k, (name, values, column) in enumerate(
        zip(data.features.category_names, data.features.values, texts, strict=True)
    ):
        indices, unknown = positions_by_name(values), set()
        for row, text in enumerate(column):
            index = None if text is None else position_of(text, indices)
            columns[row, k] = text if index is None else values[index]
            if text is not None and index is None:
                unknown.add(text)
        if unknown:
            remarks.append(
                f"{name}: {listed(sorted(unknown))} did not occur in training, and counts as none of its values"
            )
    return columns, remarks


def _labels(table: FileTable, column: Column, data: Description, form: NumberFormat) -> NDArray[np.int64]:
    indices, labels = positions_by_name(data.class_names), []
    for row, cell in enumerate(column.cells):
        index = position_of(cell, indices, form)
        if index is None:
            raise UserError(
                f"{table.location(row, column)}: the class {canonical(cell, POINT)[:40]!r} is not among the network's: "
                f"{listed(data.class_names, 10)}"
            )
        labels.append(index)
    return np.array(labels, dtype=np.int64)


def _scale_remarks(numbers: NDArray[np.float64], data: Description) -> list[str]:
    """Images with another range of values than the training data are classified, but are probably a mistake."""
    if data.image_shape is None or not numbers.size:
        return []
    bound, largest = float(np.max(np.add(data.features.shift, data.features.scale))), float(numbers.max())
    if largest > 1.5 * bound:
        return [f"values go up to {largest:g}, but in training to {bound:g}: give raw values from 0 to {bound:g}"]
    if bound > 2 and 0 < largest <= 1:
        return [f"no value is above 1, but in training they go up to {bound:g}: raw values are wanted, not scaled ones"]
    return []
