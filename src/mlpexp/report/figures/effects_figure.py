"""Main effects and interactions: the mean of the metric at each level of a key, and of pairs of keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.swept_keys import Kind
from mlpexp.analysis.variance import confounded
from mlpexp.report.figures.canvas import TEST, VALIDATION, colours, label_width, value_axis
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure, intervals, levels_kept
from mlpexp.report.report_tables import Table, effects, ends
from mlpexp.report.wording import p_value
from mlpexp.tracking.figures.plot_style import FAINT, GRID, headline, in_house_style, new_figure, place, short

MAX_KEYS, MAX_PAIRS = 8, 4
MAX_LEVELS, EFFECT_LEVELS, LINES = 12, 20, 8
MATTERS = 0.01  # share of the variance from which an interaction is drawn
WIDEST = 9.6  # inches
HIGH = 2.0
PARTS = {"validation": (VALIDATION, "o", -0.09), "test": (TEST, "s", 0.09)}


def main_effects(analysis: Analysis) -> ReportFigure | None:
    """The mean at each level of each key."""
    groups = []
    dropped = 0
    keys = analysis.study.coarse
    for k in analysis.importance[:MAX_KEYS]:
        kept = levels_kept(analysis, k, EFFECT_LEVELS)
        dropped += len(keys[k].levels) - len(kept)
        parts = {}
        for part in analysis.parts:
            found = analysis.cells(part, [k])
            parts[part] = [found.get((level,)) for level in kept]
        groups.append(
            Group(label=keys[k].label, kind=keys[k].kind, levels=[keys[k].levels[i] for i in kept], parts=parts)
        )
    if not groups:
        return None
    caption = "Each point averages over everything else that was swept; the axis does not begin at 0."
    if len(analysis.importance) > MAX_KEYS:
        caption += f" The {len(analysis.importance) - MAX_KEYS} keys that explain least are only in the table."
    for key, other in confounded(analysis.levels).items():
        caption += f" {keys[key].label} only changed together with {keys[other].label}: both show the effect of both."
    if dropped:
        caption += f" {dropped:,} values are only in the table."
    return ReportFigure(
        title="Main effects",
        caption=caption + intervals(analysis),
        figure=draw_effects(groups, analysis.title),
        tables=(effects(analysis),),
    )


def interactions(analysis: Analysis) -> ReportFigure | None:
    """Pairs of keys whose effects depend on each other."""
    keys = analysis.study.coarse
    pairs = [t for t in analysis.variance.terms if len(t.keys) == 2 and t.share >= MATTERS and not t.adjusted > 0.05]
    pairs.sort(key=lambda term: -term.share)
    drawn: list[Pair] = []
    rows: list[list[Any]] = []
    for term in pairs:
        # along the axis the key with an order and more levels; a line for each level of the other
        across, other = sorted(term.keys, key=lambda k: (keys[k].kind == "categorical", -len(keys[k].levels)))
        found = analysis.cells("validation", [across, other])
        for (i, j), estimate in found.items():
            rows.append(
                [keys[across].name, keys[across].levels[i], keys[other].name, keys[other].levels[j], *ends(estimate)]
            )
        if len(drawn) == MAX_PAIRS:
            continue
        kept, lines = levels_kept(analysis, across, MAX_LEVELS), levels_kept(analysis, other, LINES)
        drawn.append(
            Pair(
                label=keys[across].label,
                levels=[keys[across].levels[i] for i in kept],
                other=keys[other].label,
                other_kind=keys[other].kind,
                other_levels=[keys[other].levels[j] for j in lines],
                lines=[[found.get((i, j)) for i in kept] for j in lines],
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


@dataclass(frozen=True, kw_only=True)
class Group:
    """One key: its levels with the estimates of each part (None where nothing ended well)."""

    label: str
    kind: Kind
    levels: Sequence[str]
    parts: Mapping[str, Sequence[Estimate | None]]


@in_house_style
def draw_effects(groups: Sequence[Group], metric: str) -> Figure:
    """All keys side by side on one scale."""
    slots = [max(0.55, label_width(group.levels, 12) + 0.16) for group in groups]
    spans = [
        max(slot * len(g.levels), label_width([g.label], 24) + 0.1) + 0.25
        for slot, g in zip(slots, groups, strict=True)
    ]
    lines: list[list[int]] = [[]]
    for number, span in enumerate(spans):
        if lines[-1] and sum(spans[i] for i in lines[-1]) + span > WIDEST - 1.0:
            lines.append([])
        lines[-1].append(number)
    width = max(0.9 + max(sum(spans[i] for i in line) for line in lines) + 0.1, 5.0)
    block = HIGH + 0.75
    figure = new_figure(width, 0.5 + len(lines) * block)
    values = [v for g in groups for part in g.parts.values() for e in part if e for v in _ends(e)]
    for row, line in enumerate(lines):
        across = sum(spans[i] for i in line)
        axes = place(figure, 0.8, 0.6 + (len(lines) - 1 - row) * block, across, HIGH)
        axes.set_xlim(0, across)
        value_axis(axes, values)
        axes.set_ylabel(metric)
        start = 0.0
        ticks: list[float] = []
        names: list[str] = []
        for i in line:
            group = groups[i]
            step = (spans[i] - 0.25) / len(group.levels)
            at = start + 0.125 + step * (np.arange(len(group.levels)) + 0.5)
            for part, estimates in group.parts.items():
                _points(axes, at, estimates, part, joined=group.kind != "categorical")
            ticks.extend(at)
            names.extend(short(level, 12) for level in group.levels)
            axes.annotate(
                short(group.label, 24),
                (start + spans[i] / 2, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, -24),
                textcoords="offset points",
                ha="center",
                va="top",
                color=FAINT,
            )
            if start:
                axes.axvline(start, color=GRID, lw=1)
            start += spans[i]
        axes.set_xticks(ticks, names)
        axes.tick_params(axis="x", length=0)
        if row == 0:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, handlelength=1.0)
    headline(figure, "Main effects")
    return figure


def _points(axes: Axes, at: np.ndarray, estimates: Sequence[Estimate | None], part: str, joined: bool) -> None:
    colour, marker, aside = PARTS[part]
    mean = np.array([e.mean if e else np.nan for e in estimates])
    half = np.array([e.half if e else np.nan for e in estimates])
    first = part not in axes.get_legend_handles_labels()[1]
    aside *= min(1.0, (at[1] - at[0]) / 0.55) if len(at) > 1 else 1
    if joined:
        axes.plot(at + aside, mean, color=colour, lw=0.8, alpha=0.6)
    axes.vlines(at + aside, mean - half, mean + half, color=colour, lw=1.6)
    axes.plot(at + aside, mean, marker, color=colour, ms=5, label=part if first else None)


def _ends(estimate: Estimate) -> tuple[float, ...]:
    half = estimate.half if np.isfinite(estimate.half) else 0.0
    return estimate.mean - half, estimate.mean + half


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two keys with an interaction: a line for each level of `other`."""

    label: str
    levels: Sequence[str]
    other: str
    other_kind: Kind
    other_levels: Sequence[str]
    lines: Sequence[Sequence[Estimate | None]]
    title: str


