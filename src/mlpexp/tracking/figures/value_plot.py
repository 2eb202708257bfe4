"""Predicted against true values of a regression."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlpexp.tracking.figures.plot_style import BLUE, FAINT, GRID, headline, in_house_style, new_figure, place, short

SHOWN = 4  # targets


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
    more = f" (the first {shown} of {len(names)} targets)" if len(names) > shown else ""
    headline(figure, f"Predicted against true values, {len(true):,} {samples}{more}")
    return figure
