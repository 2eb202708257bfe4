"""Main effects and interactions: the mean of the metric at each level of a key, and of pairs of keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.variance import confounded
from mlpexp.report.figures.canvas import TEST, VALIDATION, colours, label_width, value_axis
from mlpexp.report.report_figure import FIGURES, DrawnKey, Entry, ReportFigure, drawn_key, intervals
from mlpexp.report.report_tables import Table, effects, estimate_cells
from mlpexp.report.wording import p_value
from mlpexp.tracking.figures.plot_style import FAINT, GRID, headline, in_house_style, new_figure, place, short

MAX_KEYS, MAX_PAIRS = 8, 4
MAX_LEVELS, EFFECT_LEVELS, LINES = 12, 20, 8
MIN_SHARE = 0.01  # share of the variance from which an interaction is drawn
WIDEST = 9.6  # inches
HIGH = 2.0
PARTS = {"validation": (VALIDATION, "o", -0.09), "test": (TEST, "s", 0.09)}
# a key, and for each part the estimates of its levels, None where no run of a level has finite numbers
Effect = tuple[DrawnKey, Mapping[str, Sequence[Estimate | None]]]


def main_effects(analysis: Analysis) -> ReportFigure | None:
    """The mean at each level of each key."""
    effects_of_keys: list[Effect] = []
    dropped = 0
    keys = analysis.study.coarse
    for k in analysis.importance[:MAX_KEYS]:
        key = drawn_key(analysis, k, EFFECT_LEVELS)
        dropped += len(keys[k].levels) - len(key.levels)
        parts = {}
        for part in analysis.parts:
            estimates = analysis.cells(part, [k])
            parts[part] = [estimates.get((level,)) for level in key.indices]
        effects_of_keys.append((key, parts))
    if not effects_of_keys:
        return None
    caption = "Each point averages over everything else that was swept; the axis does not begin at 0."
    if len(analysis.importance) > MAX_KEYS:
        caption += f" The {len(analysis.importance) - MAX_KEYS} keys that explain least are only in the table."
    for follower, leader in confounded(analysis.levels).items():
        caption += (
            f" {keys[follower].label} only changed together with {keys[leader].label}: both show the effect of both."
        )
    if dropped:
        caption += f" {dropped:,} values are only in the table."
    return ReportFigure(
        title="Main effects",
        caption=caption + intervals(analysis),
        figure=draw_effects(effects_of_keys, analysis.title),
        tables=(effects(analysis),),
    )


def interactions(analysis: Analysis) -> ReportFigure | None:
    """Pairs of keys whose effects depend on each other."""
    keys = analysis.study.coarse
    pairs = [t for t in analysis.variance.terms if len(t.keys) == 2 and t.share >= MIN_SHARE and not t.adjusted > 0.05]
    pairs.sort(key=lambda term: -term.share)
    drawn: list[Interaction] = []
    rows: list[list[Any]] = []
    for term in pairs:
        # along the axis the key with an order and more levels; a line for each level of the other
        across, other = sorted(term.keys, key=lambda k: (keys[k].kind == "categorical", -len(keys[k].levels)))
        estimates = analysis.cells("validation", [across, other])
        for (i, j), estimate in estimates.items():
            rows.append(
                [
                    keys[across].name,
                    keys[across].levels[i],
                    keys[other].name,
                    keys[other].levels[j],
                    *estimate_cells(estimate),
                ]
            )
        if len(drawn) == MAX_PAIRS:
            continue
        key, line_key = drawn_key(analysis, across, MAX_LEVELS), drawn_key(analysis, other, LINES)
        drawn.append(
            Interaction(
                key=key,
                line_key=line_key,
                lines=[[estimates.get((i, j)) for i in key.indices] for j in line_key.indices],
                title=f"{term.share:.1%} of the variance"
                + (f", {p_value(term.adjusted)}" if np.isfinite(term.adjusted) else ""),
            )
        )
    if not drawn:
        return None
    caption = "Where lines are not parallel, the effect of one key depends on the value of the other."
    if len(drawn) < len(pairs):
        caption += f" Shown are the {len(drawn)} largest of {len(pairs):,} interactions."
    header = ["key", "level", "other key", "other level", "mean", "low", "high", "runs"]
    return ReportFigure(
        title="Interactions",
        caption=caption + intervals(analysis),
        figure=draw_interactions(drawn, analysis.title),
        tables=(Table(name="interactions", header=header, rows=rows),),
    )


@in_house_style
def draw_effects(effects: Sequence[Effect], metric: str) -> Figure:
    """All keys side by side on one scale."""
    spans = [_span(key) for key, _ in effects]
    rows = _rows(spans)
    width = max(0.9 + max(sum(spans[i] for i in row) for row in rows) + 0.1, 5.0)
    block = HIGH + 0.75
    figure = new_figure(width, 0.5 + len(rows) * block)
    values = [v for _, parts in effects for part in parts.values() for e in part if e for v in _ends(e)]
    for number, row in enumerate(rows):
        across = sum(spans[i] for i in row)
        axes = place(figure, 0.8, 0.6 + (len(rows) - 1 - number) * block, across, HIGH)
        axes.set_xlim(0, across)
        value_axis(axes, values)
        axes.set_ylabel(metric)
        start = 0.0
        ticks: list[float] = []
        for i in row:
            ticks.extend(_draw_effect(axes, effects[i], start, spans[i]))
            start += spans[i]
        axes.set_xticks(ticks, [short(level, 12) for i in row for level in effects[i][0].levels])
        axes.tick_params(axis="x", length=0)
        if number == 0:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, handlelength=1.0)
    headline(figure, "Main effects")
    return figure


def _span(key: DrawnKey) -> float:
    """The width in inches that the levels of a key and its label need."""
    level = max(0.55, label_width(key.levels, 12) + 0.16)
    return max(level * len(key.levels), label_width([key.label], 24) + 0.1) + 0.25


def _rows(spans: Sequence[float]) -> list[list[int]]:
    """The numbers of the keys in each row of the figure, which is at most WIDEST inches wide."""
    rows: list[list[int]] = [[]]
    for number, span in enumerate(spans):
        if rows[-1] and sum(spans[i] for i in rows[-1]) + span > WIDEST - 1.0:
            rows.append([])
        rows[-1].append(number)
    return rows


def _draw_effect(axes: Axes, effect: Effect, start: float, span: float) -> np.ndarray:
    """Draw one key from `start` to `start + span` inches; returns the positions of its levels."""
    key, parts = effect
    step = (span - 0.25) / len(key.levels)
    positions = start + 0.125 + step * (np.arange(len(key.levels)) + 0.5)
    for part, estimates in parts.items():
        _points(axes, positions, estimates, part, joined=key.kind != "categorical")
    axes.annotate(
        short(key.label, 24),
        (start + span / 2, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, -24),
        textcoords="offset points",
        ha="center",
        va="top",
        color=FAINT,
    )
    if start:
        axes.axvline(start, color=GRID, lw=1)
    return positions


def _points(axes: Axes, positions: np.ndarray, estimates: Sequence[Estimate | None], part: str, joined: bool) -> None:
    colour, marker, offset = PARTS[part]
    mean = np.array([e.mean if e else np.nan for e in estimates])
    half = np.array([e.half if e else np.nan for e in estimates])
    is_unlabelled = part not in axes.get_legend_handles_labels()[1]
    offset *= min(1.0, (positions[1] - positions[0]) / 0.55) if len(positions) > 1 else 1
    if joined:
        axes.plot(positions + offset, mean, color=colour, lw=0.8, alpha=0.6)
    axes.vlines(positions + offset, mean - half, mean + half, color=colour, lw=1.6)
    axes.plot(positions + offset, mean, marker, color=colour, ms=5, label=part if is_unlabelled else None)


def _ends(estimate: Estimate) -> tuple[float, ...]:
    half = estimate.half if np.isfinite(estimate.half) else 0.0
    return estimate.mean - half, estimate.mean + half


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """Two keys with an interaction: `key` along the axis, a line of estimates for each level of `line_key`."""

    key: DrawnKey
    line_key: DrawnKey
    lines: Sequence[Sequence[Estimate | None]]
    title: str


@in_house_style
def draw_interactions(interactions: Sequence[Interaction], metric: str) -> Figure:
    """One panel per pair, a line for each level of the second key; validation, intervals over seeds."""
    columns = min(2, len(interactions))
    rows = -(-len(interactions) // columns)
    legend = max(label_width([*i.line_key.levels, i.line_key.label], 14) for i in interactions) + 0.45
    axes_width, block = 3.0, 2.95
    across = axes_width + legend + 0.85
    figure = new_figure(max(columns * across + 0.1, 5.0), 0.42 + rows * block)
    headline(figure, f"Interactions (validation {metric})")
    for number, pair in enumerate(interactions):
        row, column = divmod(number, columns)
        axes = place(figure, 0.75 + column * across, 0.55 + (rows - 1 - row) * block, axes_width, 2.0)
        positions = np.arange(len(pair.key.levels))
        values = [v for line in pair.lines for e in line if e for v in _ends(e)]
        value_axis(axes, values)
        for level, (line, colour) in enumerate(
            zip(pair.lines, colours(pair.line_key.kind, len(pair.line_key.levels)), strict=True)
        ):
            mean = np.array([e.mean if e else np.nan for e in line])
            half = np.array([e.half if e else np.nan for e in line])
            offset = (level - (len(pair.lines) - 1) / 2) * min(0.07, 0.5 / len(pair.lines))
            axes.vlines(positions + offset, mean - half, mean + half, color=colour, lw=1.4)
            axes.plot(positions + offset, mean, "o-", color=colour, ms=4, label=short(pair.line_key.levels[level], 14))
        axes.set_xlim(-0.4, len(positions) - 0.6)
        tick_step = max(1, int(np.ceil(label_width(pair.key.levels, 12) * 1.1 * len(positions) / axes_width)))
        axes.set_xticks(positions[::tick_step], [short(level, 12) for level in pair.key.levels[::tick_step]])
        axes.set_xlabel(short(pair.key.label, 30))
        axes.set_title(short(pair.title, 60), size=9, loc="left", pad=6)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.05), title=short(pair.line_key.label, 14), title_fontsize=9,
            fontsize=9, alignment="left", handlelength=1.0,
        )  # fmt: skip
    return figure


FIGURES.register("effects", Entry(30, main_effects))
FIGURES.register("interactions", Entry(50, interactions))
