"""The exercises of the course notebook: more layers, another hidden size, another non-linearity."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import Analysis, analyse
from mlpexp.analysis.swept_keys import Key
from mlpexp.report.sentences import headline
from mlpexp.report.studies.verdict import Verdict

RATE = "optimizer.lr"
LOOKS = (("#56B4E9", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#222222", "D"), ("#CC79A7", "v"))


def read(directory: Path) -> Analysis:
    """The report's statistics."""
    return analyse(directory)


def verdict(analysis: Analysis) -> Verdict:
    """Test accuracy by depth, width and activation, each at the rate that its own validation prefers."""
    factors = analysis.study.factors
    sentences = list(headline(analysis))
    for number, key in enumerate(factors):
        estimates = analysis.cells("test", [number])
        values = [f"{key.levels[level]} {estimate}" for (level,), estimate in estimates.items()]
        sentences.append(f"Test accuracy by {key.label}, over all else: {', '.join(values)}.")
    terms = [term for term in analysis.variance.terms if term.share >= 0.01]
    explained = [f"{_named(factors, term.keys)} {term.share:.0%}" for term in sorted(terms, key=lambda t: -t.share)]
    luck = analysis.variance.noise + analysis.variance.blocks
    sentences.append(f"Variance of validation accuracy: {', '.join(explained)}; seeds {luck:.0%}.")
    accuracies = at_own_rate(analysis)
    means = np.array([estimate.mean for estimate in accuracies.values()])
    sentences.append(
        f"With the rate that its own validation loss prefers, each of the {len(accuracies)} networks has a test "
        f"accuracy between {means.min():.4f} and {means.max():.4f}."
    )
    return Verdict(figure=_draw(analysis, accuracies), sentences=sentences)


def at_own_rate(analysis: Analysis) -> dict[tuple[int, ...], Estimate]:
    """Test accuracy of each (depth, width, activation) at the rate with the best mean validation metric."""
    names = [key.name for key in analysis.study.factors]
    columns = [number for number, name in enumerate(names) if name != RATE]
    ranks = {configuration: rank for rank, configuration in enumerate(analysis.ranking.order.tolist())}
    best: dict[tuple[int, ...], int] = {}
    for configuration, levels in enumerate(analysis.levels[:, columns].tolist()):
        setting = tuple(levels)
        if setting not in best or ranks[configuration] < ranks[best[setting]]:
            best[setting] = configuration
    return {setting: analysis.ranking.estimate(configuration, "test/acc") for setting, configuration in best.items()}


def _named(factors: list[Key], numbers: tuple[int, ...]) -> str:
    return " x ".join(factors[number].label for number in numbers)


def _draw(analysis: Analysis, accuracies: dict[tuple[int, ...], Estimate]) -> Figure:
    depth, width, activation = (key for key in analysis.study.factors if key.name != RATE)
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(activation.levels), sharey=True)
    widths = [float(level) for level in width.levels]
    for a, axes in enumerate(np.atleast_1d(panels)):
        for d, (colour, marker) in zip(range(len(depth.levels)), LOOKS, strict=False):
            estimates = [accuracies[d, w, a] for w in range(len(widths))]
            shifted = np.array(widths) * 1.05 ** (d - (len(depth.levels) - 1) / 2)  # beside each other
            axes.errorbar(
                shifted, [e.mean for e in estimates], [e.half for e in estimates],
                color=colour, marker=marker, ms=5, capsize=2, lw=1.2, label=depth.levels[d],
            )  # fmt: skip
        axes.set(xscale="log", xlabel="units per hidden layer", title=activation.levels[a])
        axes.set_xticks(widths, width.levels)
        axes.minorticks_off()
        axes.grid(axis="y", color="#E3E3E3", lw=0.8)
    panels[0].set_ylabel("test accuracy (mean, 95 % interval)")
    panels[0].legend(title="hidden layers", fontsize=8, loc="lower right")
    return figure