@in_house_style
def draw_interactions(pairs: Sequence[Pair], metric: str) -> Figure:
    """One panel per pair, a line for each level of the second key; validation, intervals over seeds."""
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    legend = max(label_width([*p.other_levels, p.other], 14) for p in pairs) + 0.45
    axes_width, block = 3.0, 2.95
    across = axes_width + legend + 0.85
    figure = new_figure(max(columns * across + 0.1, 5.0), 0.42 + rows * block)
    headline(figure, f"Interactions (validation {metric})")
    for number, pair in enumerate(pairs):
        row, column = divmod(number, columns)
        axes = place(figure, 0.75 + column * across, 0.55 + (rows - 1 - row) * block, axes_width, 2.0)
        at = np.arange(len(pair.levels))
        values = [v for line in pair.lines for e in line if e for v in _ends(e)]
        value_axis(axes, values)
        for level, (line, colour) in enumerate(
            zip(pair.lines, colours(pair.other_kind, len(pair.other_levels)), strict=True)
        ):
            mean = np.array([e.mean if e else np.nan for e in line])
            half = np.array([e.half if e else np.nan for e in line])
            aside = (level - (len(pair.lines) - 1) / 2) * min(0.07, 0.5 / len(pair.lines))
            axes.vlines(at + aside, mean - half, mean + half, color=colour, lw=1.4)
            axes.plot(at + aside, mean, "o-", color=colour, ms=4, label=short(pair.other_levels[level], 14))
        axes.set_xlim(-0.4, len(at) - 0.6)
        fits = max(1, int(np.ceil(label_width(pair.levels, 12) * 1.1 * len(at) / axes_width)))
        axes.set_xticks(at[::fits], [short(level, 12) for level in pair.levels[::fits]])
        axes.set_xlabel(short(pair.label, 30))
        axes.set_title(short(pair.title, 60), size=9, loc="left", pad=6)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.05), title=short(pair.other, 14), title_fontsize=9, fontsize=9,
            alignment="left", handlelength=1.0,
        )  # fmt: skip
    return figure


FIGURES.register("effects", Entry(30, main_effects))
FIGURES.register("interactions", Entry(50, interactions))
