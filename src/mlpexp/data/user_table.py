"""A person's own table as numbers, categories and classes; `data=csv`."""

import logging
import math
import re
from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.schema import DataConfig
from mlpexp.data import data_digest
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.raw_table import Table
from mlpexp.data.tabular_files import MISSING, Cells, cells, number, read_bytes, some
from mlpexp.runtime.errors import UserError

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
MANY = 20  # different numbers with fractions: no classes any more
TEXTS = 50  # different texts in a column, from which they may be names rather than categories

log = logging.getLogger(__name__)


def own_table(cfg: DataConfig) -> Table:
    """The files that `cfg` names, as they are now.

    Raises:
        UserError: in one line, where and what is wrong.
    """
    return _table(cfg.reading, data_digest.of(cfg))


@lru_cache(maxsize=8)
def _table(cfg: DataConfig, wanted: str) -> Table:
    paths = data_digest.own_files(cfg)
    contents = {key: read_bytes(key, path) for key, path in paths.items()}
    if data_digest.of_contents(contents) != wanted:
        raise UserError(f"data.path={cfg.path} is being written to; wait until it is whole")
    files = [cells(key, path, contents[key], cfg) for key, path in paths.items()]
    names = _feature_names(cfg, files)
    numbers: dict[str, list[float]] = {}
    categories: dict[str, list[str | None]] = {}
    for name in names:
        column = [cell for file in files for cell in file.columns[name]]
        if name in cfg.categorical or _is_category(column):
            categories[name] = _category(cfg, files, name, column)
        else:
            numbers[name] = _numbers(cfg, files, name)
        if len(set(column)) == 1:
            log.warning("column %s has the same value in every row; nothing can be learnt from it", name)
    labels, classes = _labels(cfg, files)
    sizes = [len(file.lines) for file in files]
    begins = np.cumsum([0, *sizes])
    parts = [key.removeprefix("data.").removesuffix("_path") for key in paths][1:]
    given = {part: np.arange(begins[i], begins[i + 1]) for i, part in enumerate(parts, start=1)}
    total = int(begins[-1])
    return Table(
        np.array(list(numbers.values()), dtype=np.float64).reshape(len(numbers), total).T,
        labels,
        classes,
        wanted,
        list(numbers),
        np.array(list(categories.values()), dtype=object).reshape(len(categories), total).T if categories else None,
        list(categories),
        given=given,
    )


def _feature_names(cfg: DataConfig, files: list[Cells]) -> list[str]:
    there = list(files[0].columns)
    if cfg.target is None:
        raise UserError(f"which column holds the classes? Set data.target to one of {some(there)}")
    if all(number(name, cfg.decimal) is not None for name in there):
        log.warning("the first line of %s looks like a sample, not like column names", files[0].path)
    for key, wanted in (
        ("target", [cfg.target]),
        ("columns", cfg.columns or ()),
        ("drop", cfg.drop),
        ("categorical", cfg.categorical),
    ):
        if absent := [name for name in wanted if name not in there]:
            raise UserError(f"data.{key}: there is no column {absent[0]!r} in {files[0].path}; it has {some(there)}")
    names = [name for name in (cfg.columns or there) if name not in (*cfg.drop, cfg.target)]
    if not names:
        raise UserError(f"no column is left beside data.target={cfg.target}; a network needs at least one feature")
    for file in files[1:]:
        if absent := [name for name in [*names, cfg.target] if name not in file.columns]:
            raise UserError(f"{file.path} has no column {absent[0]!r}, which {files[0].path} has")
    return names


def _is_category(column: list[str]) -> bool:
    """Whether no cell is anything like a number."""
    filled = [cell for cell in column if cell.lower() not in MISSING]
    return bool(filled) and not any(re.match(r"[+-]?[.,]?\d", cell) or cell.lower() in _INFINITE for cell in filled)


_INFINITE = {"inf", "+inf", "-inf", "infinity", "-infinity"}


