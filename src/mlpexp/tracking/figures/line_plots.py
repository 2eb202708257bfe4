"""Lines over epochs: the learning curves of a run, and one number of each layer."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from mlpexp.tracking.figures.plot_style import (
    FAINT,
    GRID,
    TRAIN,
    VALIDATION,
    headline,
    in_house_style,
    new_figure,
    place,
    short,
)

LOG_FROM = 100  # greatest over least loss from which a linear axis hides the end of training
MARKED = 30  # epochs up to which each has a dot
LEGEND = 12  # layers that a legend names at most


@in_house_style
def learning_curves(
    history: Sequence[Mapping[str, float]],
    best_epoch: int | None = None,
    loss_title: str = "loss (nats)",
    metric: str = "acc",
    metric_title: str = "accuracy (share correct)",
    *,
    is_share: bool = True,
) -> Figure:
    """Loss and another metric over the epochs side by side, train and validation in each.

    The loss axis begins at 0, or is logarithmic where the losses span a factor of 100; a share is in [0, 1].

    Args:
        history: one mapping per epoch with `train/loss`, `val/loss`, `train/acc`, `val/acc`, any of which
            may be missing or not finite.
        best_epoch: from 0; marked by a vertical line.
        loss_title, metric_title: of the axes, with their units.
        is_share: whether the metric lies in [0, 1].
    """
    figure = new_figure(10, 4)
    loss = _train_and_validation(place(figure, 0.8, 0.55, 4.0, 2.85), history, "loss", best_epoch)
    _name_values(loss, loss_title)
    accuracy = _train_and_validation(place(figure, 5.8, 0.55, 4.0, 2.85), history, metric, best_epoch)
    _name_values(accuracy, metric_title)
    if is_share:
        accuracy.set_ylim(0, 1)
    losses = np.concatenate([line.get_ydata() for line in loss.get_lines()[:2]])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    if positive.size and positive.max() > LOG_FROM * positive.min():
        _log_axis(loss, positive)
        _name_values(loss, f"{loss_title}, log scale")
    elif positive.size:
        loss.set_ylim(0, 1.05 * positive.max())
        loss.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        loss.yaxis.set_major_formatter(FuncFormatter(_plain))
    else:
        loss.set_ylim(0, 1)
    return figure


@in_house_style
def layer_lines(
    values: np.ndarray, name: str, unit: str = "", axis: Literal["log", "share"] = "log", first_epoch: int = 0
) -> Figure:
    """One line per layer over the epochs, layer 0 darkest.

    Args:
        values: (epochs, layers); not finite, and on a logarithmic axis not positive, means a gap.
        name: what they are, e.g. `gradient norm`.
        unit: of the values, e.g. `L2`.
        axis: `log`, or `share` for values in [0, 1].
        first_epoch: of `values`; -1 where they begin with the state before training.
    """
    values = np.asarray(values, dtype=float)
    epochs, layers = values.shape
    figure = new_figure(7, 3.6)
    axes = place(figure, 0.8, 0.55, 4.9, 2.6)
    headline(figure, f"{name[:1].upper()}{name[1:]} by layer")
    shown = np.where(np.isfinite(values) & ((values > 0) | (axis == "share")), values, np.nan)
    colours = colormaps["viridis"](np.linspace(0, 0.88, layers))
    lines = axes.plot(first_epoch + np.arange(epochs), shown, marker="o" if epochs <= MARKED else None, clip_on=False)
    for line, colour in zip(lines, colours, strict=True):
        line.set_color(colour)
    _epochs_axis(axes, epochs, first_epoch)
    if first_epoch < 0:
        axes.set_xlabel(f"epoch ({first_epoch}: before training)")
    finite = shown[np.isfinite(shown)]
    if axis == "log" and finite.size:
        _log_axis(axes, finite)
        _name_values(axes, short(unit or name, 30) + ", log scale")
    else:
        axes.set_ylim(0, 1)
        _name_values(axes, short(unit or name, 40))
    in_legend = np.unique(np.linspace(0, layers - 1, min(layers, LEGEND)).round().astype(int))
    axes.legend(
        [lines[layer] for layer in in_legend],
        [f"layer {layer}" for layer in in_legend],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        fontsize=9,
    )
    return figure


def _train_and_validation(
    axes: Axes, history: Sequence[Mapping[str, float]], metric: str, best_epoch: int | None
) -> Axes:
    epochs = np.arange(len(history))
    curves = np.array([[row.get(f"{part}/{metric}", np.nan) for row in history] for part in ("train", "val")])
    shown = np.where(np.isfinite(curves), curves, np.nan)  # (2, epochs)
    marker = "o" if len(history) <= MARKED else None
    axes.plot(epochs, shown[0], color=TRAIN, marker=marker, label="train", clip_on=False)
    axes.plot(epochs, shown[1], color=VALIDATION, marker=marker, label="validation", clip_on=False)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=FAINT, ls=":", lw=1.2, zorder=1, label=f"best epoch: {best_epoch}")
    # a value that is missing altogether is not a divergence: only what was measured counts
    bad = [
        epoch
        for epoch, row in enumerate(history)
        if any(not np.isfinite(row.get(f"{part}/{metric}", 0.0)) for part in ("train", "val"))
    ]
    if bad:
        label = f"not finite from epoch {bad[0]}"
        axes.axvspan(bad[0] - 0.5, len(history) - 0.5, color=GRID, lw=0, zorder=0, label=label)
    _epochs_axis(axes, len(history))
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2 if bad and best_epoch is not None else 3,
        fontsize=9,
        handlelength=1.5,
        columnspacing=1.2,
    )
    return axes


def _epochs_axis(axes: Axes, epochs: int, first: int = 0) -> None:
    axes.set_xlim(first - 0.5, first + max(epochs, 1) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid(axis="y", color=GRID)


def _log_axis(axes: Axes, positive: np.ndarray) -> None:
    low, high = positive.min(), positive.max()
    decades = np.log10(high / low)
    axes.set_yscale("log")
    margin = 10 ** max(0.05 * decades, (0.5 - decades) / 2)  # at least half a decade, which holds two labels
    axes.set_ylim(low / margin, high * margin)
    between = (1, 1.5, 2, 3, 5, 7) if decades < 0.7 else (1, 2, 5) if decades < 2 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=between, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, _position: int | None = None) -> str:
    """A tick as `0.01`, `50` or `1e6`, not in mathematical type."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _name_values(axes: Axes, name: str) -> None:
    """Label the axis at a fixed distance, so that axes side by side are aligned."""
    axes.set_ylabel(name)
    beside = ScaledTranslation(-0.58, 0, axes.figure.dpi_scale_trans)  # inches
    axes.yaxis.set_label_coords(0, 0.5, transform=axes.transAxes + beside)
