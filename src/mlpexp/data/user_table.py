"""A user's own table as numbers, categories, and classes or values to predict; `data=csv`."""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.overrides import shell_word
from mlpexp.data import file_table, tabular_files
from mlpexp.data.cell_values import (
    EXACT,
    POINT,
    Cell,
    NumberFormat,
    canonical,
    is_missing,
    looks_numeric,
    position_of,
    positions_by_name,
)
from mlpexp.data.data_config import DataConfig
from mlpexp.data.file_table import Column, FileTable, Source, is_category, listed
from mlpexp.data.table import Table
from mlpexp.data.tabular_files import file_label, read_bytes
from mlpexp.runtime.errors import UserError

MANY_NUMBERS = 20  # different numbers with fractions in the target: it is not a column of classes
LEAST_WEIGHT = 1e-30  # of a sample, and the reciprocal of the largest: sums over a training part stay finite
MANY_TEXTS = 50  # different texts in a column, from which they may be names rather than categories
_ID_NAME = re.compile(r"(?:^|[_\s.-])(?:id|idx|index|uuid|guid|key|row|nr|no|number|unnamed: 0)$", re.IGNORECASE)

log = logging.getLogger(__name__)


def load(cfg: DataConfig) -> Table:
    """The files that `cfg` names, as they are now.

    Raises:
        UserError: in one line, where and what is wrong.
    """
    paths = tabular_files.own_files(cfg)
    contents = {key: read_bytes(key, path) for key, path in paths.items()}
    form = NumberFormat.from_config(cfg)
    files = [tabular_files.read(Source(file_label(key, path), contents[key], cfg), cfg) for key, path in paths.items()]
    names = _feature_names(cfg, files)
    numbers: dict[str, list[float]] = {}
    categories: dict[str, list[str | None]] = {}
    missing = cfg.missing != "error"
    for name in names:
        columns = _columns(files, name)
        if name in cfg.categorical or all(is_category(column) for _, column in columns):
            _refuse_free_text(cfg, columns)
            categories[name] = [
                text for file, column in columns for text in file_table.categories(file, column, form, missing=missing)
            ]
            values: Sequence[object] = categories[name]
        else:
            numbers[name] = [
                value for file, column in columns for value in file_table.numbers(file, column, form, missing=missing)
            ]
            values = numbers[name]
        _warn_of_column(*columns[0], values, form)
    labels, classes = (_values if cfg.learns == "regression" else _labels)(cfg, files, form)
    begins = np.cumsum([0, *(len(file.lines) for file in files)])
    part_names = [key.removeprefix("data.").removesuffix("_path") for key in paths][1:]
    total = int(begins[-1])
    return Table(
        np.array(list(numbers.values()), dtype=np.float64).reshape(len(numbers), total).T,
        labels,
        classes,
        list(numbers),
        tabular_files.digest_of(contents),
        np.array(list(categories.values()), dtype=object).reshape(len(categories), total).T if categories else None,
        list(categories),
        separate_parts={part: np.arange(begins[i], begins[i + 1]) for i, part in enumerate(part_names, start=1)},
        target_names=list(cfg.targets) if cfg.learns == "regression" else [],
        weights=_weights(cfg, files, form),
    )


def _feature_names(cfg: DataConfig, files: list[FileTable]) -> list[str]:
    training_file = files[0]
    available = [column.name for column in training_file.columns if column.name != "__index_level_0__"]
    if not cfg.targets:
        subject = "values to predict" if cfg.learns == "regression" else "classes"
        raise UserError(
            f"which column holds the {subject}? {training_file.source.label} has the columns {listed(available)}; "
            f"set one of them, e.g. {shell_word('data.target', available[-1])}"
        )
    if all(POINT.number(name) is not None for name in available):
        log.warning("the first line of %s looks like a sample, not like column names", training_file.source.label)
    for key, chosen in (
        ("target", cfg.targets),
        ("sample_weight", [cfg.sample_weight] if cfg.sample_weight is not None else []),
        ("columns", cfg.columns or ()),
        ("drop", cfg.drop),
        ("categorical", cfg.categorical),
    ):
        if absent := [name for name in chosen if name not in available]:
            raise UserError(_absent(key, absent[0], list(chosen), training_file.source.label, available))
    features = cfg.columns or [column.name for column in training_file.columns if not column.is_index]
    if cfg.sample_weight in cfg.targets:
        raise UserError(f"data.sample_weight={cfg.sample_weight} is data.target as well; choose another column")
    not_features = [*cfg.targets, *([cfg.sample_weight] if cfg.sample_weight is not None else [])]
    names = [name for name in features if name not in (*cfg.drop, *not_features)]
    _check_names(training_file, [name for name in (*names, *not_features) if name not in cfg.drop])
    if not names:
        beside = shell_word("data.target", cfg.target)
        raise UserError(f"no column is left beside {beside}; a network needs at least one feature")
    for file in files[1:]:
        if absent := [name for name in [*names, *cfg.targets] if name not in file.by_name]:
            raise UserError(f"{file.source.label} has no column {absent[0]!r}, which {training_file.source.label} has")
    return names


