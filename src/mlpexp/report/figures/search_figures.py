"""Figures of a search: its history, the importance of keys, values by key, parallel coordinates; or its front."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import label
from mlpexp.report.figures.canvas import CATEGORIES, ORDERED, share_bars, value_axis
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure
from mlpexp.report.searched_trials import Front, SearchedKey, Trials, front_of, trials_of
from mlpexp.tracking.figures.plot_style import (
    FAINT,
    GRID,
    headline,
    in_house_style,
    new_figure,
    place,
    short,
    text_width,
)

T = TypeVar("T")
MOST_KEYS = 8
MOST_PANELS = 3  # pairs of objectives
SPREAD = 20  # largest by least value of an objective from which its axis is logarithmic
LONG = 5  # letters of a tick from which it is written upright
PANEL, GAP = 1.9, 0.85  # inches
WIDE = PANEL / 1.16  # between the ends of an axis
BETWEEN = 0.08  # two labels


def history(trials: Trials) -> ReportFigure:
    """The values of trials in their order, and the best so far."""
    figure = new_figure(6.4, 3.2)
    axes = place(figure, 0.75, 0.55, 5.4, 2.2)
    numbers = np.arange(1, len(trials.values) + 1)
    complete = trials.complete
    finite = np.isfinite(trials.values)
    axes.plot(numbers[complete], trials.values[complete], "o", color=CATEGORIES[0], alpha=0.6)
    axes.plot(numbers[~complete & finite], trials.values[~complete & finite], "x", color=FAINT)
    best = np.maximum.accumulate if trials.maximise else np.minimum.accumulate
    axes.step(numbers[complete], best(trials.values[complete]), where="post", color=CATEGORIES[1])
    value_axis(axes, trials.values[complete])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("trial")
    axes.set_ylabel(_title(trials))
    headline(figure, "History of the search")
    caption = f"{int(complete.sum()):,} trials that were trained to the end, and the best of them so far."
    if num_pruned := int((~complete & finite).sum()):
        caption += f" Crosses: {num_pruned:,} trials that were pruned, as far as their last values are on the axis."
    if trials.num_failed:
        caption += f" {trials.num_failed:,} failed trials, such as diverged ones, are not drawn."
    return ReportFigure(title="History of the search", caption=caption, figure=figure)


def importance(trials: Trials) -> ReportFigure | None:
    """The share of each key in the variance of the objective."""
    if not trials.importance:
        return None
    pairs = sorted(trials.importance.items(), key=lambda pair: -pair[1])[: 2 * MOST_KEYS]
    names, shares = zip(*pairs, strict=True)
    figure, axes = share_bars(names, shares, [CATEGORIES[0]] * len(pairs))
    axes.set_xlabel(f"share of the variance of {_title(trials)}")
    headline(figure, "Importance of the searched keys")
    caption = (
        "fANOVA (Hutter et al., 2014): a random forest is fitted to the final values of "
        f"{int(trials.complete.sum()):,} trials, and its variance over the space is divided among the keys. "
        "Describes the forest; nothing is tested."
    )
    if num_pruned := int((~trials.complete & np.isfinite(trials.values)).sum()):
        caption += f" The {num_pruned:,} pruned trials have none, so that this describes the better part of the space."
    if missing := [key.name for key in trials.keys if key.name not in trials.importance]:
        caption += f" Not all of these trials have {', '.join(missing)}."
    return ReportFigure(title="Importance of the searched keys", caption=caption, figure=figure)


def slices(trials: Trials) -> ReportFigure:
    """The values of trials by each key."""
    keys = trials.keys[:MOST_KEYS]
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    long = any(len(text) > LONG for key in keys for _, text in key.ticks)
    height, below = 1.7, 1.0 if long else 0.4
    figure = new_figure(0.5 + columns * (PANEL + GAP), rows * (height + below + 0.4) + 0.4)
    complete = trials.complete
    shades = ORDERED(np.linspace(0, 1, len(complete)))
    for i, key in enumerate(keys):
        row, column = divmod(i, columns)
        bottom = (rows - 1 - row) * (height + below + 0.4) + below
        axes = place(figure, 0.7 + column * (PANEL + GAP), bottom, PANEL, height)
        axes.scatter(key.positions[complete], trials.values[complete], s=14, c=shades[complete], alpha=0.8)
        value_axis(axes, trials.values[complete])
        _ticks(axes, key, rotated=any(len(text) > LONG for _, text in key.ticks))
        axes.set_xlim(-0.08, 1.08)
        axes.set_title(key.name, size=9)
        if column == 0:
            axes.set_ylabel(_title(trials))
    headline(figure, "Trials by key")
    caption = f"Each point is a trial; from blue, the first, to orange, the last.{_not_drawn(trials)}"
    return ReportFigure(title="Trials by key", caption=caption, figure=figure)


def _ticks(axes: Axes, key: SearchedKey, *, rotated: bool) -> None:
    ticks = key.ticks[:: max(1, -(-len(key.ticks) // 8))]
    if not rotated:
        ticks = _apart(ticks)
    axes.set_xticks([position for position, _ in ticks], [text for _, text in ticks], rotation=90 if rotated else 0)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those of the ticks whose labels fit beside each other: both ends first."""
    kept: list[tuple[float, str]] = []
    for position, text in (ticks[0], ticks[-1], *ticks[1:-1]):
        spaces = (abs(position - other) * WIDE - (text_width(text) + text_width(name)) / 2 for other, name in kept)
        if all(space > BETWEEN for space in spaces):
            kept.append((position, text))
    return sorted(kept)


