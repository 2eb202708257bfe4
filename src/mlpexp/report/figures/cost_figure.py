"""Accuracy or loss against parameters and training time, with the Pareto front."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from mlpexp.analysis.sweep_analysis import COSTS, Analysis
from mlpexp.nn.metric_columns import higher_is_better, is_share
from mlpexp.report.figures.canvas import VALIDATION, plain, value_axis
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure, intervals
from mlpexp.report.report_tables import Table
from mlpexp.tracking.figures.plot_style import BLUE, FAINT, INK, headline, in_house_style, new_figure, place

MAX_POINTS = 1500
LOG_FROM = 4  # greatest over least error
BEYOND = 3  # the axis ends at most at the best error divided by this
MAX_TICKS = 11
ACCURACIES = (
    0,
    0.4,
    0.6,
    0.7,
    0.8,
    0.85,
    0.9,
    0.92,
    0.94,
    0.96,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    0.9995,
    0.9998,
    0.9999,
)


def costs(analysis: Analysis) -> ReportFigure | None:
    """Parameters and time against the metric."""
    ranked, best = analysis.ranking, analysis.best
    if best is None or (ranked.finished > 0).sum() < 2:
        return None
    mean, half = ranked.means[analysis.validation], ranked.halves[analysis.validation]
    panels = []
    for name, label in COSTS.items():
        distinct = np.unique(np.round(ranked.means[name][np.isfinite(ranked.means[name])], 9))
        if len(distinct) > 1:
            panels.append((label, ranked.means[name], analysis.fronts[name]))
    if not panels:
        return None
    rows = []
    for c in ranked.order.tolist():
        if ranked.finished[c]:
            numbers = [float(ranked.means[name][c]) for name in (*COSTS, *analysis.parts.values())]
            rows.append(
                [analysis.study.describe(c), *numbers, *("yes" if analysis.fronts[n][c] else "" for n in COSTS)]
            )
    header = ["configuration", *COSTS, *analysis.parts.values(), *(f"front by {name}" for name in COSTS)]
    caption = (
        "No cheaper configuration has a better validation mean than one on the Pareto front. Seconds are a run's share "
        "of the time of its stack."
    )
    if len(mean) > MAX_POINTS:
        caption += f" Of {len(mean):,} configurations {MAX_POINTS:,} are drawn, and the whole front."
    return ReportFigure(
        title="Cost",
        caption=caption + intervals(analysis, " of the front and of the best"),
        figure=cost(panels, mean, half, analysis.metric, best, analysis.title),
        tables=(Table(name="cost", header=header, rows=rows),),
    )


@in_house_style
def cost(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
    mean: np.ndarray,
    half: np.ndarray,
    metric: str,
    best: int,
    metric_title: str,
) -> Figure:
    """One point per configuration, validation; the line is the Pareto front.

    Args:
        panels: what it costs, (C,) cost, (C,) whether on the front.
        mean, half: (C,) of the metric.
        metric_title: the metric with its unit.
        best: row of the best.
    """
    figure = new_figure(0.4 + 4.7 * max(len(panels), 1), 3.75)
    finite = np.isfinite(mean)
    rising = higher_is_better(f"val/{metric}")
    error_axis = is_share(metric) and rising and _needs_error_axis(mean[finite])
    low = -np.inf if error_axis else _floor(mean[finite], rising)
    for number, (name, cost_values, on_front) in enumerate(panels):
        axes = place(figure, 0.8 + 4.7 * number, 0.55, 3.75, 2.5)
        with_interval = _draw_points(axes, cost_values, mean, half, on_front, best)
        half_widths = np.nan_to_num(half)[with_interval]
        in_range = mean[mean >= low] if rising else mean[mean <= low]
        ends = np.concatenate([in_range, mean[with_interval] - half_widths, mean[with_interval] + half_widths])
        ends = np.clip(ends, 0, 1) if is_share(metric) else ends
        value_axis(axes, ends)
        axes.set_ylabel(f"validation {metric_title}")
        if error_axis:
            _error_axis(axes, ends[np.isfinite(ends)], float(mean[finite].max()))
        _cost_axis(axes, name, cost_values)
        if number == 0:
            axes.legend(
                loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9, handlelength=1.2, columnspacing=1.0
            )
    beyond = int((mean[finite] < low).sum() if rising else (mean[finite] > low).sum())
    headline(figure, "Cost" + (f" ({beyond} far worse configurations are off the scale)" if beyond else ""))
    return figure


def _draw_points(
    axes: Axes, cost_values: np.ndarray, mean: np.ndarray, half: np.ndarray, on_front: np.ndarray, best: int
) -> np.ndarray:
    """Draw the configurations, the front and the best; returns the rows that are drawn with their intervals."""
    drawn = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), MAX_POINTS)).astype(int))
    axes.plot(cost_values[drawn], mean[drawn], "o", color=BLUE, ms=4, alpha=0.7, label="configuration", mew=0)
    front = np.flatnonzero(on_front)[np.argsort(cost_values[on_front])]
    rows = np.union1d(front, [best])
    axes.vlines(cost_values[rows], (mean - half)[rows], (mean + half)[rows], color=FAINT, lw=1)
    axes.plot(cost_values[front], mean[front], "o-", color=VALIDATION, ms=5, label="Pareto front")
    axes.plot(cost_values[best], mean[best], "o", ms=11, mfc="none", mec=INK, mew=1.3, label="best by validation")
    return rows


def _cost_axis(axes: Axes, name: str, cost_values: np.ndarray) -> None:
    """The horizontal axis: logarithmic where the largest cost is more than twenty times the smallest."""
    positive = cost_values[np.isfinite(cost_values) & (cost_values > 0)]
    if positive.size and positive.max() > 20 * positive.min():
        axes.set_xlabel(f"{name}, log scale")
        _log(axes, positive)
    else:
        axes.set_xlabel(name)
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.locator_params(axis="x", nbins=5)


def _needs_error_axis(mean: np.ndarray) -> bool:
    """Whether errors differ so much that the best cannot be distinguished on a linear axis of accuracy."""
    error = 1 - mean
    return bool(error.size) and 0 < error.min() < error.max() / LOG_FROM


def _error_axis(axes: Axes, accuracies: np.ndarray, best: float) -> None:
    """Scale the axis by the logarithm of the error: 0.8 to 0.9 is as long as 0.98 to 0.99.

    Args:
        accuracies: ends of the intervals.
        best: the greatest mean, below 1.
    """

    def up(accuracy: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - accuracy, 1e-6))

    def back(height: np.ndarray) -> np.ndarray:
        return 1 - 10.0**-height

    # an interval that reaches accuracy 1 would take the whole axis
    top_value = min(accuracies.max(), 1 - (1 - best) / BEYOND)
    low, high = up(np.array([accuracies.min(), top_value]))
    margin = 0.06 * (high - low)
    axes.set_yscale("function", functions=(up, back))
    axes.set_ylim(*back(np.array([low - margin, high + margin])))
    bottom, top = axes.get_ylim()
    heights = up(np.array(ACCURACIES))
    ticks: list[int] = []
    for tick in np.flatnonzero((np.array(ACCURACIES) >= bottom) & (np.array(ACCURACIES) <= top)):
        if not ticks or heights[tick] - heights[ticks[-1]] > (up(np.array(top)) - up(np.array(bottom))) / MAX_TICKS:
            ticks.append(int(tick))
    axes.yaxis.set_major_locator(FixedLocator([ACCURACIES[tick] for tick in ticks]))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("validation accuracy (log error)")


def _floor(mean: np.ndarray, rising: bool) -> float:
    """The bad end of the axis; means far beyond it are left out, so that the others can be distinguished."""
    if not mean.size:
        return 0.0
    lower_quarter, upper_quarter = np.quantile(mean, (0.25, 0.75))
    spread = max(upper_quarter - lower_quarter, 1e-3)
    return float(max(mean.min(), lower_quarter - 4 * spread) if rising else min(mean.max(), upper_quarter + 4 * spread))


def _log(axes: Axes, positive: np.ndarray) -> None:
    low, high = float(positive.min()), float(positive.max())
    axes.set_xscale("log")
    margin = (high / low) ** 0.06
    axes.set_xlim(low / margin, high * margin)
    ticks = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)).tick_values(low, high)
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low / margin <= t <= high * margin]))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _thousands(value: float, _position: int | None = None) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


FIGURES.register("cost", Entry(60, costs))