def _absent(key: str, name: str, chosen: list[str], label: str, available: list[str]) -> str:
    """The message for a column that does not exist, with the most similar one that does."""
    message = f"data.{key}: there is no column {name!r} in {label}; it has {listed(available)}"
    similar = [
        column
        for column in available
        if canonical(column.lstrip("0")) == canonical(name) or column.lower() == name.lower()
    ]
    if not similar:
        return message
    value: object = [similar[0] if column == name else column for column in chosen]
    if key == "sample_weight" or (key == "target" and len(chosen) == 1):
        value = similar[0]
    return f"{message}; did you mean {shell_word(f'data.{key}', value)}?"


def _check_names(file: FileTable, names: list[str]) -> None:
    """
    Raises:
        UserError: a column that is used has no name, or the name of another.
    """
    if "" in names:
        place = next(i for i, column in enumerate(file.columns) if not column.name)
        column = file.columns[place]
        problem = "has no name"
        if _counts_rows(column.cells):
            problem += " and counts the rows, which may tell the class"
        raise UserError(
            f"{file.source.label}: column {place + 1} {problem}; leave it out with {file.source.drop('')}, "
            "or if it is a feature, name it in the first line"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{file.source.label}: two columns are called {repeated[0]}; give each its own name in the first line, or "
            f"leave both out with {file.source.drop(repeated[0])}"
        )


def _columns(files: list[FileTable], name: str) -> list[tuple[FileTable, Column]]:
    """A column in each file.

    Raises:
        UserError: it holds neither numbers nor texts.
    """
    columns = [(file, file.by_name[name]) for file in files]
    for file, column in columns:
        if column.kind == "refused":
            raise UserError(
                f"{file.source.label}: column {column.name} holds {column.type}, neither numbers nor texts; convert "
                f"it, or leave it out with {file.source.drop(column.name)}"
            )
    return columns


def _refuse_free_text(cfg: DataConfig, columns: list[tuple[FileTable, Column]]) -> None:
    source, name = columns[0][0].source, columns[0][1].name
    cells = [cell for _, column in columns for cell in column.cells]
    different = len(set(cells))
    if name not in cfg.categorical and different > MANY_TEXTS and different > len(cells) / 2:
        raise UserError(
            f"column {name} has {different} different texts in {len(cells)} rows, too many for categories; leave it "
            f"out with {source.drop(name)}, or keep it with {source.categorical(name)}"
        )


def _warn_of_column(file: FileTable, column: Column, values: Sequence[object], form: NumberFormat) -> None:
    """Lost digits, a constant column, one that identifies the rows, texts that look like numbers."""
    different = set(values)
    if (merged := _merged_numbers(column, values, form)) > 0:
        log.warning(
            "column %s has whole numbers with so many digits that %s different ones are equal to others when read as "
            "numbers; subtract a constant from them, or use the column as categories with %s, or leave it out with %s",
            column.name,
            f"{merged:,}",
            file.source.categorical(column.name),
            file.source.drop(column.name),
        )
    elif len(different) == 1:
        log.warning("column %s has the same value in every row; nothing can be learned from it", column.name)
    elif _counts_rows(values) or (len(different) == len(values) and _ID_NAME.search(column.name)):
        log.warning(
            "column %s has another value in every row, like an id or a row number; if it is one, leave it out with %s",
            column.name,
            file.source.drop(column.name),
        )
    if column.kind == "category" and column.type in ("string", "large_string"):
        filled = [cell for cell in column.cells if not is_missing(cell)]
        if filled and all(map(looks_numeric, filled)):
            log.warning(
                "column %s holds texts that look like numbers; they are used as categories, because the file stores "
                "texts",
                column.name,
            )


def _merged_numbers(column: Column, values: Sequence[object], form: NumberFormat) -> int:
    """How many different whole numbers of a column become equal as double precision."""
    large = {
        canonical(cell, form): value
        for cell, value in zip(column.cells, values, strict=False)  # those of further files come after them
        if isinstance(value, float) and abs(value) >= EXACT
    }
    return len(large) - len(set(large.values()))


