"""Belkin et al. 2019, Nakkiran et al. 2020: test error against width with noisy labels."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpexp.analysis.statistics import mean_and_half
from mlpexp.report.studies.verdict import Rows, Verdict, grouped, levels
from mlpexp.tracking.figures.plot_style import BLUE, VERMILION

FITTED = 0.99  # training accuracy from which a network interpolates
SHADES = ("#222222", BLUE, VERMILION)


def verdict(rows: Rows) -> Verdict:
    """Test error and test loss over the number of parameters, one colour for each share of noisy labels."""
    metrics = {
        name: grouped(rows, ["data.label_noise", "model.width"], name)
        for name in ("test/acc", "test/loss", "train/acc")
    }
    size = {row["model.width"]: row["num_parameters"] for row in rows}
    noises, widths = levels(metrics["test/acc"], 0), levels(metrics["test/acc"], 1)
    sizes = [size[w] for w in widths]
    curves: dict[float, dict[str, np.ndarray]] = {}
    thresholds: dict[float, int | None] = {}
    sentences = []
    for noise in noises:
        # (widths, seeds)
        table = {name: np.array([values[noise, w] for w in widths]) for name, values in metrics.items()}
        curves[noise] = {"test": 1 - table["test/acc"], "training": 1 - table["train/acc"], "loss": table["test/loss"]}
        fits = np.flatnonzero(np.nanmean(table["train/acc"], 1) >= FITTED)
        thresholds[noise] = int(fits[0]) if fits.size else None
        sentences += _described(noise, widths, sizes, thresholds[noise], curves[noise])
    return Verdict(figure=_draw(sizes, curves, thresholds), sentences=sentences)


def _described(
    noise: float, widths: list[int], sizes: list[int], threshold: int | None, curves: dict[str, np.ndarray]
) -> list[str]:
    if threshold is None:
        return [f"Label noise {noise:g}: no width of the grid fits {FITTED:.0%} of the training labels."]
    clauses = []
    for name, title in (("test", "test error"), ("loss", "test loss")):
        values = curves[name]
        mean = np.nanmean(values, 1)
        lowest = int(np.argmin(mean[: threshold + 1]))
        peak = lowest + int(np.argmax(mean[lowest:]))
        clauses.append(
            f"{title} {mean[lowest]:.3f} at width {widths[lowest]}, {mean[peak]:.3f} at {widths[peak]} "
            f"({_interval(values[peak] - values[lowest])}), {mean[-1]:.3f} at {widths[-1]}"
        )
    return [
        f"Label noise {noise:g}: {FITTED:.0%} of the training labels are fitted from width {widths[threshold]} "
        f"({sizes[threshold]:,} parameters) on; {'; '.join(clauses)}."
    ]


def _interval(differences: np.ndarray) -> str:
    """Paired over seeds: the mean and Student's 95 % interval."""
    mean, half, count = mean_and_half(differences)
    return f"{mean:+.3f}" + (f" ± {half:.3f}" if count > 1 else "")


def _draw(sizes: list[int], curves: dict[float, dict[str, np.ndarray]], thresholds: dict[float, Any]) -> Figure:
    figure = Figure(figsize=(10.5, 4), layout="constrained")
    error, loss = figure.subplots(1, 2)
    for (noise, curve), shade in zip(curves.items(), SHADES, strict=False):
        _band(error, sizes, curve["test"], shade, f"test, label noise {noise:g}")
        error.plot(sizes, np.nanmean(curve["training"], 1), ":", color=shade, lw=1.2)
        _band(loss, sizes, curve["loss"], shade, f"label noise {noise:g}")
        if (index := thresholds[noise]) is not None:
            for axes in (error, loss):
                axes.axvline(sizes[index], color=shade, lw=0.8, ls="--")
    error.plot([], [], ":", color="0.4", label="training")
    error.plot([], [], "--", color="0.4", lw=0.8, label=f"{FITTED:.0%} of the labels fitted")
    for axes in (error, loss):
        axes.set(xscale="log", xlabel="parameters (one hidden layer)")
        axes.set_xticks([100, 1000, 10_000, 100_000], ["100", "1,000", "10,000", "100,000"])
        axes.minorticks_off()
        axes.legend(fontsize=8)
    error.set(
        ylabel="share of samples wrong", ylim=(0, None), title="Error after the last epoch, mean and range of seeds"
    )
    loss.set(ylabel="test loss (nats)", ylim=(0, None), title="Test loss after the last epoch")
    return figure


def _band(axes: Axes, sizes: list[int], values: np.ndarray, shade: str, label: str) -> None:
    axes.plot(sizes, np.nanmean(values, 1), "o-", ms=3, color=shade, label=label)
    axes.fill_between(sizes, np.nanmin(values, 1), np.nanmax(values, 1), color=shade, alpha=0.15, lw=0)
