"""Schoenholz et al. 2017: a tanh network learns only down to the depth that signals reach."""

import math

import numpy as np
from matplotlib.figure import Figure

from mlpexp.report.studies.mean_field import critical_sigma_w, fixed_point
from mlpexp.report.studies.verdict import Rows, Verdict, grouped, levels

SIGMA_B = 0.2236068
LEARNED = 0.3  # training accuracy from which a network counts as trained; guessing gives 0.1
PAPER = 6  # the paper's rule of thumb: trainable down to about six depth scales


def verdict(rows: Rows) -> Verdict:
    """The map of training accuracy over sigma_w and depth, with the theory's depth scale over it."""
    accuracies = grouped(rows, ["model.sigma_w", "model.depth"], "train/acc", otherwise=0.1)
    sigmas, depths = levels(accuracies, 0), levels(accuracies, 1)
    accuracy = np.array([[accuracies[s, d].mean() for s in sigmas] for d in depths])  # (depths, sigmas)
    theory = np.array([fixed_point(s, SIGMA_B).depth_scale for s in sigmas])
    depth_reached = np.array([_deepest(depths, column) for column in accuracy.T])
    edge = critical_sigma_w(SIGMA_B)
    # at the margins of the grid the depth is not known
    known = (depth_reached > depths[0]) & (depth_reached < depths[-1]) & np.isfinite(theory)
    ratio = float(np.exp(np.median(np.log(depth_reached[known] / theory[known]))))
    deviation = np.abs(np.log(depth_reached[known] / (ratio * theory[known])))
    correlation = np.corrcoef(np.log(depth_reached[known]), np.log(theory[known]))[0, 1]
    best_sigma = float(np.average(sigmas, weights=(depth_reached >= 0.9 * depth_reached.max()).astype(float)))
    sentences = [
        f"{len(rows):,} networks of depth {depths[0]} to {depths[-1]}, sigma_w {sigmas[0]} to {sigmas[-1]}.",
        f"Theory: the edge of chaos is at sigma_w = {edge:.3f}; networks learn deepest around {best_sigma:.2f}.",
        f"Depth at which training accuracy falls below {LEARNED:.0%} is {ratio:.1f} depth scales (median; the paper: "
        f"{PAPER}); over {known.sum()} values of sigma_w it follows the scale with a correlation of {correlation:.2f} "
        f"in logarithms, off by a factor of {math.exp(float(np.median(deviation))):.2f} in the median and "
        f"{math.exp(float(deviation.max())):.2f} at most.",
    ]
    return Verdict(figure=_draw(sigmas, depths, accuracy, edge, ratio), sentences=sentences)


def _deepest(depths: list[int], accuracy: np.ndarray) -> float:
    """The depth, in logarithms between two of the grid, beyond which accuracy stays below LEARNED."""
    above = np.flatnonzero(accuracy >= LEARNED)
    if not above.size:
        return float(depths[0])
    i = int(above[-1])
    if i == len(depths) - 1:
        return float(depths[-1])
    share = (accuracy[i] - LEARNED) / (accuracy[i] - accuracy[i + 1])
    return float(np.exp(np.log(depths[i]) + share * (np.log(depths[i + 1]) - np.log(depths[i]))))


def _draw(sigmas: list[float], depths: list[int], accuracy: np.ndarray, edge: float, ratio: float) -> Figure:
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    mesh = axes.pcolormesh(sigmas, depths, accuracy, cmap="cividis", vmin=0.1, vmax=1, shading="nearest")
    fine = np.linspace(sigmas[0], sigmas[-1], 60)
    scale = np.array([fixed_point(s, SIGMA_B).depth_scale for s in fine])
    for factor, style, label in (
        (PAPER, "--", rf"{PAPER} $\xi$ (the paper's rule)"),
        (ratio, "-", rf"{ratio:.1f} $\xi$ (fits best)"),
    ):
        axes.plot(fine, factor * scale, style, color="white", lw=1.8, label=label)
    axes.axvline(edge, color="tab:red", lw=1.2, label="edge of chaos (theory)")
    axes.set(yscale="log", ylim=(depths[0], depths[-1] * 1.1), xlim=(sigmas[0] - 0.02, sigmas[-1] + 0.02))
    axes.set(xlabel=r"$\sigma_w$", ylabel="hidden layers", title="Training accuracy after 200 steps, tanh, width 50")
    ticks = [d for d in (1, 2, 5, 10, 20, 50, 100) if depths[0] <= d <= depths[-1]]
    axes.set_yticks(ticks, [str(d) for d in ticks])
    axes.minorticks_off()
    axes.legend(loc="lower right", fontsize=8, facecolor="0.35", labelcolor="white", framealpha=0.85)
    figure.colorbar(mesh, ax=axes, label="training accuracy")
    return figure
