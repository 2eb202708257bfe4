"""Shared parts of the report's figures: colours, labels, axes, a canvas in inches."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mlpexp.analysis.swept_keys import Kind
from mlpexp.tracking.figures.plot_style import FAINT, GRID, new_figure, short, text_width

# Okabe and Ito; training and validation are those of learning curves
VALIDATION, TEST, BEST = "#D55E00", "#009E73", "#CC79A7"
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A", "#8C6D1F")
# of what has an order: blue to orange, each lighter than the one before, each legible on light and on dark pages
ORDERED = LinearSegmentedColormap.from_list("ordered", ["#2569BE", "#7A68CF", "#B95CB0", "#D95F78", "#D67B16"])
LETTERS = 16  # of a level's name
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


def value_axis(axes: Axes, values: Sequence[float] | np.ndarray, pad: float = 0.08) -> None:
    """A vertical axis over the values and a margin; it need not begin at 0, so that small differences are visible."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = pad * (high - low) or max(abs(high) * 0.02, 1e-3)
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
