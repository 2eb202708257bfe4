"""Figures of the report: one entry each in one registry.

A module of `mlpexp.report.figures`, or of a user, adds a figure by `FIGURES.register(name, Entry(order, function))`.
"""

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from matplotlib.figure import Figure

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.swept_keys import Kind
from mlpexp.nn.metric_columns import higher_is_better
from mlpexp.report import figures
from mlpexp.report.report_tables import Table
from mlpexp.runtime.registry import Registry

MAX_SEEDS = 60  # runs of a configuration that are read


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """A figure with its text, and its numbers as tables."""

    title: str
    caption: str
    figure: Figure
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A kind of figure.

    Attributes:
        order: figures are shown by rising order.
        draw: makes the figure of a sweep; None where the sweep has no numbers for it.
    """

    order: int
    draw: Callable[[Analysis], ReportFigure | None]


FIGURES: Registry[Entry] = Registry("report figure")


def draw(analysis: Analysis) -> Iterator[tuple[str, ReportFigure]]:
    """Name and figure of every entry that this sweep has numbers for."""
    for module in pkgutil.iter_modules(figures.__path__, f"{figures.__name__}."):
        import_module(module.name)
    if analysis.best is None:
        return
    for name, entry in sorted(FIGURES.items(), key=lambda item: item[1].order):
        if figure := entry.draw(analysis):
            yield name, figure


@dataclass(frozen=True, kw_only=True)
class DrawnKey:
    """A swept key as a figure shows it.

    Attributes:
        levels: the names of the levels that are drawn.
        indices: their numbers among all levels of the key.
    """

    label: str
    kind: Kind
    levels: Sequence[str]
    indices: Sequence[int]


def drawn_key(analysis: Analysis, k: int, limit: int) -> DrawnKey:
    """Key `k` with at most `limit` levels: those with the best means, always that of the best configuration."""
    key = analysis.study.coarse[k]
    indices = list(range(len(key.levels)))
    if len(key.levels) > limit:
        means = analysis.cells("validation", [k])
        ranked = sorted(means, key=lambda level: means[level].mean, reverse=higher_is_better(analysis.validation))
        best = int(analysis.levels[analysis.best, k])
        indices = sorted({best, *(level for (level,) in ranked[: limit - 1])})
    return DrawnKey(label=key.label, kind=key.kind, levels=[key.levels[i] for i in indices], indices=indices)


def intervals(analysis: Analysis, subject: str = "") -> str:
    """A sentence on the intervals of a figure, for a caption.

    Args:
        subject: the configurations whose intervals are drawn, e.g. ` of the best`; empty for all.
    """
    return f" Intervals{subject}: 95 % over seeds." if analysis.seeds > 1 else " One run each: no intervals."


def shown_configurations(analysis: Analysis, panels: int, top: int) -> list[tuple[int, int]]:
    """(rank, configuration) of the first `top`, and others evenly down to the worst, at most `panels`."""
    order = analysis.ranking.ranked
    if len(order) <= panels:
        ranks = list(range(len(order)))
    else:
        spread = np.linspace(top, len(order) - 1, panels - top + 1).round().astype(int)[1:]
        ranks = [*range(top), *spread.tolist()]
    return [(rank + 1, order[rank]) for rank in ranks]


def shown_of(analysis: Analysis, count: int, common: str) -> str:
    """What `shown_configurations` shows, for a caption.

    Args:
        common: what all of them have in common.
    """
    total = len(analysis.ranking.ranked)
    sentence = "Ordered by rank."
    if count < total:
        sentence = f"{count} of {total:,} configurations are shown by rank, from the best to the worst."
    if common:
        sentence += f" All have {common}."
    if analysis.ranking.finished.max(initial=0) > MAX_SEEDS:
        sentence += f" At most {MAX_SEEDS} runs of a configuration were read."
    return sentence


def run_names(analysis: Analysis, configuration: int) -> list[str]:
    """The directories of the runs of a configuration that count, at most MAX_SEEDS."""
    runs = [i for i in analysis.study.members[configuration] if analysis.study.counted[i]]
    return [analysis.study.names[i] for i in runs[:MAX_SEEDS]]
