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
    cells = grouped(rows, ["model.parametrization", "model.width", "optimizer.lr"], "train/loss", otherwise=FAILED_LOSS)
    widths, rates = levels(cells, 1), levels(cells, 2)
    losses = {kind: np.array([[cells[kind, w, lr] for lr in rates] for w in widths]) for kind in TITLES}
    mean = {kind: np.exp(np.log(table).mean(2)) for kind, table in losses.items()}  # (widths, rates)
    # of each seed alone: (widths, seeds)
    best_by_seed = {
        w: np.array([[best_rate(rates, seed) for seed in width.T] for width in table]) for w, table in losses.items()
    }
    best = {kind: np.median(rates_of, 1) for kind, rates_of in best_by_seed.items()}
    spread = {kind: rates_of.max() / rates_of.min() for kind, rates_of in best.items()}
    slope = {w: float(np.polyfit(np.log(widths), np.log(rates_of), 1)[0]) for w, rates_of in best.items()}
    at_edge = {w: int(np.isin(table.argmin(1), (0, len(rates) - 1)).sum()) for w, table in mean.items()}
    at_narrow = {kind: table[-1][int(np.argmin(table[0]))] / table[-1].min() - 1 for kind, table in mean.items()}
    sentences = [
        f"Best rate by width ({', '.join(map(str, widths))}), median over {losses['mup'].shape[2]} seeds: "
        + "; ".join(f"{kind} {', '.join(f'{rate:.2g}' for rate in rates_of)}" for kind, rates_of in best.items())
        + f". At the edge of the grid: {at_edge['standard']} and {at_edge['mup']} of {len(widths)}.",
        f"Largest over smallest best rate: {spread['standard']:.1f} in the standard parametrization, "
        f"{spread['mup']:.1f} in muP; it goes with the width to the power of {slope['standard']:.2f} and "
        f"{slope['mup']:.2f}.",
        f"The rate that is best at width {widths[0]} costs at width {widths[-1]} "
        + " and ".join(f"{share:+.0%} of the best training loss ({kind})" for kind, share in at_narrow.items())
        + ".",
        f"Smallest training loss at width {widths[-1]}: "
        + ", ".join(f"{table[-1].min():.4f} ({kind})" for kind, table in mean.items())
        + ".",
    ]
    return Verdict(figure=_draw(widths, rates, mean, best_by_seed), sentences=sentences)


def best_rate(rates: list[float], losses: np.ndarray) -> float:
    """The rate of the smallest loss, interpolated by a parabola in logarithms."""
    i = int(np.argmin(losses))
    if i in (0, len(rates) - 1):
        return float(rates[i])
    a, b, c = np.log(losses[i - 1 : i + 2])
    step = math.log(rates[i + 1] / rates[i])
    return float(rates[i] * math.exp(0.5 * step * (a - c) / (a - 2 * b + c)))


def _draw(
    widths: list[int], rates: list[float], mean: dict[str, np.ndarray], best_by_seed: dict[str, np.ndarray]
) -> Figure:
    from matplotlib import colormaps

    figure = Figure(figsize=(11.5, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[1].sharey(axes[0])
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(widths)))
    lowest = min(table.min() for table in mean.values())
    heights = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if lowest <= tick]
    for panel, (parametrization, table) in zip(axes, mean.items(), strict=False):
        for width, curve, shade in zip(widths, table, shades, strict=True):
            panel.plot(rates, curve, "-", color=shade, label=str(width))
            i = int(curve.argmin())
            panel.plot([rates[i]], [curve[i]], "o", color=shade, ms=6)
        panel.set(xscale="log", yscale="log", xlabel="learning rate (Adam)", title=TITLES[parametrization])
        # plain numbers: the figures' style has no mathematical text
        panel.set_xticks(rates[::2], [f"{rate:g}" for rate in rates[::2]], fontsize=8)
        panel.set_yticks(heights, [f"{tick:g}" for tick in heights])
        panel.minorticks_off()
    axes[0].set_ylabel("training loss (nats), last epoch")
    axes[1].legend(title="width", fontsize=8, loc="lower left")
    for parametrization, (colour, marker) in LOOKS.items():
        table = best_by_seed[parametrization]
        axes[2].plot(widths, np.median(table, 1), marker + "-", color=colour, label=TITLES[parametrization])
        axes[2].fill_between(widths, table.min(1), table.max(1), color=colour, alpha=0.15, lw=0)
    axes[2].set(xscale="log", yscale="log", xlabel="width", ylabel="best learning rate (Adam)")
    axes[2].set_title("Best rate: median and range of seeds")
    axes[2].set_xticks(widths, [str(width) for width in widths])
    axes[2].set_yticks(rates[2:], [f"{rate:g}" for rate in rates[2:]])
    axes[2].minorticks_off()
    axes[2].legend(fontsize=8, loc="lower left")
    return figure
