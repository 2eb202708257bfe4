"""Shared parts of the report's figures: colours, labels, axes, a canvas in inches."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mlpexp.analysis.swept_keys import Kind
from mlpexp.tracking.figures.plot_style import FAINT, GRID, new_figure, place, short, text_width

# Okabe and Ito; training and validation are those of learning curves
VALIDATION, TEST, BEST = "#D55E00", "#009E73", "#CC79A7"
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#8C6D1F")
# of what has an order: blue to orange, each lighter than the one before, each legible on light and on dark pages
ORDERED = LinearSegmentedColormap.from_list("ordered", ["#2569BE", "#7A68CF", "#B95CB0", "#D95F78", "#D67B16"])
LETTERS = 16  # of a level's name
BAR_LETTERS, BAR_ROW, BAR_WIDE = 34, 0.27, 4.2  # of the names of bars; inches for each row and for all shares
# text on coloured cells: not the page's ink and paper, which change between light and dark pages
ON_LIGHT, ON_DARK = "#000001", "#FFFFFE"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and one axes that covers it; its units are inches from the lower left corner."""
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    return figure, axes


def colours(kind: Kind, number: int) -> list[str]:
    """One colour for each level: from blue to orange where levels have an order."""
    if kind == "categorical" and number <= len(CATEGORIES):
        return list(CATEGORIES[:number])
    return in_order(number)


def in_order(number: int) -> list[str]:
    """So many colours from blue to orange."""
    return [to_hex(colour) for colour in ORDERED(np.linspace(0, 1, number))]


def label_width(names: Sequence[str], letters: int = LETTERS) -> float:
    """Width of the longest of these names in inches."""
    return max((text_width(short(name, letters)) for name in names), default=0.0)


def share_bars(
    names: Sequence[str], shares: Sequence[float], colours: Sequence[str], remarks: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """Horizontal bars, the first on top, each with its share in [0, 1] and, at the right, a remark."""
    left_margin, height = label_width(names, BAR_LETTERS) + 0.2, BAR_ROW * len(names)
    figure = new_figure(left_margin + BAR_WIDE + (2.1 if remarks else 0.8), height + 0.95)
    axes = place(figure, left_margin, 0.5, BAR_WIDE, height)
    axes.barh(range(len(names)), shares, height=0.62, color=colours)
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    at_edge: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (44, 0), "size": 8, "color": FAINT}
    for row, (share, remark) in enumerate(zip_longest(shares, remarks)):
        axes.annotate(f"{share:.1%}" if share >= 0.001 else "< 0.1%", (share, row), xytext=(4, 0), **style)
        if remark is not None:
            axes.annotate(remark, (1, row), **at_edge, **style)
    axes.set_yticks(range(len(names)), [short(name, BAR_LETTERS) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(0.1, *shares))
    axes.tick_params(length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.spines["left"].set_visible(False)
    return figure, axes


def value_axis(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """A vertical axis over the values and a margin; it need not begin at 0, so that small differences are visible."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = 0.08 * (high - low) or max(abs(high) * 0.02, 1e-3)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.grid(axis="y", color=GRID)
    axes.tick_params(axis="y", color=FAINT, length=3)


def plain(value: float, _position: int | None = None) -> str:
    """The label of a tick."""
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"


def number(value: float, step: float | None = None) -> str:
    """`0.971`; a value of a metric, with one more digit where the differences are small."""
    if not np.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:.3g}"
    return f"{value:.{4 if step is not None and step < 0.002 else 3}f}"
