"""Picard 2021, Bouthillier et al. 2021: how much of a result is due to the seed."""

import math
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from mlpexp.report.studies.verdict import Rows, Verdict
from mlpexp.store.run_directory import FINITE
from mlpexp.tracking.figures.plot_style import BLUE, VERMILION

GAPS = (0.002, 0.005, 0.01, 0.02)  # between the true accuracies of two configurations
SURE = 0.95
DRAWS = 100_000


def verdict(rows: Rows) -> Verdict:
    """The distribution of test accuracy over seeds, and how often few seeds get an order wrong."""
    finite = [row for row in rows if row["status"] in FINITE]
    accuracy, seeds = (np.array([row[key] for row in finite]) for key in ("test/acc", "seed"))
    best, worst = int(accuracy.argmax()), int(accuracy.argmin())
    counts = np.unique(np.round(np.geomspace(1, 50, 14)).astype(int))
    wrong = {gap: [_error_rate(accuracy, gap, int(n)) for n in counts] for gap in GAPS}
    seeds_needed = {gap: _seeds_needed(accuracy, gap) for gap in GAPS}
    low, high = np.percentile(accuracy, [2.5, 97.5])
    sentences = [
        f"{len(accuracy):,} seeds: test accuracy {accuracy.mean():.4f} in the mean, standard deviation "
        f"{accuracy.std(ddof=1):.4f}, 95 % of them between {low:.4f} and {high:.4f}.",
        f"Worst {accuracy[worst]:.4f} (seed {seeds[worst]}), best {accuracy[best]:.4f} (seed {seeds[best]}): "
        f"{accuracy[best] - accuracy[worst]:.4f} apart.",
        "One seed against one seed gets the order of two configurations wrong: "
        + ", ".join(f"{wrong[gap][0]:.0%} where they differ by {gap:.1%}" for gap in GAPS)
        + ".",
        f"Seeds of each that get it right in {SURE:.0%} of cases: "
        + ", ".join(f"{seeds_needed[gap]} for {gap:.1%}" for gap in GAPS)
        + ".",
    ]
    return Verdict(figure=_draw(accuracy, counts, wrong), sentences=sentences)


def _error_rate(accuracy: np.ndarray, gap: float, seeds: int) -> float:
    """How often the mean over `seeds` is higher for a configuration that is worse by `gap`; a tie counts half.

    Both are assumed to have the measured distribution, shifted by the gap.
    """
    generator = np.random.default_rng(0)
    draws = max(2000, DRAWS // seeds)
    means = accuracy[generator.integers(len(accuracy), size=(2, draws, seeds))].mean(2)
    difference = means[0] + gap - means[1]
    return float((difference < -1e-12).mean() + 0.5 * (np.abs(difference) <= 1e-12).mean())


def _seeds_needed(accuracy: np.ndarray, gap: float) -> int:
    """Seeds of each configuration that are needed, by the normal approximation of the mean's distribution."""
    quantile = NormalDist().inv_cdf(SURE)
    return max(1, math.ceil(2 * (quantile * accuracy.std(ddof=1) / gap) ** 2))


def _draw(accuracy: np.ndarray, counts: np.ndarray, wrong: dict[float, list[float]]) -> Figure:
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    bars, errors = figure.subplots(1, 2)
    values, number = np.unique(accuracy, return_counts=True)
    bars.bar(values, number, width=0.8 * float(np.diff(values).min()), color=BLUE)
    bars.axvline(accuracy.mean(), color=VERMILION, lw=1.4, label="mean")
    bars.set(xlabel="test accuracy (share correct)", ylabel="seeds", title=f"{len(accuracy):,} seeds of one network")
    bars.legend()
    for shade, (gap, shares) in zip(np.linspace(0.85, 0.25, len(wrong)), wrong.items(), strict=True):
        errors.plot(
            counts, shares, "o-", ms=3, color=(0, 0.3, 0.6, shade), label=f"true difference {100 * gap:.1f} points"
        )
    errors.axhline(1 - SURE, color=VERMILION, lw=1, ls="--")
    errors.set(xscale="log", xlabel="seeds of each configuration", ylabel="share of wrong comparisons", ylim=(0, 0.52))
    errors.set_title("How often the worse one wins")
    ticks = [1, 2, 5, 10, 20, 50]
    errors.set_xticks(ticks, [str(t) for t in ticks])
    errors.minorticks_off()
    errors.legend(fontsize=8)
    return figure
