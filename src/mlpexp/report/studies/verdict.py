"""The result of a study, and helpers that group the rows of its sweep."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]  # of the sweep's results.csv


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure, and sentences with the numbers to compare with the published claim."""

    figure: Figure
    sentences: list[str]


def grouped(rows: Rows, keys: Sequence[str], metric: str, otherwise: float = np.nan) -> dict[tuple[Any, ...], Any]:
    """The metric of the runs of each setting, as one array (seeds,); a run without it counts as `otherwise`."""
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        value = row[metric]
        usable = isinstance(value, int | float) and np.isfinite(value)
        groups[tuple(row[key] for key in keys)].append(float(value) if usable else otherwise)
    return {setting: np.array(values) for setting, values in groups.items()}


def levels(settings: Iterable[tuple[Any, ...]], index: int) -> list[Any]:
    """The distinct values at one place of the settings, sorted."""
    return sorted({setting[index] for setting in settings})
