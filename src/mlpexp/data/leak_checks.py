"""Warnings about test results that say nothing: samples or labels that leak from the evaluated parts into training."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.overrides import shell_word
from mlpexp.data.file_table import listed
from mlpexp.data.preprocessing import Features
from mlpexp.data.splits import Split
from mlpexp.data.table import Table

MANY = 0.01  # share of a part's samples that are copies of training samples, from which it is warned of
PARTS = {"val": "validation", "test": "test"}

log = logging.getLogger(__name__)


def warn(table: Table, split: Split, features: Features, targets: Sequence[str]) -> None:
    """Log at most one warning of each kind for a user's table, once per process and content.

    Args:
        targets: the columns that are predicted.
    """
    content = _ByContent((table.digest, tuple(table.names), tuple(table.category_names)), table)
    sentences = {
        "copies": _copied_samples(content, split),
        "target": _copied_target(content, tuple(targets)),
        "categories": _new_categories(table, features),
    }
    for kind, sentence in sentences.items():
        if sentence is not None and (content.key, kind) not in _logged:
            _logged.add((content.key, kind))
            log.warning("%s", sentence)


_logged: set[tuple[object, str]] = set()


@dataclass(frozen=True)
class _ByContent:
    """A table, equal where the same columns of the same files were read."""

    key: object
    table: Table = field(compare=False)


def _copied_samples(content: _ByContent, split: Split) -> str | None:
    """Samples of the validation and test parts that are in the training part, too."""
    if split.val is split.train:  # data.split=none
        return None
    groups, unavoidable = _equal_samples(content)
    descriptions = []
    for part, name in PARTS.items():
        index = getattr(split, part)
        copies = int(np.isin(groups[index], groups[split.train]).sum())
        same_file = part in content.table.separate_parts and copies == len(index)
        if copies > MANY * len(index) and (same_file or not unavoidable):
            descriptions.append(f"{copies:,} of {len(index):,} {name} samples")
    if not descriptions:
        return None
    return (
        f"{' and '.join(descriptions)} are in the training part, too (equal in all features), so the metrics on them "
        "say little about new samples; remove the copies"
    )


@lru_cache(maxsize=4)
def _equal_samples(content: _ByContent) -> tuple[NDArray[np.int64], bool]:
    """A number for each sample, equal where all features are (N,); whether fewer samples are possible than there are.

    Where every column has few values, equal samples are unavoidable and no sign of a mistake.
    """
    table = content.table
    columns: list[NDArray[np.float64]] = [table.inputs.astype(np.float64) + 0.0]  # -0.0 becomes 0.0
    if table.categories is not None:
        codes = [np.unique(column.astype(str), return_inverse=True)[1] for column in table.categories.T]
        columns.append(np.stack(codes, axis=1).astype(np.float64))
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1))  # (N, J + K)
    possible = 1
    for column in rows.T:
        if possible > len(rows):
            break
        possible *= len(np.unique(column))
    place: dict[bytes, int] = {}
    groups = np.array([place.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), len(place)) for row in rows])
    return groups, possible <= len(rows)


@lru_cache(maxsize=4)
def _copied_target(content: _ByContent, targets: tuple[str, ...]) -> str | None:
    """A feature whose values correspond one to one to the classes, or determine a value linearly."""
    table = content.table
    if table.target_names:
        return _copied_value(table)
    [target] = targets
    columns = zip(table.names, table.inputs.T, strict=True)
    category_columns = (
        () if table.categories is None else zip(table.category_names, table.categories.T.astype(str), strict=True)
    )
    for name, column in (*columns, *category_columns):
        values, codes = np.unique(column, return_inverse=True)
        if len(values) != len(table.class_names):
            continue
        if len(np.unique(codes * len(values) + table.labels)) == len(values):
            return (
                f"column {name} determines the class in every row, like a copy of data.target={target}; if it is one, "
                f"leave it out with {shell_word('data.drop', [name])}"
            )
    return None


def _copied_value(table: Table) -> str | None:
    for target, values in zip(table.target_names, table.labels.T, strict=True):
        for name, column in zip(table.names, table.inputs.T, strict=True):
            if np.ptp(column) > 0 and abs(np.corrcoef(column, values)[0, 1]) > 1 - 1e-9:
                return (
                    f"column {name} determines data.target={target} in every row, like a copy of it; if it is one, "
                    f"leave it out with {shell_word('data.drop', [name])}"
                )
    return None


def _new_categories(table: Table, features: Features) -> str | None:
    """Categories of separate validation and test files that the training part does not have."""
    if table.categories is None:
        return None
    descriptions = []
    for part, index in table.separate_parts.items():
        columns = zip(features.category_names, map(set, features.values), table.categories[index].T, strict=True)
        for name, fitted, column in columns:
            new = Counter(value for value in column if value is not None and value not in fitted)
            if new:
                rows = new.total()
                new_names = listed(sorted(new), 5)
                descriptions.append(f"{name}: {new_names} ({rows:,} of {len(index):,} {PARTS[part]} samples)")
    if not descriptions:
        return None
    return f"categories that do not occur in the training part become zeros: {'; '.join(descriptions)}"
