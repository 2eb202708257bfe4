"""Swept keys: their values in order, and the value of each run."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlpexp.store.sweep_manifest import REPEATED as SEEDS

MANY = 12  # numeric levels, above which they are grouped in bins
BINS = 6
ABSENT = "default"  # the level of runs that did not set the key
_LIST = re.compile(r"\[\s*\d+(\s*,\s*\d+)*\s*\]")

Kind = Literal["numeric", "ordered", "categorical"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Key:
    """One swept key over N runs."""

    name: str
    """as it is typed, e.g. `model.depth`"""
    label: str
    """the shortest unique name, e.g. `depth`"""
    kind: Kind
    levels: list[str]
    """numbers in order, lists by length, texts as typed"""
    codes: np.ndarray
    """(N,) the level of each run"""
    binned: bool = False

    @property
    def is_seed(self) -> bool:
        return self.name in SEEDS


def read(name: str, label: str, values: Sequence[Any]) -> Key:
    """The key from its value in each run, None where a run did not set it."""
    cells = [str(v) if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    distinct = list(dict.fromkeys(cells))
    present = [value for value in distinct if value is not None]
    kind: Kind
    if all(_is_number(value) for value in present):
        kind = "numeric" if len(present) == len(distinct) else "ordered"
        distinct.sort(key=lambda value: -math.inf if value is None else value)
    elif all(_sizes(value) is not None for value in present):
        kind = "ordered"
        distinct.sort(key=lambda value: _sizes(value) or ())
    else:
        kind = "categorical"
    index = {value: i for i, value in enumerate(distinct)}
    codes = np.array([index[value] for value in cells], dtype=np.intp)
    return Key(name=name, label=label, kind=kind, levels=[text(value) for value in distinct], codes=codes)


def binned(key: Key) -> Key:
    """A numeric key with many levels in bins of nearly equal counts; any other key unchanged."""
    if key.kind != "numeric" or len(key.levels) <= MANY:
        return key
    counts = np.bincount(key.codes, minlength=len(key.levels))
    quantile = (np.cumsum(counts) - counts / 2) / counts.sum()  # quantile of each level
    bins = np.minimum((quantile * BINS).astype(np.intp), BINS - 1)
    used, bins = np.unique(bins, return_inverse=True)
    names = []
    for number in range(len(used)):
        members = np.flatnonzero(bins == number)
        low, high = key.levels[members[0]], key.levels[members[-1]]
        names.append(low if low == high else f"{_rounded(low)}–{_rounded(high)}")
    return Key(name=key.name, label=key.label, kind=key.kind, levels=names, codes=bins[key.codes], binned=True)


def _rounded(level: str) -> str:
    """The end of a bin with two digits."""
    return f"{float(level):.2g}" if abs(float(level)) < 100 else f"{float(level):.0f}"


def labels(names: Sequence[str]) -> list[str]:
    """The last component of each name where no other name ends in it; `optimizer.name` is the optimizer."""
    ends = [name.removesuffix(".name").rsplit(".", 1)[-1] for name in names]
    return [name if ends.count(end) > 1 or end == "seed" else end for name, end in zip(names, ends, strict=True)]


def text(value: Any) -> str:
    """A level as it is typed."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Sort key of widths, a number or a list: by length, then by size; None for other values."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (1, value)
    if isinstance(value, str) and _LIST.fullmatch(value):
        sizes = tuple(int(word) for word in re.findall(r"\d+", value))
        return (len(sizes), *sizes)
    return None
