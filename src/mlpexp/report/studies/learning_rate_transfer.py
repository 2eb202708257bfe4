"""Yang et al. 2022: in muP the best learning rate of a narrow network is that of a wide one."""

import math

import numpy as np
from matplotlib.figure import Figure

from mlpexp.report.studies.verdict import Rows, Verdict, grouped, levels
from mlpexp.tracking.figures.plot_style import BLUE, VERMILION

FAILED_LOSS = 10.0  # of a diverged run
TITLES = {"standard": "standard parametrization", "mup": "muP (base width 32)"}
LOOKS = {"standard": (VERMILION, "s"), "mup": (BLUE, "o")}


def verdict(rows: Rows) -> Verdict:
    """Training loss against the rate for each width, in both parametrizations, and where the best rate lies."""
    found = grouped(rows, ["model.parametrization", "model.width", "optimizer.lr"], "train/loss", otherwise=FAILED_LOSS)
    widths, rates = levels(found, 1), levels(found, 2)
    losses = {which: np.array([[found[which, w, lr] for lr in rates] for w in widths]) for which in TITLES}
    mean = {which: np.exp(np.log(table).mean(2)) for which, table in losses.items()}  # (widths, rates)
    # of each seed alone: (widths, seeds)
    each = {w: np.array([[best_rate(rates, seed) for seed in of.T] for of in table]) for w, table in losses.items()}
    best = {which: np.median(found_, 1) for which, found_ in each.items()}
    spread = {which: found_.max() / found_.min() for which, found_ in best.items()}
    slope = {w: float(np.polyfit(np.log(widths), np.log(found_), 1)[0]) for w, found_ in best.items()}
    at_edge = {w: int(np.isin(of.argmin(1), (0, len(rates) - 1)).sum()) for w, of in mean.items()}
    at_narrow = {which: of[-1][int(np.argmin(of[0]))] / of[-1].min() - 1 for which, of in mean.items()}
    sentences = [
        f"Best rate by width ({', '.join(map(str, widths))}), median over {losses['mup'].shape[2]} seeds: "
        + "; ".join(f"{which} {', '.join(f'{rate:.2g}' for rate in found_)}" for which, found_ in best.items())
        + f". At the edge of the grid: {at_edge['standard']} and {at_edge['mup']} of {len(widths)}.",
        f"Largest over smallest best rate: {spread['standard']:.1f} in the standard parametrization, "
        f"{spread['mup']:.1f} in muP; it goes with the width to the power of {slope['standard']:.2f} and "
        f"{slope['mup']:.2f}.",
        f"The rate that is best at width {widths[0]} costs at width {widths[-1]} "
        + " and ".join(f"{share:+.0%} of the best training loss ({which})" for which, share in at_narrow.items())
        + ".",
        f"Smallest training loss at width {widths[-1]}: "
        + ", ".join(f"{of[-1].min():.4f} ({which})" for which, of in mean.items())
        + ".",
    ]
    return Verdict(figure=_draw(widths, rates, mean, each), sentences=sentences)


def best_rate(rates: list[float], losses: np.ndarray) -> float:
    """The rate of the smallest loss, interpolated by a parabola in logarithms."""
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1):
        return float(rates[i])
    a, b, c = np.log(losses[i - 1 : i + 2])
    step = math.log(rates[i + 1] / rates[i])
    return float(rates[i] * math.exp(0.5 * step * (a - c) / (a - 2 * b + c)))


def _draw(widths: list[int], rates: list[float], mean: dict[str, np.ndarray], each: dict[str, np.ndarray]) -> Figure:
    from matplotlib import colormaps

    figure = Figure(figsize=(11.5, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[1].sharey(axes[0])
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(widths)))
    lowest = min(table.min() for table in mean.values())
    heights = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if lowest <= tick]
    for one, (which, table) in zip(axes, mean.items(), strict=False):
        for width, curve, shade in zip(widths, table, shades, strict=True):
            one.plot(rates, curve, "-", color=shade, label=str(width))
            i = int(curve.argmin())
            one.plot([rates[i]], [curve[i]], "o", color=shade, ms=6)
        one.set(xscale="log", yscale="log", xlabel="learning rate (Adam)", title=TITLES[which])
        # plain numbers: the figures' style has no mathematical text
        one.set_xticks(rates[::2], [f"{rate:g}" for rate in rates[::2]], fontsize=8)
        one.set_yticks(heights, [f"{tick:g}" for tick in heights])
        one.minorticks_off()
    axes[0].set_ylabel("training loss (nats), last epoch")
    axes[1].legend(title="width", fontsize=8, loc="lower left")
    for which, (colour, marker) in LOOKS.items():
        table = each[which]
        axes[2].plot(widths, np.median(table, 1), marker + "-", color=colour, label=TITLES[which])
        axes[2].fill_between(widths, table.min(1), table.max(1), color=colour, alpha=0.15, lw=0)
    axes[2].set(xscale="log", yscale="log", xlabel="width", ylabel="best learning rate (Adam)")
    axes[2].set_title("Best rate: median and range of seeds")
    axes[2].set_xticks(widths, [str(width) for width in widths])
    axes[2].set_yticks(rates[2:], [f"{rate:g}" for rate in rates[2:]])
    axes[2].minorticks_off()
    axes[2].legend(fontsize=8, loc="lower left")
    return figure
