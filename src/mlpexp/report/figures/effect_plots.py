"""Mean of the metric at each level of each key, and of pairs of keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlpexp.analysis.intervals import Estimate
from mlpexp.analysis.swept_keys import Kind
from mlpexp.nn.metrics import METRICS
from mlpexp.report.figures.canvas import TEST, VALIDATION, colours, label_width, value_axis
from mlpexp.tracking.figures.plot_style import FAINT, GRID, headline, in_house_style, new_figure, place, short

WIDEST = 9.6  # inches
HIGH = 2.0
PARTS = {"validation": (VALIDATION, "o", -0.09), "test": (TEST, "s", 0.09)}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One key: its levels with the estimates of each part (None where nothing ended well)."""

    label: str
    kind: Kind
    levels: Sequence[str]
    parts: Mapping[str, Sequence[Estimate | None]]


@in_house_style
def main_effects(groups: Sequence[Group], metric: str) -> Figure:
    """Every key side by side on one scale, so that what matters is what moves."""
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
        axes.set_ylabel(METRICS[metric].title)
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
    headline(figure, "Each key by itself")
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
    """Two keys that act together: a line for each level of `other`."""

    label: str
    levels: Sequence[str]
    other: str
    other_kind: Kind
    other_levels: Sequence[str]
    lines: Sequence[Sequence[Estimate | None]]
    title: str


@in_house_style
def interactions(pairs: Sequence[Pair], metric: str) -> Figure:
    """Where lines are not parallel, the effect of one key depends on the other; validation, intervals over seeds."""
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    legend = max(label_width([*p.other_levels, p.other], 14) for p in pairs) + 0.45
    axes_width, block = 3.0, 2.95
    across = axes_width + legend + 0.85
    figure = new_figure(max(columns * across + 0.1, 5.0), 0.42 + rows * block)
    headline(figure, f"Keys that act together (validation {METRICS[metric].title})")
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