def _counts_rows(values: Sequence[object]) -> bool:
    """Whether the values are consecutive whole numbers, each once, in the order of the rows or in another."""
    numbers = [value if isinstance(value, float | int) else POINT.number(str(value)) for value in values]
    if len(numbers) < 10 or any(value is None or value != value // 1 for value in numbers):
        return False
    integers = {int(value) for value in numbers if value is not None}
    return len(integers) == len(numbers) and max(integers) - min(integers) == len(numbers) - 1


def _labels(cfg: DataConfig, files: list[FileTable], form: NumberFormat) -> tuple[NDArray[Any], list[str]]:
    """The classes of all samples (N,), and the names of the classes: those of the training file."""
    [target] = cfg.targets
    columns = _columns(files, target)
    for file, column in columns:
        for row, cell in enumerate(column.cells):
            if cell == "" or (isinstance(cell, float) and math.isnan(cell)):
                raise UserError(f"{file.location(row, column)}: the class is missing; add it, or remove the line")
    trained = [canonical(cell, form) for cell in columns[0][1].cells]
    _warn_of_spellings(columns[0][1], trained)
    counts = Counter(trained)
    values = {name: POINT.number(name) for name in counts}
    if all(value is not None and math.isfinite(value) for value in values.values()):
        are_integers = all(value == value // 1 for value in values.values() if value is not None)
        if len(counts) > MANY_NUMBERS and (not are_integers or len(counts) > len(trained) / 2):
            raise UserError(
                f"data.target={target} has {len(counts)} different numbers in {len(trained)} rows, which looks "
                "like regression: set data.task=regression, or choose a column of classes"
            )
        names = sorted(counts, key=lambda name: (values[name] or 0.0, name))
    else:
        names = sorted(counts)
    if len(counts) > max(MANY_NUMBERS, len(trained) / 2):
        raise UserError(
            f"data.target={target} has {len(counts)} different classes in {len(trained)} rows; choose another column"
        )
    if len(counts) == 1:
        raise UserError(
            f"data.target={target} has only one class, {names[0]!r}, so there is nothing to learn; "
            "choose another column"
        )
    positions, labels = positions_by_name(names), []
    for file, column in columns:
        for row, cell in enumerate(column.cells):
            place = position_of(cell, positions, form)
            if place is None:
                raise UserError(
                    f"{file.location(row, column)}: the class {str(cell)!r} is not among those of "
                    f"{files[0].source.label}: {listed(names)}"
                )
            labels.append(place)
    return np.array(labels, dtype=np.int64), names


def _values(cfg: DataConfig, files: list[FileTable], form: NumberFormat) -> tuple[NDArray[Any], list[str]]:
    """The values of all targets, (N, T); no classes."""
    targets = []
    for name in cfg.targets:
        columns = _columns(files, name)
        for file, column in columns:
            if is_category(column):
                cell = next(cell for cell in column.cells if not is_missing(cell))
                raise UserError(
                    f"{file.location(column.cells.index(cell), column)}: {str(cell)[:40]!r} is not a number, and "
                    "data.task=regression predicts numbers; choose another column, or leave data.task out for classes"
                )
        values = [value for file, column in columns for value in file_table.numbers(file, column, form, feature=False)]
        if len(set(values[: len(columns[0][1].cells)])) == 1:
            raise UserError(
                f"data.target={name} has the same value in every row, so there is nothing to learn; "
                "choose another column"
            )
        targets.append(values)
    return np.array(targets, dtype=np.float64).T, []


def _weights(cfg: DataConfig, files: list[FileTable], form: NumberFormat) -> NDArray[np.float64] | None:
    """The weights of all samples (N,); 1 in the files of validation and test, which need no such column."""
    if cfg.sample_weight is None:
        return None
    [(file, column)] = _columns(files[:1], cfg.sample_weight)
    weights = file_table.numbers(file, column, form, feature=False)
    for row, weight in enumerate(weights):
        if weight < 0:
            raise UserError(f"{file.location(row, column)}: {weight:g} is negative; the weight of a sample is >= 0")
        if weight and not LEAST_WEIGHT <= weight <= 1 / LEAST_WEIGHT:
            raise UserError(
                f"{file.location(row, column)}: the weight {weight:g} is 0 or infinite in single precision; multiply "
                f"all weights by one number, so that they are 0 or from {LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g}"
            )
    if not any(weights):
        raise UserError(f"data.sample_weight={cfg.sample_weight} is 0 in every row, so nothing would be trained")
    return np.array([*weights, *(1.0 for further_file in files[1:] for _ in further_file.lines)])


def _warn_of_spellings(column: Column, names: Sequence[str]) -> None:
    spellings: dict[str, set[Cell]] = {}
    for cell, name in zip(column.cells, names, strict=True):
        spellings.setdefault(name, set()).add(cell)
    ambiguous = {name: sorted(map(str, cells)) for name, cells in spellings.items() if len(cells) > 1}
    if ambiguous:
        listing = "; ".join(f"{', '.join(cells)} as {name}" for name, cells in list(ambiguous.items())[:5])
        log.warning("column %s spells classes in several ways, which count as one: %s", column.name, listing)
