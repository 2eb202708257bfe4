"""Glorot & Bengio 2010: signals that vanish from layer to layer, and initial weights that preserve them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mlpexp.analysis import run_files
from mlpexp.report.studies.verdict import Rows, Verdict, grouped, levels
from mlpexp.store.results_table import load_results
from mlpexp.tracking.figures.plot_style import BLUE, FAINT, VERMILION

LEARNED = 0.5  # training accuracy from which a network counts as trained; guessing gives 0.1
INITS = {"fan_in_uniform": ("standard", VERMILION, "o-"), "xavier_uniform": ("normalised", BLUE, "s-")}
# the factor of a signal's spread from one tanh layer to the next: the square root of n Var[W], equations 5 and 6
THEORY = {"fan_in_uniform": 3**-0.5, "xavier_uniform": 1.0}


def read(directory: Path) -> Rows:
    """The table, and under `inside` each column of a run's `layers.csv` as (epochs + 1, layers)."""
    return [{**row, "inside": run_files.layers_of_run(directory, row["name"])} for row in load_results(directory)]


def verdict(rows: Rows) -> Verdict:
    """The spread of activations and gradients by layer, at the start and later, and the depths that learn."""
    accuracy = grouped(rows, ["model.activation", "model.init", "model.depth"], "train/acc", otherwise=0.1)
    activations, depths = ["tanh", "sigmoid"], levels(accuracy, 2)
    layers = {setting: _mean(runs) for setting, runs in _layers_by_setting(rows).items()}
    deepest = depths[-1]
    sentences = [f"{len(rows)} networks of depth {depths[0]} to {deepest}; spreads are of those of depth {deepest}."]
    for activation in activations:
        clauses = []
        for init, (name, *_) in INITS.items():
            start = {column: cube[0] for column, cube in layers[activation, init, deepest].items()}
            clauses.append(
                f"{name} {per_layer(start['activation_std'][:deepest]):.2f} forwards, "
                f"{1 / per_layer(start['gradient_std'][:deepest]):.2f} backwards"
                + (f" (theory {THEORY[init]:.2f})" if activation == "tanh" else "")
            )
        sentences.append(f"At the start a {activation} layer multiplies a signal's spread by: {'; '.join(clauses)}.")
    ratios = []
    for init, (name, *_) in INITS.items():
        start = layers["tanh", init, deepest]
        of_activations, of_weights = start["gradient_std"][0][1:deepest], start["gradient_norm"][0][1:deepest]
        ratios.append(f"{name} {of_activations[-1] / of_activations[0]:.3g} and {of_weights[-1] / of_weights[0]:.2g}")
    sentences.append(
        f"From tanh layer 2 to layer {deepest}, which are of one size, the gradient that arrives grows by a factor of, "
        f"and that of the weights by: {'; '.join(ratios)}."
    )
    for activation in activations:
        clauses = []
        for init, (name, *_) in INITS.items():
            learned = [d for d in depths if (accuracy[activation, init, d] >= LEARNED).all()]
            first_failed = next((d for d in depths if d not in learned), None)
            depth_reached = (
                "every depth"
                if first_failed is None
                else "no depth"
                if first_failed == depths[0]
                else f"depth {first_failed - 1}"
            )
            last = accuracy[activation, init, deepest].mean()
            clauses.append(
                f"{name} up to {depth_reached} ({last:.0%} of the training samples right at depth {deepest})"
            )
        sentences.append(f"All seeds learn with {activation}: {'; '.join(clauses)}.")
    return Verdict(figure=_draw(activations, depths, accuracy, layers), sentences=sentences)


def per_layer(spreads: np.ndarray) -> float:
    """The factor from one layer to the next, from a straight line through the logarithms."""
    logs = np.log(spreads)
    return float(np.exp(np.polyfit(np.arange(len(logs)), logs, 1)[0]))


def _layers_by_setting(rows: Rows) -> dict[tuple[Any, ...], list[dict[str, np.ndarray]]]:
    runs = defaultdict(list)
    for row in rows:
        if row["inside"]:
            runs[row["model.activation"], row["model.init"], row["model.depth"]].append(row["inside"])
    return runs


def _mean(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Geometric means over seeds: spreads differ by orders of magnitude."""
    means = {}
    for column in ("activation_std", "gradient_std", "gradient_norm"):
        cube = np.stack([run[column] for run in runs])
        with np.errstate(divide="ignore"):
            means[column] = np.exp(np.log(cube).mean(0))
    return means


def _draw(activations: list[str], depths: list[int], accuracy: Any, layers: Any) -> Figure:
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(len(activations), 3)
    for row, activation in zip(panels, activations, strict=True):
        for axes, column in zip(row, ("activation_std", "gradient_std"), strict=False):
            for init, (_, colour, _) in INITS.items():
                _by_layer(axes, layers[activation, init, depths[-1]][column][:, : depths[-1]], colour)
            axes.set(yscale="log", xlabel="hidden layer", xticks=range(1, depths[-1] + 1))
            # plain numbers: the figures' style has no mathematical text
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        row[0].set_ylim(3e-4, 1)
        for init, (name, colour, style) in INITS.items():
            values = [accuracy[activation, init, d] for d in depths]
            row[2].plot(depths, [v.mean() for v in values], style, color=colour, ms=4, label=name)
            row[2].fill_between(
                depths, [v.min() for v in values], [v.max() for v in values], color=colour, alpha=0.2, lw=0
            )
        row[2].axhline(0.1, color=FAINT, lw=0.8, ls=":")
        row[2].text(depths[-1], 0.12, "guessing", fontsize=7, color=FAINT, ha="right")
        row[2].set(ylim=(0, 1.03), xlabel="hidden layers", xticks=depths, ylabel=f"{activation}: training accuracy")
        row[0].set_ylabel(f"{activation}: std of activations")
        row[1].set_ylabel(f"{activation}: std of gradient (nats per unit)")
    for axes, title in zip(panels[0], ("Forwards", "Backwards", "After the last epoch"), strict=True):
        axes.set_title(f"{title}, depth {depths[-1]}" if axes is not panels[0][2] else title)
    panels[0][2].legend(title="initialisation", fontsize=8, loc="center left")
    solid, thin, dashed = (
        panels[0][0].plot([], [], style, color="0.3", lw=width)[0]
        for style, width in (("o-", 2), ("-", 0.7), ("--", 1.4))
    )
    panels[0][0].legend(
        [solid, thin, dashed], ["before the first step", "in between", "after the last epoch"], fontsize=8
    )
    return figure


def _by_layer(axes: Axes, table: np.ndarray, colour: str) -> None:
    """Spread by layer: thick at the start, thin in between, dashed at the end; (epochs + 1, layers)."""
    layers = np.arange(1, table.shape[1] + 1)
    epochs = len(table) - 1
    axes.plot(layers, table[0], "o-", color=colour, lw=2, ms=4)
    for epoch in sorted({e for e in (1, 3, 10) if e < epochs}):
        axes.plot(layers, table[epoch], "-", color=colour, lw=0.7, alpha=0.7)
    axes.plot(layers, table[-1], "--", color=colour, lw=1.4)