def parallel(trials: Trials) -> ReportFigure | None:
    """One line for each trial over an axis for each key."""
    if len(trials.keys) < 2:
        return None
    keys = trials.keys[:MOST_KEYS]
    gap, height = 1.15, 2.4
    left_margin = 0.5
    figure = new_figure(left_margin + gap * (len(keys) - 1) + 1.15, height + 1.0)
    axes = place(figure, left_margin, 0.45, gap * (len(keys) - 1), height)
    complete = trials.complete & np.isfinite(trials.values)
    points = np.stack([key.positions[complete] for key in keys], 1)  # (trials, keys)
    values = trials.values[complete] if trials.maximise else -trials.values[complete]
    ranks = values.argsort().argsort() / max(1, len(values) - 1)  # 1: the best
    order = ranks.argsort()
    lines = [
        np.column_stack([np.arange(len(keys))[has_key], points[i][has_key]])
        for i in order
        if (has_key := np.isfinite(points[i])).any()
    ]
    axes.add_collection(LineCollection(lines, colors=ORDERED(1 - ranks[order]), linewidths=1.0, alpha=0.8))
    axes.set_xlim(-0.02, len(keys) - 1 + 0.02)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    for position, key in enumerate(keys):
        axes.axvline(position, color=GRID, zorder=0)
        axes.annotate(
            short(key.name, 11), (position, -0.04), xytext=(0, -6), textcoords="offset points", ha="center", va="top"
        )
        for height_of_tick, text in key.ticks[:: max(1, -(-len(key.ticks) // 8))]:
            style: dict[str, Any] = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.annotate(short(text, 9), (position, height_of_tick), size=7, color=FAINT, **style)
    headline(figure, f"Parallel coordinates, {_title(trials)}")
    caption = "Each line is a trial that was trained to the end; from blue, the best, to orange, the worst."
    caption += _not_drawn(trials)
    return ReportFigure(title="Parallel coordinates of the trials", caption=caption, figure=figure)


def front(trials: Front) -> ReportFigure:
    """The trials by each pair of objectives, and those that no other one beats."""
    pairs = list(combinations(range(len(trials.objectives)), 2))[:MOST_PANELS]
    figure = new_figure(0.5 + len(pairs) * 3.9, 3.6)
    for panel, (y, x) in enumerate(pairs):
        axes = place(figure, 0.8 + panel * 3.9, 0.6, 2.9, 2.3)
        for chosen, colour, name in ((~trials.on_front, FAINT, "trial"), (trials.on_front, CATEGORIES[1], "front")):
            axes.plot(*trials.values[chosen][:, [x, y]].T, "o", color=colour, alpha=0.8, label=name)
        if trials.values[:, x].min() > 0 and trials.values[:, x].max() > SPREAD * trials.values[:, x].min():
            axes.set_xscale("log")
        value_axis(axes, trials.values[:, y])
        axes.set_xlabel(_objective_title(trials.objectives[x]))
        axes.set_ylabel(_objective_title(trials.objectives[y]))
        if panel == 0:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=9, handlelength=1.2)
    headline(figure, "Front of the search")
    caption = (
        f"The front has {int(trials.on_front.sum()):,} of {len(trials.values):,} trials with values: no other trial is "
        f"as good in all objectives ({', '.join(map(_objective_title, trials.objectives))}) and better in one."
    )
    return ReportFigure(title="Front of the search", caption=caption, figure=figure)


def _title(trials: Trials) -> str:
    return _objective_title(trials.objective)


def _objective_title(name: str) -> str:
    return label(name) if "/" in name else name.replace("_", " ")


def _not_drawn(trials: Trials) -> str:
    count = len(trials.keys)
    return f" The {MOST_KEYS} most important of {count} keys are drawn." if count > MOST_KEYS else ""


def _of_sweep(
    read: Callable[[Path], T | None], draw: Callable[[T], ReportFigure | None]
) -> Callable[[Analysis], ReportFigure | None]:
    @in_house_style
    def drawn(analysis: Analysis) -> ReportFigure | None:
        trials = read(analysis.study.directory)
        return None if trials is None else draw(trials)

    return drawn


for order, figure in enumerate((history, importance, slices, parallel), 90):
    FIGURES.register(f"search_{figure.__name__}", Entry(order, _of_sweep(trials_of, figure)))
FIGURES.register("search_front", Entry(90, _of_sweep(front_of, front)))
