"""Means with intervals below one another: configurations by rank, or sweeps side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mlpexp.analysis.intervals import Estimate
from mlpexp.nn.metrics import METRICS
from mlpexp.report.figures.canvas import TEST, VALIDATION, label_width, plain
from mlpexp.tracking.figures.plot_style import GRID, headline, in_house_style, new_figure, place, short

ROW = 0.26  # inches
LETTERS = 88
SERIES = {"validation": (VALIDATION, "o"), "test": (TEST, "s")}


@in_house_style
def forest(title: str, names: Sequence[str], parts: Mapping[str, Sequence[Estimate]], metric: str) -> Figure:
    """One line for each name, the first on top; intervals over seeds."""
    left = label_width(names, LETTERS) + 0.25
    up = ROW * len(names) + 0.1
    figure = new_figure(left + 4.1, up + 1.15)
    axes = place(figure, left, 0.5, 3.8, up)
    at = np.arange(len(names), dtype=float)
    for number, (part, estimates) in enumerate(parts.items()):
        colour, marker = SERIES[part]
        mean = np.array([e.mean for e in estimates])
        half = np.nan_to_num(np.array([e.half for e in estimates]))
        aside = (number - (len(parts) - 1) / 2) * 0.28
        axes.hlines(at + aside, mean - half, mean + half, color=colour, lw=1.6)
        axes.plot(mean, at + aside, marker, color=colour, ms=4.5, label=part)
    axes.set_yticks(at, [short(name, LETTERS) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.margins(x=0.06)
    axes.grid(axis="x", color=GRID)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(METRICS[metric].title)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, handlelength=1.0)
    headline(figure, title)
    return figure
