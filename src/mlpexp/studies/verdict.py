"""What a study comes to."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]  # of the sweep's results.csv


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure, and what is to be said beside the published claim, with numbers."""

    figure: Figure
    sentences: list[str]


Study = Callable[[Rows], Verdict]


def grouped(rows: Rows, keys: Sequence[str], metric: str, otherwise: float = np.nan) -> dict[tuple[Any, ...], Any]:
    """The metric of the runs of each setting, as one array (seeds,); a run without it counts as `otherwise`."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        value = row[metric]
        usable = isinstance(value, int | float) and np.isfinite(value)
        found[tuple(row[key] for key in keys)].append(float(value) if usable else otherwise)
    return {setting: np.array(values) for setting, values in found.items()}


def levels(settings: Iterable[tuple[Any, ...]], place: int) -> list[Any]:
    """The distinct values at one place of the settings, sorted."""
    return sorted({setting[place] for setting in settings})
