"""Predictions against the truth: confusion matrices, values of a regression, decision boundaries over a plane."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlpexp.tracking.figures.plot_style import (
    BLUE,
    CLASSES,
    FAINT,
    GRID,
    PT,
    class_legend,
    class_style,
    headline,
    in_house_style,
    new_figure,
    place,
    short,
    text_width,
)

PAPER = "#FFFFFE"  # between a sample and its background, also on a dark page
TINT = 0.3  # of a class's colour in its region
READABLE = 0.28  # inches: the smallest cell with a number in it
SHOWN = 4  # targets


@in_house_style
def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Samples by true class (rows) and predicted class (columns); empty cells stay blank.

    The colour is the share of the row, so a rare class is as visible as a frequent one. Where cells are too
    small for numbers the colours remain.

    Args:
        counts: (C, C) whole numbers, `counts[t, p]` samples of class t predicted as p.
        class_names: C names.
    """
    counts = np.asarray(counts)
    classes = len(counts)
    names = [short(name) for name in class_names]
    cell = float(np.clip(6 / classes, 0.07, max(0.48, 1.9 / classes)))  # inches
    side = cell * classes
    label = max(map(text_width, names)) + 0.1
    turned = label > cell + 0.1
    left, bottom = 0.4 + label, 0.35 + (label if turned else 0.25)
    figure = new_figure(max(left + side + 1.3, 5), bottom + side + 0.5)
    axes = place(figure, left, bottom, side, side)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)  # (C, C)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    every = int(np.ceil(12 * PT / cell))
    ticks = range(0, classes, every)
    axes.set_xticks(ticks, names[::every], rotation=90 if turned else 0)
    axes.set_yticks(ticks, names[::every])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if cell >= READABLE:
        size = min(9.0, cell / PT * 1.35 / len(str(counts.max())))
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(counts[row, column]), color=colour, size=size, ha="center", va="center")
    bar = figure.colorbar(image, cax=place(figure, left + side + 0.2, bottom, 0.15, min(side, 2.5)))
    bar.set_ticks([0, 0.5, 1])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    right, total = int(np.trace(counts)), int(counts.sum())
    words = f"Accuracy {right / total:.3f}: {right} of {total} right" if total else "No samples"
    headline(figure, words)
    return figure


@in_house_style
def predicted_values(
    predicted: NDArray[np.float64], true: NDArray[np.float64], names: Sequence[str], samples: str = "samples"
) -> Figure:
    """A point for each sample and a panel for each of the first targets; on the line a prediction is right.

    Args:
        predicted, true: (n, T) in the units of the targets.
        names: of the targets.
        samples: what the points are, e.g. `test samples`.
    """
    shown = min(len(names), SHOWN)
    figure = new_figure(0.4 + 4.4 * shown, 4.6)
    for k, name in enumerate(names[:shown]):
        axes = place(figure, 0.8 + 4.4 * k, 0.6, 3.4, 3.4)
        values = np.concatenate([predicted[:, k], true[:, k]])
        low, high = float(values.min()), float(values.max())
        margin = 0.05 * (high - low) or 1.0
        axes.plot([low, high], [low, high], color=FAINT, ls="--", lw=1)
        axes.scatter(
            true[:, k], predicted[:, k], s=float(np.clip(5_000 / len(true), 6, 26)), lw=0, alpha=0.7, color=BLUE
        )
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(low - margin, high + margin)
        axes.grid(color=GRID)
        axes.set_xlabel(f"{short(name, 30)}, true")
        axes.set_ylabel("predicted" if k else f"{short(name, 30)}, predicted")
    limit = f" (the first {shown} of {len(names)} targets)" if len(names) > shown else ""
    headline(figure, f"Predicted against true values, {len(true):,} {samples}{limit}")
    return figure


@in_house_style
def boundary(
    points: NDArray[np.floating],
    labels: NDArray[np.int64],
    field: NDArray[np.int64],
    extent: tuple[float, float, float, float],
    class_names: Sequence[str],
    axis_names: tuple[str, str],
    samples: str = "samples",
) -> Figure:
    """The predicted class at every point of the plane, and the samples coloured by their true class.

    Args:
        points: (n, 2); labels: (n,).
        field: predicted classes on a grid, (rows, columns), the lowest row first; -1 where there is no answer.
        extent: left, right, bottom, top of the grid.
        samples: what the points are, e.g. `test samples`.
    """
    figure = new_figure(7.2, 5.8)
    axes = place(figure, 0.7, 0.6, 4.9, 4.7)
    left, right, bottom, top = extent
    across, up = np.linspace(left, right, field.shape[1]), np.linspace(bottom, top, field.shape[0])
    axes.set_facecolor(PAPER)
    # each class is painted over all that come before it: areas that only touch would leave a gap where three meet;
    # as shapes, not as an image, which a page that loads nothing cannot show
    for c in np.unique(field):
        if c >= 0:
            axes.contourf(across, up, (field >= c).astype(float), levels=[0.5, 1.5], colors=[_tint(int(c))])
    present = np.unique(labels).tolist()
    for c in present:
        mine = points[labels == c]
        axes.scatter(mine[:, 0], mine[:, 1], s=16, edgecolor=PAPER, lw=0.4, **_sample_style(c))
    class_legend(axes, present, class_names, _sample_style)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel(short(axis_names[0], 40))
    axes.set_ylabel(short(axis_names[1], 40))
    headline(figure, f"Predicted classes (background) and the {samples}")
    return figure


def _sample_style(c: int) -> dict[str, Any]:
    """A colour slightly different from the class's, which dark pages replace; this background must stay light."""
    style = class_style(c)
    red, green, blue = (round(255 * part) for part in to_rgb(style["color"]))
    return style | {"color": f"#{red:02X}{green:02X}{blue ^ 1:02X}"}


def _tint(c: int) -> str:
    red, green, blue = (1 - TINT * (1 - part) for part in to_rgb(CLASSES[c % len(CLASSES)]))
    return to_hex((red, green, blue))
