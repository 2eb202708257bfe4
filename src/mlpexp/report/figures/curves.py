"""Learning curves and layers as small multiples."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from mlpexp.report.figures.canvas import METRICS, plain
from mlpexp.tracking.figures.style import GRID, TRAIN, VALIDATION, headline, in_house_style, new_figure, place, short

COLUMNS = 4
WIDE, HIGH = 2.1, 1.3  # inches
LOG_FROM = 30
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # (epochs,) low, middle, high
Panel = tuple[str, dict[str, Band]]  # title, part -> band


def band(rows: np.ndarray) -> Band:
    """10th percentile, mean, 90th percentile over runs (runs, epochs); NaN where no run got so far."""
    some = np.isfinite(rows).any(axis=0)
    found = np.full((3, rows.shape[1]), np.nan)
    if some.any():
        shown = np.where(np.isfinite(rows), rows, np.nan)[:, some]
        if np.isfinite(shown).all():
            found[0, some], found[2, some] = np.quantile(shown, (0.1, 0.9), axis=0)
        else:
            found[0, some], found[2, some] = np.nanquantile(shown, (0.1, 0.9), axis=0)
        found[1, some] = np.nanmean(shown, axis=0)
    return found[0], found[1], found[2]


@in_house_style
def learning_curves(panels: Sequence[Panel], metric: str) -> Figure:
    """One panel per configuration on one scale: the mean over its seeds, and a band from the 10th to the 90th percentile."""
    figure, places = _multiples(len(panels))
    values = np.concatenate([part for _, bands in panels for b in bands.values() for part in b] or [np.empty(0)])
    values = values[np.isfinite(values)]
    epochs = max((len(b[1]) for _, bands in panels for b in bands.values()), default=1)
    log = metric == "loss" and values.size and values.min() > 0 and values.max() > LOG_FROM * values.min()
    for (title, bands), (axes, outer_left, outer_bottom) in zip(panels, places, strict=True):
        for part, colour in (("train", TRAIN), ("validation", VALIDATION)):
            if part in bands:
                low, middle, high = bands[part]
                at = np.arange(len(middle))
                axes.fill_between(at, low, high, color=colour, alpha=0.22, lw=0)
                axes.plot(at, middle, color=colour, lw=1.5, marker="o" if len(middle) == 1 else None, ms=3)
        _dress(axes, title, epochs, outer_left, outer_bottom)
        if log:
            _log(axes, values)
        elif values.size:
            margin = 0.05 * (values.max() - values.min()) or 0.01
            axes.set_ylim(values.min() - margin, values.max() + margin)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(FuncFormatter(plain))
        if outer_left:
            axes.set_ylabel(METRICS[metric])
    headline(figure, f"{METRICS[metric].capitalize()} while training{' (log scale)' if log else ''}")
    handles = [figure.axes[0].plot([], [], color=c, label=n)[0] for c, n in ((TRAIN, "train"), (VALIDATION, "validation"))]
    _legend(figure, handles)
    return figure


@in_house_style
def layer_multiples(panels: Sequence[tuple[str, np.ndarray]], name: str, share: bool = False) -> Figure:
    """One panel per configuration, one line per layer over the epochs, the first layer darkest.

    Args:
        panels: title and (epochs, layers).
        share: the values lie in [0, 1]; otherwise the axis is logarithmic.
    """
    figure, places = _multiples(len(panels))
    values = np.concatenate([cube.ravel() for _, cube in panels])
    values = values[np.isfinite(values) & (values > 0)]
    epochs = max(len(cube) for _, cube in panels)
    layers = max(cube.shape[1] for _, cube in panels)
    colours = colormaps["viridis"](np.linspace(0, 0.85, layers))
    for (title, cube), (axes, outer_left, outer_bottom) in zip(panels, places, strict=True):
        for layer in range(cube.shape[1]):
            axes.plot(np.arange(len(cube)), np.where(share | (cube[:, layer] > 0), cube[:, layer], np.nan), color=colours[layer], lw=1.5)
        _dress(axes, title, epochs, outer_left, outer_bottom)
        if share:
            axes.set_ylim(0, max(0.05, 1.05 * values.max(initial=0)))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        elif values.size:
            _log(axes, values)
    headline(figure, f"{name}{'' if share else ' (log scale)'}")
    named = np.unique(np.linspace(0, layers - 1, min(layers, 6)).round().astype(int))
    handles = [figure.axes[0].plot([], [], color=colours[i], label=f"layer {i + 1}")[0] for i in named]
    _legend(figure, handles)
    return figure


def _multiples(count: int) -> tuple[Figure, list[tuple[Axes, bool, bool]]]:
    """Axes in rows, left to right; with whether each is leftmost, and whether nothing is below it."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    step_x, step_y = WIDE + 0.2, HIGH + 0.42
    figure = new_figure(max(0.8 + columns * step_x, 5.2), 0.95 + rows * step_y)
    found = []
    for number in range(count):
        row, column = divmod(number, columns)
        axes = place(figure, 0.75 + column * step_x, 0.5 + (rows - 1 - row) * step_y, WIDE, HIGH)
        found.append((axes, column == 0, number + columns >= count))
    return figure, found


def _dress(axes: Axes, title: str, epochs: int, outer_left: bool, outer_bottom: bool) -> None:
    axes.set_xlim(-0.03 * epochs, max(epochs - 1, 0.5) + 0.03 * epochs)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], integer=True))
    axes.grid(axis="y", color=GRID)
    axes.tick_params(length=2, labelleft=outer_left, labelbottom=outer_bottom, labelsize=8)
    axes.text(0, 1.05, title, transform=axes.transAxes, size=8, va="bottom")
    if outer_bottom:
        axes.set_xlabel("epoch", size=8, labelpad=2)


def _log(axes: Axes, values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    margin = max((high / low) ** 0.05, 1.2)
    axes.set_yscale("log")
    axes.set_ylim(low / margin, high * margin)
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if decades < 2.5 else (1,), numticks=5))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, handles: Sequence[object]) -> None:
    figure.legend(
        handles=handles, loc="upper right", ncols=len(handles), fontsize=9, handlelength=1.2, columnspacing=1.0,
        borderaxespad=0.2,
    )  # fmt: skip


def panel_title(words: str) -> str:
    """As much of a configuration's name as fits above its panel, on two lines if need be."""
    if len(words) <= 34:
        return words
    cut = words.rfind(", ", 0, 34)
    cut = cut if cut > 0 else 33
    return f"{words[:cut + 1].rstrip()}\n{short(words[cut + 1 :].strip(), 34)}"
