"""Confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlpexp.tracking.figures.plot_style import PT, headline, in_house_style, new_figure, place, short, text_width

READABLE = 0.28  # inches: the smallest cell with a number in it


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
