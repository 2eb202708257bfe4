"""Decision boundaries of a network whose samples are two numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mlpexp.tracking.figures.plot_style import CLASSES, class_look, headline, in_house_style, new_figure, place, short

LEGEND = 20  # classes that a legend names at most
PAPER = "#FFFFFE"  # between a sample and its background, also on a dark page
TINT = 0.3  # of a class's colour in its region


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
    present = np.unique(labels)
    for c in present:
        mine = points[labels == c]
        axes.scatter(mine[:, 0], mine[:, 1], s=16, edgecolor=PAPER, lw=0.4, **_look(int(c)))
    entries = [Line2D([], [], ls="", markersize=6, markeredgewidth=0, **_look(int(c))) for c in present[:LEGEND]]
    names = [short(class_names[c], 14) for c in present[:LEGEND]]
    axes.legend(entries, names, loc="upper left", bbox_to_anchor=(1.01, 1.01), title="true class", alignment="left")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel(short(axis_names[0], 40))
    axes.set_ylabel(short(axis_names[1], 40))
    headline(figure, f"Predicted classes (background) and the {samples}")
    return figure


def _look(c: int) -> dict[str, Any]:
    """A colour slightly different from the class's, which dark pages replace; this background must stay light."""
    look = class_look(c)
    red, green, blue = (round(255 * part) for part in to_rgb(look["color"]))
    return look | {"color": f"#{red:02X}{green:02X}{blue ^ 1:02X}"}


def _tint(c: int) -> str:
    red, green, blue = (1 - TINT * (1 - part) for part in to_rgb(CLASSES[c % len(CLASSES)]))
    return to_hex((red, green, blue))
