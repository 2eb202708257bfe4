"""Figures of an evaluation: calibration, and the last hidden layer in two dimensions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from mlpexp.evaluation.classification_metrics import Bin
from mlpexp.tracking.figures.plot_style import (
    BLUE,
    FAINT,
    GRID,
    INK,
    LEGEND,
    VERMILION,
    class_legend,
    class_style,
    headline,
    in_house_style,
    new_figure,
    place,
    short,
)


@in_house_style
def reliability_curve(bins: Sequence[Bin], ece: float) -> Figure:
    """Accuracy against confidence, and below it the number of samples of each bin."""
    figure = new_figure(5.2, 5.6)
    axes = place(figure, 0.8, 1.75, 4.1, 3.3)
    counts = place(figure, 0.8, 0.55, 4.1, 0.95)
    filled = [entry for entry in bins if entry.count]
    axes.plot([0, 1], [0, 1], color=FAINT, ls="--", lw=1, label="perfectly calibrated")
    for entry in filled:
        axes.plot([entry.confidence] * 2, [entry.confidence, entry.accuracy], color=VERMILION, lw=1.2, alpha=0.7)
    axes.plot(
        [entry.confidence for entry in filled],
        [entry.accuracy for entry in filled],
        color=BLUE,
        marker="o",
        markersize=5,
        label="measured",
        clip_on=False,
    )
    axes.plot([], [], color=VERMILION, lw=1.2, alpha=0.7, label="gap")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9, columnspacing=1.2)
    counts.bar(
        [entry.low for entry in bins],
        [entry.count for entry in bins],
        width=[entry.high - entry.low for entry in bins],
        align="edge",
        color=BLUE,
        edgecolor="white",
        linewidth=0.5,
    )
    for panel in (axes, counts):
        panel.set_xlim(0, 1)
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(color=GRID)
    axes.set_xticklabels([])
    axes.set_ylabel("accuracy")
    counts.set_ylabel("samples")
    counts.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    counts.set_xlabel("confidence")
    for panel in (axes, counts):
        panel.yaxis.set_label_coords(-0.13, 0.5)
    headline(figure, f"Expected calibration error {ece:.3f} over {len(bins)} bins")
    return figure


@in_house_style
def scatter(
    points: NDArray[np.floating],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    title: str,
    axis_names: tuple[str, str] | None = None,
) -> Figure:
    """Samples as points, coloured by their true class; wrong predictions have a ring.

    Args:
        points: (n, 2); labels, predicted: (n,).
        axis_names: None where the axes have no meaning.
    """
    figure = new_figure(7.2, 5.8)
    axes = place(figure, 0.7, 0.6, 4.9, 4.7)
    size = float(np.clip(5_000 / len(points), 6, 26))
    present = np.unique(labels).tolist()
    for c in present:
        points_of_class = points[labels == c]
        axes.scatter(points_of_class[:, 0], points_of_class[:, 1], s=size, lw=0, alpha=0.8, **class_style(c))
    wrong = labels != predicted
    if wrong.any():
        axes.scatter(points[wrong, 0], points[wrong, 1], s=3 * size + 20, facecolor="none", edgecolor=INK, lw=1)
    if len(present) <= LEGEND:
        _write_class_names(axes, points, labels, class_names)
    handles = []
    if len(present) > LEGEND:
        handles.append((Line2D([], [], ls=""), f"and {len(present) - LEGEND} more"))
    if wrong.any():
        ring = Line2D([], [], ls="", marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK)
        handles.append((ring, f"{int(wrong.sum())} wrong"))
    class_legend(axes, present, class_names, class_style, handles)
    axes.margins(0.06)
    if axis_names is None:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
        axes.grid(color=GRID)
    headline(figure, title)
    return figure


def _write_class_names(
    axes: Axes, points: NDArray[np.floating], labels: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """The name of each class that occurs, at the median of its points."""
    box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75}
    for c in np.unique(labels).tolist():
        median = np.median(points[labels == c], axis=0)
        axes.annotate(short(class_names[c], 10), median, ha="center", va="center", fontweight="bold", bbox=box)
