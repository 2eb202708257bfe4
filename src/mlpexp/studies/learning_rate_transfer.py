"""Yang et al. 2022: in muP the best learning rate of a narrow network is that of a wide one."""

import math

import numpy as np
from matplotlib.figure import Figure

from mlpexp.studies.verdict import Rows, Verdict, grouped, levels

FAILED_LOSS = 10.0  # a run that diverged
TITLES = {"standard": "standard parametrization", "mup": "muP (base width 32)"}


def verdict(rows: Rows) -> Verdict:
    """Training loss against the rate for each width, in both parametrizations."""
    found = grouped(rows, ["model.parametrization", "model.width", "optimizer.lr"], "train/loss", otherwise=FAILED_LOSS)
    widths, rates = levels(found, 1), levels(found, 2)
    losses = {which: np.array([[found[which, w, lr].mean() for lr in rates] for w in widths]) for which in TITLES}
    best = {which: [best_rate(rates, curve) for curve in table] for which, table in losses.items()}
    spread = {which: max(found_) / min(found_) for which, found_ in best.items()}
    at_narrow = {which: table[-1][int(np.argmin(table[0]))] / table[-1].min() - 1 for which, table in losses.items()}
    sentences = [
        f"Best rate by width ({', '.join(map(str, widths))}): "
        + "; ".join(f"{which} {', '.join(f'{rate:.2g}' for rate in found_)}" for which, found_ in best.items())
        + ".",
        f"Largest over smallest best rate: {spread['standard']:.1f} in the standard parametrization, "
        f"{spread['mup']:.1f} in muP.",
        f"The rate that is best at width {widths[0]} costs at width {widths[-1]} "
        + " and ".join(f"{share:+.0%} of the best training loss ({which})" for which, share in at_narrow.items())
        + ".",
    ]
    return Verdict(figure=_draw(widths, rates, losses, best), sentences=sentences)


def best_rate(rates: list[float], losses: np.ndarray) -> float:
    """The rate of the smallest loss, between those of the grid by a parabola in logarithms."""
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1):
        return float(rates[i])
    a, b, c = np.log(losses[i - 1 : i + 2])
    step = math.log(rates[i + 1] / rates[i])
    return float(rates[i] * math.exp(0.5 * step * (a - c) / (a - 2 * b + c)))


def _draw(widths: list[int], rates: list[float], losses: dict[str, np.ndarray], best: dict[str, list[float]]) -> Figure:
    from matplotlib import colormaps

    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(widths)))
    for one, (which, table) in zip(axes, losses.items(), strict=True):
        for width, curve, rate, shade in zip(widths, table, best[which], shades, strict=True):
            one.plot(rates, curve, "-", color=shade, label=str(width))
            one.plot([rate], [curve.min()], "o", color=shade, ms=6)
        one.set(xscale="log", yscale="log", xlabel="learning rate (Adam)", title=TITLES[which])
        # in plain words: the house style sets no mathematics
        one.set_xticks(rates[1::2], [f"{rate:g}" for rate in rates[1::2]])
        heights = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if losses[which].min() <= tick]
        one.set_yticks(heights, [f"{tick:g}" for tick in heights])
        one.minorticks_off()
    axes[0].set_ylabel("training loss (nats), last epoch")
    axes[1].legend(title="width", fontsize=8)
    return figure
