"""The best configurations with their intervals, below one another."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import label
from mlpexp.report.figures.canvas import TEST, VALIDATION, label_width, plain
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure, intervals
from mlpexp.tracking.figures.plot_style import GRID, headline, in_house_style, new_figure, place, short

MAX_RANKED = 15
ROW = 0.26  # inches
LETTERS = 88
SERIES = {"validation": (VALIDATION, "o"), "test": (TEST, "s")}


def ranked(analysis: Analysis) -> ReportFigure | None:
    """The best configurations of a sweep."""
    order = analysis.ranking.ranked
    if len(order) < 2:
        return None
    best = order[:MAX_RANKED]
    differing, common = analysis.study.differing(best)
    names = [f"{number}. {analysis.study.describe(c, differing)}" for number, c in enumerate(best, 1)]
    parts = {part: [analysis.ranking.estimate(c, metric) for c in best] for part, metric in analysis.parts.items()}
    caption = f"Ordered by {label(analysis.ranking.by)}."
    if len(best) < len(order):
        caption += f" The other {len(order) - len(best):,} configurations are in the ranking below."
    if common:
        caption += f" All have {common}."
    caption += intervals(analysis)
    title = f"The best {len(best)} of {len(order):,}" if len(best) < len(order) else "All configurations"
    figure = forest(f"{title}, by {label(analysis.ranking.by)}", names, parts, analysis.title)
    return ReportFigure(title=title, caption=caption, figure=figure)


@in_house_style
def forest(title: str, names: Sequence[str], parts: Mapping[str, Sequence[Estimate]], metric: str) -> Figure:
    """One line for each name, the first on top; intervals over seeds."""
    left_margin = label_width(names, LETTERS) + 0.25
    height = ROW * len(names) + 0.1
    figure = new_figure(left_margin + 4.1, height + 1.15)
    axes = place(figure, left_margin, 0.5, 3.8, height)
    positions = np.arange(len(names), dtype=float)
    for number, (part, estimates) in enumerate(parts.items()):
        colour, marker = SERIES[part]
        mean = np.array([e.mean for e in estimates])
        half = np.nan_to_num(np.array([e.half for e in estimates]))
        offset = (number - (len(parts) - 1) / 2) * 0.28
        axes.hlines(positions + offset, mean - half, mean + half, color=colour, lw=1.6)
        axes.plot(mean, positions + offset, marker, color=colour, ms=4.5, label=part)
    axes.set_yticks(positions, [short(name, LETTERS) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.margins(x=0.06)
    axes.grid(axis="x", color=GRID)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(metric)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, handlelength=1.0)
    headline(figure, title)
    return figure


FIGURES.register("best", Entry(10, ranked))
