"""Gradient norms and saturated units of each layer, where the runs recorded them (`tracking.diagnostics=true`)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlpexp.analysis import run_files
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.diagnostics import START
from mlpexp.report.figures.canvas import in_order
from mlpexp.report.figures.small_multiples import Multiples, panel_title
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure, run_names, shown_configurations, shown_of
from mlpexp.report.report_tables import Table
from mlpexp.tracking.figures.plot_style import headline, in_house_style

PANELS = 8
NAMED = 5  # layers in the legend


def layers(analysis: Analysis, name: str, column: str, title: str) -> ReportFigure | None:
    """A panel for each configuration with a line for each layer; epochs begin with -1, the state before training."""
    panels: list[tuple[str, np.ndarray]] = []
    rows: list[list[Any]] = []
    configurations = shown_configurations(analysis, PANELS, PANELS // 2)
    keys, common = analysis.study.differing([c for _, c in configurations])
    for number, c in configurations:
        names = run_names(analysis, c)
        cube = run_files.layers(analysis.study.directory, names, analysis.sources.results).get(column)
        if cube is None or not np.isfinite(cube).any():
            if not panels:  # the best has none, so nothing was recorded; the other files need not be looked for
                break
            continue
        counted = np.isfinite(cube).sum(axis=0)
        mean = np.where(counted, np.where(np.isfinite(cube), cube, 0).sum(axis=0) / np.maximum(counted, 1), np.nan)
        mean = mean[:, np.isfinite(mean).any(axis=0)]
        panels.append((f"{number}. {analysis.study.describe(c, keys)}", mean))
        for epoch, line in enumerate(mean.tolist(), START):
            rows += [[number, analysis.study.describe(c), epoch, layer, value] for layer, value in enumerate(line)]
    if not panels:
        return None
    caption = "Means over seeds; layer 0 is the first one, epoch -1 the state before training. "
    header = ["rank", "configuration", "epoch", "layer", f"mean {column}"]
    return ReportFigure(
        title=title,
        caption=caption + shown_of(analysis, len(panels), common),
        figure=layer_multiples(panels, title, share=column == "saturated"),
        tables=(Table(name=name, header=header, rows=rows),),
    )


@in_house_style
def layer_multiples(panels: Sequence[tuple[str, np.ndarray]], name: str, share: bool = False) -> Figure:
    """One panel per configuration, one line per layer over the epochs, from blue, the first layer, to orange.

    Args:
        panels: title and (epochs, layers), from epoch -1.
        share: the values lie in [0, 1]; otherwise the axis is logarithmic.
    """
    values = np.concatenate([cube.ravel() for _, cube in panels])
    values = values[np.isfinite(values) & (values > 0)]
    epochs, count = (max(cube.shape[axis] for _, cube in panels) for axis in (0, 1))
    if share:
        high = max(0.05, 1.05 * values.max(initial=0))
        low = -0.03 * high  # so that a line at 0 is visible
    else:
        low, high = (values.min(), values.max()) if values.size else (0.1, 1.0)
    label = "share" if share else "L2 norm"
    ends = (START, START + epochs - 1)
    plots = Multiples([panel_title(t) for t, _ in panels], ends, float(low), float(high), log=not share, label=label)
    colours = in_order(count)
    for layer in reversed(range(count)):
        panel_numbers = [number for number, (_, cube) in enumerate(panels) if cube.shape[1] > layer]
        plots.lines(panel_numbers, [panels[number][1][:, layer] for number in panel_numbers], colours[layer])
    named = np.unique(np.linspace(0, count - 1, min(count, NAMED)).round().astype(int))
    plots.legend([(f"layer {layer}", colours[layer]) for layer in named])
    headline(plots.figure, f"{name}{'' if share else ' (log scale)'}")
    return plots.figure


for order, shown in enumerate(
    (
        ("gradients", "gradient_norm", "Gradient norm by layer"),
        ("saturation", "saturated", "Share of saturated units by layer"),
    ),
    90,
):
    FIGURES.register(shown[0], Entry(order, partial(layers, name=shown[0], column=shown[1], title=shown[2])))
