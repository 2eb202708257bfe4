"""Learning curves and layers as small multiples."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mlpexp.nn.metrics import METRICS
from mlpexp.report.figures.small_multiples import Multiples, panel_title
from mlpexp.tracking.figures.plot_style import TRAIN, VALIDATION, headline, in_house_style

LOG_FROM = 30  # greatest over least loss
COLOURS = {"train": TRAIN, "validation": VALIDATION}
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # (epochs,) low, middle, high
Panel = tuple[str, dict[str, Band]]  # title, part -> band


def band(rows: np.ndarray) -> Band:
    """10th percentile, mean, 90th percentile over runs (runs, epochs); NaN where no run got so far."""
    finite = np.isfinite(rows)
    some = finite.any(axis=0)
    found = np.full((3, rows.shape[1]), np.nan)
    if some.any():
        shown = np.where(finite, rows, np.nan)[:, some]
        quantile = np.quantile if finite.all() else np.nanquantile
        found[0, some], found[2, some] = quantile(shown, (0.1, 0.9), axis=0)
        found[1, some] = np.nanmean(shown, axis=0)
    return found[0], found[1], found[2]


@in_house_style
def learning_curves(panels: Sequence[Panel], metric: str) -> Figure:
    """One panel per configuration: the mean over its seeds, and a band from the 10th to the 90th percentile."""
    values = np.concatenate([line for _, bands in panels for band in bands.values() for line in band])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    log = metric == "loss" and 0 < low * LOG_FROM < high
    if not log:
        margin = 0.05 * (high - low) or 0.01
        low, high = low - margin, high + margin
    epochs = max(len(band[1]) for _, bands in panels for band in bands.values())
    drawn = Multiples([panel_title(t) for t, _ in panels], epochs, low, high, log=log, label=METRICS[metric].title)
    for part, colour in COLOURS.items():
        having = [number for number, (_, bands) in enumerate(panels) if part in bands]
        bands = [panels[number][1][part] for number in having]
        drawn.bands(having, [b[0] for b in bands], [b[2] for b in bands], colour)
        drawn.lines(having, [b[1] for b in bands], colour)
    drawn.legend(list(COLOURS.items()))
    headline(drawn.figure, f"{METRICS[metric].title.capitalize()} while training{' (log scale)' if log else ''}")
    return drawn.figure


@in_house_style
def layer_multiples(panels: Sequence[tuple[str, np.ndarray]], name: str, share: bool = False) -> Figure:
    """One panel per configuration, one line per layer over the epochs, the first layer darkest.

    Args:
        panels: title and (epochs, layers).
        share: the values lie in [0, 1]; otherwise the axis is logarithmic.
    """
    values = np.concatenate([cube.ravel() for _, cube in panels])
    values = values[np.isfinite(values) & (values > 0)]
    epochs, layers = (max(cube.shape[axis] for _, cube in panels) for axis in (0, 1))
    if share:
        high = max(0.05, 1.05 * values.max(initial=0))
        low = -0.03 * high  # a line at 0 is seen
    else:
        low, high = (values.min(), values.max()) if values.size else (0.1, 1.0)
    label = "share" if share else "L2 norm"
    drawn = Multiples([panel_title(t) for t, _ in panels], epochs, float(low), float(high), log=not share, label=label)
    colours = [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 0.85, layers))]
    for layer in reversed(range(layers)):
        having = [number for number, (_, cube) in enumerate(panels) if cube.shape[1] > layer]
        drawn.lines(having, [panels[number][1][:, layer] for number in having], colours[layer])
    named = np.unique(np.linspace(0, layers - 1, min(layers, 5)).round().astype(int))
    drawn.legend([(f"layer {layer + 1}", colours[layer]) for layer in named])
    headline(drawn.figure, f"{name}{'' if share else ' (log scale)'}")
    return drawn.figure
