"""The figures of one sweep, each with its caption and its numbers as a table."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mlpexp.analysis.sweep_analysis import COSTS, Analysis
from mlpexp.nn.metrics import column_label
from mlpexp.report import effect_figures, training_figures
from mlpexp.report.boundary_figure import boundary
from mlpexp.report.figure_entry import Picture, intervals, levels_kept
from mlpexp.report.figures import cost_plot, forest_plot, heat_map_plot
from mlpexp.report.report_tables import Table, ends

MAX_LEVELS, MAX_PANELS = 12, 6
MAX_RANKED = 15


def draw(analysis: Analysis) -> Iterator[Picture]:
    """Every figure that this sweep has numbers for, in the order of the page."""
    parts: Sequence[Callable[[Analysis], Picture | None]] = (
        ranked,
        heat_maps,
        effect_figures.main_effects,
        effect_figures.explained,
        effect_figures.interactions,
        costs,
        training_figures.curves,
        boundary,
        training_figures.gradients,
        training_figures.saturation,
    )
    if analysis.best is not None:
        for part in parts:
            if picture := part(analysis):
                yield picture


def ranked(analysis: Analysis) -> Picture | None:
    """The best configurations below one another."""
    order = [c for c in analysis.ranking.order.tolist() if analysis.ranking.finished[c]]
    if len(order) < 2:
        return None
    shown = order[:MAX_RANKED]
    differing, common = analysis.study.apart(shown)
    names = [f"{number}. {analysis.study.describe(c, differing)}" for number, c in enumerate(shown, 1)]
    parts = {part: [analysis.ranking.estimate(c, metric) for c in shown] for part, metric in analysis.parts.items()}
    caption = f"Ordered by {column_label(analysis.ranking.by)}."
    if len(shown) < len(order):
        caption += f" The other {len(order) - len(shown):,} configurations are in the ranking below."
    if common:
        caption += f" All have {common}."
    caption += intervals(analysis)
    title = f"The best {len(shown)} of {len(order):,}" if len(shown) < len(order) else "All configurations"
    figure = forest_plot.forest(f"{title}, by {column_label(analysis.ranking.by)}", names, parts, analysis.metric)
    return Picture(name="best", title=title, caption=caption, figure=figure)


def heat_maps(analysis: Analysis) -> Picture | None:
    """Two ordered keys, a row of panels for each level of a third."""
    keys = analysis.study.coarse
    useful = [k for k in analysis.importance if len(keys[k].levels) > 1]
    ordered = [k for k in useful if keys[k].kind != "categorical"]
    pair = [*ordered, *(k for k in useful if k not in ordered)][:2]
    if len(pair) < 2:
        return None
    rows, columns = sorted(pair, key=lambda k: (len(keys[k].levels), k))
    third = next((k for k in useful if k not in pair), None)
    used = [k for k in (third, rows, columns) if k is not None]
    kept = {k: levels_kept(analysis, k, MAX_PANELS if k == third else MAX_LEVELS) for k in used}
    parts: dict[str, heat_map_plot.Cells] = {}
    table = []
    for part in analysis.parts:
        found = analysis.cells(part, used)
        parts[part] = shown = {}
        for combination, estimate in found.items():
            names = [keys[k].levels[level] for k, level in zip(used, combination, strict=True)]
            table.append([part, *names, *ends(estimate)])
            if all(level in kept[k] for k, level in zip(used, combination, strict=True)):
                place = [kept[k].index(level) for k, level in zip(used, combination, strict=True)]
                shown[tuple([0, *place][-3:])] = estimate
    best = [int(analysis.levels[analysis.best, k]) for k in used]
    framed = [0, *(kept[k].index(level) for k, level in zip(used, best, strict=True))][-3:]

    def axis(k: int) -> heat_map_plot.Axis:
        return heat_map_plot.Axis(label=keys[k].label, levels=[keys[k].levels[level] for level in kept[k]])

    figure = heat_map_plot.heat_maps(
        axis(rows), axis(columns), None if third is None else axis(third), parts, analysis.metric,
        (framed[0], framed[1], framed[2]),
    )  # fmt: skip
    others = [keys[k].label for k in useful if k not in used]
    caption = "Mean of the runs that ended well."
    if others:
        caption += f" Averaged over {_listed(others)}."
    for k in used:
        if len(kept[k]) < len(keys[k].levels):
            caption += f" Only the {len(kept[k])} best of {len(keys[k].levels):,} values of {keys[k].label} are shown."
        if keys[k].binned:
            caption += f" {keys[k].label} is read in bins."
    caption += intervals(analysis)
    title = f"{keys[rows].label} by {keys[columns].label}" + (
        f", for each {keys[third].label}" if third is not None else ""
    )
    header = ["part", *(keys[k].name for k in used), "mean", "low", "high", "runs"]
    return Picture(
        name="heat", title=title, caption=caption, figure=figure, table=Table(name="heat", header=header, rows=table)
    )


def costs(analysis: Analysis) -> Picture | None:
    """Parameters and time against the metric."""
    ranked, best = analysis.ranking, analysis.best
    if best is None or (ranked.finished > 0).sum() < 2:
        return None
    mean, half = ranked.means[analysis.validation], ranked.halves[analysis.validation]
    panels = []
    for name, words in COSTS.items():
        distinct = np.unique(np.round(ranked.means[name][np.isfinite(ranked.means[name])], 9))
        if len(distinct) > 1:
            panels.append((words, ranked.means[name], analysis.fronts[name]))
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
        "Nothing cheaper than a configuration on the front has as good a validation mean. Seconds are a run's share of "
        "the stack that it was trained in."
    )
    if len(mean) > cost_plot.MAX_POINTS:
        caption += f" Of {len(mean):,} configurations {cost_plot.MAX_POINTS:,} are drawn, and the whole front."
    return Picture(
        name="cost",
        title="What it costs",
        caption=caption + intervals(analysis),
        figure=cost_plot.cost(panels, mean, half, analysis.metric, best),
        table=Table(name="cost", header=header, rows=rows),
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