def _category(cfg: DataConfig, files: list[Cells], name: str, column: list[str]) -> list[str | None]:
    different = len(set(column))
    if name not in cfg.categorical and different > TEXTS and different > len(column) / 2:
        raise UserError(
            f"column {name} has {different} different texts in {len(column)} rows, too many for categories; leave it "
            f"out with data.drop=[{name}], or insist with data.categorical=[{name}]"
        )
    found: list[str | None] = [cell or None for cell in column]
    if cfg.missing == "error" and None in found:
        raise _missing(files, name, found.index(None))
    return found


def _numbers(cfg: DataConfig, files: list[Cells], name: str) -> list[float]:
    found: list[float] = []
    for file in files:
        for line, cell in zip(file.lines, file.columns[name], strict=True):
            if cell.lower() in MISSING:
                if cfg.missing == "error":
                    raise _missing(files, name, len(found))
                found.append(math.nan)
                continue
            value = number(cell, cfg.decimal)
            where = f"{file.path}, line {line}, column {name}: {cell!r}"
            if value is None:
                if cfg.decimal == "point" and DECIMAL_COMMA.fullmatch(cell):
                    raise UserError(f"{where} has a decimal comma; set data.decimal=comma")
                raise UserError(
                    f"{where} is no number; mend it, or use the column as categories with data.categorical=[{name}]"
                )
            if not math.isfinite(value):
                raise UserError(f"{where} is not finite; mend it, or leave the column out with data.drop=[{name}]")
            found.append(value)
    return found


def _missing(files: list[Cells], name: str, row: int) -> UserError:
    for file in files:
        if row < len(file.lines):
            cell = file.columns[name][row]
            return UserError(
                f"{file.path}, line {file.lines[row]}, column {name}: {repr(cell) if cell else 'a value'} is missing; "
                "mend it, or choose what stands for it, e.g. data.missing=median"
            )
        row -= len(file.lines)
    raise AssertionError


def _labels(cfg: DataConfig, files: list[Cells]) -> tuple[NDArray[np.int64], list[str]]:
    assert cfg.target is not None
    for file in files:
        if "" in file.columns[cfg.target]:
            line = file.lines[file.columns[cfg.target].index("")]
            raise UserError(f"{file.path}, line {line}, column {cfg.target}: the class is missing; mend it")
    trained = files[0].columns[cfg.target]
    counts = Counter(trained)
    numbers = {name: number(name, cfg.decimal) for name in counts}
    whole = [value is not None and value == value // 1 for value in numbers.values()]
    if all(value is not None and math.isfinite(value) for value in numbers.values()):
        if len(counts) > MANY and (not all(whole) or len(counts) > len(trained) / 2):
            raise UserError(
                f"data.target={cfg.target} has {len(counts)} different numbers in {len(trained)} rows, which looks "
                "like regression; mlpexp classifies: choose a column of classes, or make classes of the numbers first"
            )
        names = sorted(counts, key=lambda name: (numbers[name], name))
    else:
        names = sorted(counts)
    if len(counts) > max(MANY, len(trained) / 2):
        raise UserError(
            f"data.target={cfg.target} has {len(counts)} different classes in {len(trained)} rows; "
            "choose another column"
        )
    if len(counts) == 1:
        raise UserError(
            f"data.target={cfg.target} has only one class, {names[0]!r}, so there is nothing to learn; "
            "choose another column"
        )
    place = {name: i for i, name in enumerate(names)}
    for file in files[1:]:
        for line, name in zip(file.lines, file.columns[cfg.target], strict=True):
            if name not in place:
                raise UserError(
                    f"{file.path}, line {line}: the class {name!r} is not among those of {files[0].path}: {some(names)}"
                )
    return np.array([place[name] for file in files for name in file.columns[cfg.target]], dtype=np.int64), names


class CsvDataModule(TableDataModule):
    """A person's own table, numbers standardised and categories one-hot."""
