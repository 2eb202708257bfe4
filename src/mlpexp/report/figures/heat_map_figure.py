"""Heat maps: two keys, one row of panels for each level of a third, validation with test beside it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import higher_is_better
from mlpexp.report.figures.canvas import LETTERS, ON_DARK, ON_LIGHT, canvas, label_width, number
from mlpexp.report.report_figure import FIGURES, DrawnKey, Entry, ReportFigure, drawn_key, intervals
from mlpexp.report.report_tables import Table, estimate_cells
from mlpexp.report.wording import listed
from mlpexp.tracking.figures.plot_style import FAINT, INK, in_house_style, short

MAX_LEVELS, MAX_PANELS = 12, 6
CELL, HIGH = 0.92, 0.46  # inches
GAP = 0.45
TITLE, HEADER = 0.34, 0.5


Cells = Mapping[tuple[int, int, int], Estimate]  # (panel, row, column)


def heat_map(analysis: Analysis) -> ReportFigure | None:
    """Two ordered keys, a row of panels for each level of a third."""
    keys = analysis.study.coarse
    useful = [k for k in analysis.importance if len(keys[k].levels) > 1]
    ordered = [k for k in useful if keys[k].kind != "categorical"]
    pair = [*ordered, *(k for k in useful if k not in ordered)][:2]
    if len(pair) < 2:
        return None
    rows, columns = sorted(pair, key=lambda k: (len(keys[k].levels), k))
    panel_key = next((k for k in useful if k not in pair), None)
    used = [k for k in (panel_key, rows, columns) if k is not None]
    drawn = {k: drawn_key(analysis, k, MAX_PANELS if k == panel_key else MAX_LEVELS) for k in used}
    parts: dict[str, Cells] = {}
    table = []
    for part in analysis.parts:
        estimates = analysis.cells(part, used)
        parts[part] = cells = {}
        for combination, estimate in estimates.items():
            names = [keys[k].levels[level] for k, level in zip(used, combination, strict=True)]
            table.append([part, *names, *estimate_cells(estimate)])
            if all(level in drawn[k].indices for k, level in zip(used, combination, strict=True)):
                cell = [drawn[k].indices.index(level) for k, level in zip(used, combination, strict=True)]
                cells[tuple([0, *cell][-3:])] = estimate
    best = [int(analysis.levels[analysis.best, k]) for k in used]
    best_cell = [0, *(drawn[k].indices.index(level) for k, level in zip(used, best, strict=True))][-3:]

    panels = None if panel_key is None else drawn[panel_key]
    best_place = (best_cell[0], best_cell[1], best_cell[2])
    figure = heat_maps(drawn[rows], drawn[columns], panels, parts, analysis.metric, analysis.title, best_place)
    averaged = [keys[k].label for k in useful if k not in used]
    caption = "Mean over runs."
    if averaged:
        caption += f" Averaged over {listed(averaged)}."
    for k in used:
        if len(drawn[k].levels) < len(keys[k].levels):
            caption += (
                f" Only the {len(drawn[k].levels)} best of {len(keys[k].levels):,} values of {keys[k].label} are shown."
            )
        if keys[k].binned:
            caption += f" {keys[k].label} is grouped in bins."
    caption += intervals(analysis)
    title = f"{keys[rows].label} by {keys[columns].label}" + (
        f", for each {keys[panel_key].label}" if panel_key is not None else ""
    )
    header = ["part", *(keys[k].name for k in used), "mean", "low", "high", "runs"]
    return ReportFigure(
        title=title, caption=caption, figure=figure, tables=(Table(name="heat", header=header, rows=table),)
    )


@in_house_style
def heat_maps(
    rows: DrawnKey,
    columns: DrawnKey,
    panels: DrawnKey | None,
    parts: Mapping[str, Cells],
    metric: str,
    name: str,
    best: tuple[int, int, int] | None,
) -> Figure:
    """Mean ± half of its 95 % interval in each cell; one colour scale for all, a frame around the best.

    Args:
        parts: cells of `validation`, and `test` where there is one, each by (panel, row, column).
        metric: e.g. `acc`; its direction decides which end of the colours is good.
        name: the metric's name in the titles, e.g. `accuracy`.
        best: the cell of the best configuration.
    """
    count = len(panels.levels) if panels else 1
    left_margin = max(label_width([*rows.levels]) + 0.25, 0.5) + 0.2
    panel_width, panel_height = CELL * len(columns.levels), HIGH * len(rows.levels)
    block = panel_height + HEADER + (TITLE if panels else 0.05)
    width = max(left_margin + len(parts) * panel_width + (len(parts) - 1) * GAP + 0.2, 5.6)
    height = HEADER + count * block + 0.62
    figure, axes = canvas(width, height)
    values = np.array([cell.mean for cells in parts.values() for cell in cells.values()])
    worst, top_value, clipped = _scale(values)
    norm = Normalize(worst, top_value, clip=True)
    colours = colormaps["cividis"] if higher_is_better(f"val/{metric}") else colormaps["cividis_r"]
    step = top_value - worst
    polygons, faces = [], []
    for number_of_part, (part, cells) in enumerate(parts.items()):
        x0 = left_margin + number_of_part * (panel_width + GAP)
        axes.text(x0 + panel_width / 2, height - 0.14, f"{part} {name}", weight="bold", size=10, ha="center", va="top")
        for panel in range(count):
            top = height - HEADER - panel * block - (TITLE if panels else 0.05)
            if panels:
                level = f"{panels.label} = {short(panels.levels[panel], 24)}"
                axes.text(x0, top + 0.08, level, size=9.5, va="bottom")
            _names(axes, rows if number_of_part == 0 else None, columns, x0, top, panel_height)
            for (p, r, c), cell in cells.items():
                if p != panel:
                    continue
                x, y = x0 + c * CELL, top - (r + 1) * HIGH
                colour = colours(norm(cell.mean))
                polygons.append([(x, y), (x + CELL, y), (x + CELL, y + HIGH), (x, y + HIGH)])
                faces.append(colour)
                _write_estimate(axes, x, y, cell, step, is_light=np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.5)
            if best is not None and best[0] == panel:
                _frame(axes, x0 + best[2] * CELL, top - (best[1] + 1) * HIGH)
    axes.add_collection(PolyCollection(polygons, facecolors=faces, edgecolors="#FFFFFE", linewidths=1), autolim=False)
    _bar(axes, colours, (worst, top_value), left_margin, clipped)
    return figure


def _write_estimate(axes: Axes, x: float, y: float, cell: Estimate, step: float, *, is_light: bool) -> None:
    """Mean and interval in the middle of the cell with this lower left corner; `step` as for `number`."""
    text = number(cell.mean, step)
    if np.isfinite(cell.half):
        text += f"\n±{number(cell.half, step)}"
    style: dict[str, Any] = {"size": 9, "ha": "center", "va": "center", "linespacing": 1.1}
    axes.text(x + CELL / 2, y + HIGH / 2, text, color=ON_LIGHT if is_light else ON_DARK, **style)


def _names(axes: Axes, rows: DrawnKey | None, columns: DrawnKey, x0: float, top: float, height: float) -> None:
    for index, level in enumerate(columns.levels):
        axes.text(x0 + (index + 0.5) * CELL, top - height - 0.05, short(level, 11), size=9, ha="center", va="top")
    middle = x0 + len(columns.levels) * CELL / 2
    axes.text(middle, top - height - 0.23, columns.label, size=9, color=FAINT, ha="center", va="top")
    if rows is not None:
        for index, level in enumerate(rows.levels):
            axes.text(x0 - 0.07, top - (index + 0.5) * HIGH, short(level, LETTERS), size=9, ha="right", va="center")
        label_x = x0 - 0.2 - label_width(rows.levels)
        axes.text(
            label_x, top - height / 2, short(rows.label, 14), size=9, color=FAINT, ha="center", va="center", rotation=90
        )


def _frame(axes: Axes, x: float, y: float) -> None:
    for colour, line in ((ON_DARK, 4.5), (ON_LIGHT, 2.2)):
        xs, ys = (x, x + CELL, x + CELL, x, x), (y, y, y + HIGH, y + HIGH, y)
        axes.plot(xs, ys, color=colour, lw=line, solid_joinstyle="miter", zorder=3)


def _scale(values: np.ndarray) -> tuple[float, float, bool]:
    """From the worst to the best; where a few are far off, the rest keeps its differences and the bar says so."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0, False
    low, high = float(finite.min()), float(finite.max())
    lower_quarter, upper_quarter = np.quantile(finite, (0.25, 0.75))
    spread = max(upper_quarter - lower_quarter, 1e-9)
    clip_low, clip_high = max(low, lower_quarter - 3 * spread), min(high, upper_quarter + 3 * spread)
    clipped = clip_low > low or clip_high < high
    if clip_high - clip_low < 1e-9:
        clip_high = clip_low + 1e-3
    return clip_low, clip_high, clipped


def _bar(axes: Axes, colours: Colormap, ends: tuple[float, float], x0: float, clipped: bool) -> None:
    num_steps, width = 40, 2.4
    edges = x0 + np.linspace(0, width, num_steps + 1)
    boxes = [[(a, 0.36), (b, 0.36), (b, 0.5), (a, 0.5)] for a, b in pairwise(edges)]
    axes.add_collection(
        # an edge of its own colour: otherwise the page shines through between two boxes
        PolyCollection(boxes, facecolors=colours(np.linspace(0, 1, num_steps)), edgecolors="face", linewidths=0.8),
        autolim=False,
    )
    step = ends[1] - ends[0]
    low, high = number(ends[0], step), number(ends[1], step)
    axes.text(x0, 0.31, f"{low} or beyond" if clipped else low, size=8, va="top")
    axes.text(x0 + width, 0.31, high, size=8, ha="right", va="top")
    axes.text(x0 + width + 0.15, 0.43, "framed: has the best configuration", size=8, color=INK, va="center")


FIGURES.register("heat", Entry(20, heat_map))
