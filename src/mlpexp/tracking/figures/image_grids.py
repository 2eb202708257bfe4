"""Many small images in one figure: samples, mistakes, first-layer weights.

They are one image with gaps, since 64 axes take a second to draw.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlpexp.tracking.figures.plot_style import FAINT, headline, in_house_style, new_figure, place, short, text_width

HEADLINE = 0.42  # inches
SIDE = 0.85  # inches: one picture
CAPTION = 0.22  # inches: a line of text above a picture
MARGIN = 0.15  # inches
UNITS = 64
KEY = "true → predicted class, probability of the latter"


@in_house_style
def sample_gallery(images: np.ndarray, labels: np.ndarray, indices: list[int]) -> Figure:
    """Some samples as grey images, least value black: the label above, the sample's index below.

    Args:
        images: (n, height, width).
        labels: (n,), a class's number or name.
        indices: which of the n to show, e.g. [42, 64, 1337].
    """
    chosen = images[list(indices)]
    titles = [short(labels[index]) for index in indices]
    figure, axes, corners = _titled_mosaic(chosen, titles, "", columns=min(len(indices), 6))
    for (x, y), index in zip(corners, indices, strict=True):
        axes.text(
            x + chosen.shape[2] / 2,
            y + chosen.shape[1] * (1 + 0.05),
            f"sample {index}",
            color=FAINT,
            fontsize=8,
            ha="center",
            va="top",
        )
    return figure


@in_house_style
def mistakes(
    images: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    *,
    class_names: list[str] | None = None,
    limit: int = 20,
) -> Figure:
    """The wrong predictions with the highest probabilities; above each `true → predicted` and its probability.

    Args:
        images: (n, height, width), all samples, right ones too.
        true: (n,) class numbers.
        predicted: (n,) class numbers.
        confidence: (n,) probability of the predicted class.
        class_names: the numbers themselves unless given.
        limit: how many to show at most.
    """
    wrong = np.flatnonzero(true != predicted)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    words = f"{len(wrong)} of {len(true)} misclassified"
    if not worst.size:
        figure = new_figure(4, HEADLINE)
        headline(figure, words)
        return figure
    words += f": the {len(worst)} most confident" if len(worst) < len(wrong) else ", most confident first"
    names = [str(number) for number in range(int(max(true.max(), predicted.max())) + 1)]
    names = [short(name, 9) for name in (names if class_names is None else class_names)]
    titles = [f"{names[true[i]]} → {names[predicted[i]]}  {confidence[i]:.2f}" for i in worst]
    figure, _, _ = _titled_mosaic(images[worst], titles, words, columns=min(len(worst), 5))
    figure.text(0.5, 0.06 / figure.get_figheight(), KEY, color=FAINT, fontsize=8, ha="center", va="bottom")
    return figure


@in_house_style
def first_layer_weights(weights: np.ndarray, shape: tuple[int, int] = (8, 8)) -> Figure:
    """The weights of the first `UNITS` hidden units of the first layer: red is positive, blue negative.

    Args:
        weights: (width, height * width of a picture), on one scale, symmetric about 0.
        shape: (height, width) of a picture.
    """
    shown = np.asarray(weights, dtype=float)[:UNITS].reshape(-1, *shape)  # (n, height, width)
    columns = min(len(shown), 8)
    gap = max(1, shape[0] // 8)
    canvas, _ = _mosaic(shown, columns, gap, gap)
    rows = -(-len(shown) // columns)
    across, up = columns * 0.6, rows * 0.6
    figure = new_figure(max(across + 1.2, 4.6), HEADLINE + up + MARGIN)
    axes = place(figure, MARGIN, MARGIN, across, up)
    finite = np.abs(shown[np.isfinite(shown)])
    scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    image = _show(axes, canvas, "RdBu_r", -scale, scale)
    height = min(up, 2.5)
    bar = figure.colorbar(image, cax=place(figure, MARGIN + across + 0.2, MARGIN + up - height, 0.15, height))
    bar.set_ticks([-scale, 0, scale], labels=[f"−{scale:.2g}", "0", f"{scale:.2g}"])
    bar.outline.set_visible(False)
    count = "all" if len(shown) == len(weights) else f"{len(shown)} of"
    headline(figure, f"First-layer weights: {count} {len(weights)} units")
    return figure


def _titled_mosaic(
    images: np.ndarray, titles: list[str], words: str, columns: int
) -> tuple[Figure, Axes, list[tuple[float, float]]]:
    """Grey pictures (n, height, width), with a title above and room for a line below each; their upper left corners."""
    height, width = images.shape[1:]
    pixel = SIDE / max(height, width)  # inches
    gap_x = max(0.12, max(map(text_width, titles)) + 0.1 - width * pixel) / pixel
    gap_y = (2 * CAPTION + 0.04) / pixel
    gap_x, gap_y = int(np.ceil(gap_x)), int(np.ceil(gap_y))
    canvas, corners = _mosaic(images, columns, gap_y, gap_x)
    across, up = canvas.shape[1] * pixel, canvas.shape[0] * pixel
    top = HEADLINE if words else 0.05
    side = MARGIN + gap_x * pixel / 2  # the outer titles stand out of the mosaic by half a gap
    figure = new_figure(max(across + 2 * side, 1.2 * text_width(words) + 0.3), up + top + 2 * CAPTION + 0.1)
    if words:
        headline(figure, words)
    axes = place(figure, side, CAPTION + 0.08, across, up)
    _show(axes, canvas, "gray", *_range(images))
    for (x, y), title in zip(corners, titles, strict=True):
        axes.text(x + width / 2, y - 0.04 / pixel, title, ha="center", va="bottom")
    return figure, axes, corners


def _mosaic(images: np.ndarray, columns: int, gap_y: int, gap_x: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Pictures (n, height, width) laid out row by row, NaN between; their upper left corners as (x, y)."""
    count, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap_y) - gap_y, columns * (width + gap_x) - gap_x), np.nan)
    corners = []
    for number, picture in enumerate(images):
        y, x = number // columns * (height + gap_y), number % columns * (width + gap_x)
        canvas[y : y + height, x : x + width] = picture
        corners.append((x - 0.5, y - 0.5))  # the centre of the first pixel is at 0
    return canvas, corners


def _show(axes: Axes, canvas: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    axes.set_axis_off()
    colourmap = colormaps[colours].with_extremes(bad="white")
    return axes.imshow(canvas, cmap=colourmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto")


def _range(images: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    return low, high if high > low else low + 1
