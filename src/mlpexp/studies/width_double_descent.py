"""Belkin et al. 2019, Nakkiran et al. 2020: test error against width with noisy labels."""

import numpy as np
from matplotlib.figure import Figure

from mlpexp.studies.verdict import Rows, Verdict, grouped, levels

FITTED = 0.99  # training accuracy from which a network interpolates


def verdict(rows: Rows) -> Verdict:
    """Test and training error over width, one colour for each share of noisy labels."""
    tested = grouped(rows, ["data.label_noise", "model.width"], "test/acc")
    trained = grouped(rows, ["data.label_noise", "model.width"], "train/acc")
    size = {row["model.width"]: row["num_parameters"] for row in rows}
    noises, widths = levels(tested, 0), levels(tested, 1)
    sentences = []
    curves = {}
    for noise in noises:
        error = np.array([1 - np.nanmean(tested[noise, w]) for w in widths])
        training = np.array([1 - np.nanmean(trained[noise, w]) for w in widths])
        curves[noise] = error, training
        fits = [w for w, e in zip(widths, training, strict=True) if e <= 1 - FITTED]
        threshold = f"width {fits[0]} ({size[fits[0]]:,} parameters)" if fits else "no width of the grid"
        first = int(np.argmin(error[: len(widths) // 2]))
        after = first + int(np.argmax(error[first:]))
        rise = error[after] - error[first]
        fall = error[after] - error[after:].min()
        sentences.append(
            f"Label noise {noise:g}: {FITTED:.0%} of the training labels are fitted from {threshold} on; test error "
            f"{error[first]:.3f} at width {widths[first]}, rises by {rise:.3f} to width {widths[after]}, falls by "
            f"{fall:.3f} after it."
        )
    return Verdict(figure=_draw(widths, curves), sentences=sentences)


def _draw(widths: list[int], curves: dict[float, tuple[np.ndarray, np.ndarray]]) -> Figure:
    from matplotlib import colormaps

    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    for (noise, (error, training)), shade in zip(curves.items(), colormaps["viridis"]([0.1, 0.5, 0.85]), strict=False):
        axes.plot(widths, error, "o-", ms=3, color=shade, label=f"test, label noise {noise:g}")
        axes.plot(widths, training, ":", color=shade, label=f"training, label noise {noise:g}")
    axes.set(xscale="log", xlabel="width (one hidden layer)", ylabel="error", ylim=(0, None))
    axes.set_title("Error after 150 epochs, relu, 30 % of the digits for training")
    axes.legend(fontsize=8)
    return figure
