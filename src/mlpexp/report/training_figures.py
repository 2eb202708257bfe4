"""The figures that need the runs' own files: learning curves, and layers where they were recorded."""

from typing import Any

import numpy as np

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.report.figure_entry import Picture
from mlpexp.report.figures import curve_panels as figures
from mlpexp.report.report_tables import Table
from mlpexp.store import run_files

PANELS, FROM_THE_TOP = 12, 8
MAX_SEEDS = 60  # runs of a configuration that are read
LAYER_PANELS = 8
PARTS = {"train": "train", "validation": "val"}


def curves(analysis: Analysis) -> Picture | None:
    """Learning curves of the best configurations and of some of the others."""
    shown = _chosen(analysis, PANELS, FROM_THE_TOP)
    keys, common = analysis.study.apart([c for _, c in shown])
    panels, rows, sampled = [], [], False
    for number, c in shown:
        names, all_ = _names(analysis, c)
        sampled |= all_ > len(names)
        found = run_files.curves(analysis.study.directory, names)
        bands = {}
        for part, prefix in PARTS.items():
            for metric in ("loss", "acc"):
                values = found.values.get(f"{prefix}/{metric}")
                if values is None or not np.isfinite(values).any():
                    continue
                band = figures.band(values)
                if metric == analysis.metric:
                    bands[part] = band
                counted = np.isfinite(values).sum(axis=0)
                for epoch, (low, middle, high) in enumerate(zip(*band, strict=True)):
                    rows.append([number, analysis.study.describe(c), f"{prefix}/{metric}", epoch,
                                 float(middle), float(low), float(high), int(counted[epoch])])  # fmt: skip
        if bands:
            panels.append((f"{number}. {analysis.study.describe(c, keys)}", bands))
    if not panels:
        return None
    caption = "Lines: mean over seeds; bands: from the 10th to the 90th percentile of the seeds. " + _left_out(
        analysis, len(panels)
    )
    if common:
        caption += f" All have {common}."
    if sampled:
        caption += f" Of each configuration {MAX_SEEDS} runs were read."
    header = ["rank", "configuration", "metric", "epoch", "mean", "10 %", "90 %", "runs"]
    return Picture(
        name="curves",
        title="While training",
        caption=caption,
        figure=figures.learning_curves(panels, analysis.metric),
        table=Table(name="curves", header=header, rows=rows),
    )


def gradients(analysis: Analysis) -> Picture | None:
    """The norm of each layer's gradient."""
    return _layers(analysis, "gradient_norm", "gradients", "Gradient norm by layer")


def saturation(analysis: Analysis) -> Picture | None:
    """The share of each layer's units that are saturated."""
    return _layers(analysis, "saturated", "saturation", "Share of saturated units by layer")


def _layers(analysis: Analysis, column: str, name: str, title: str) -> Picture | None:
    panels: list[tuple[str, np.ndarray]] = []
    rows: list[list[Any]] = []
    shown = _chosen(analysis, LAYER_PANELS, LAYER_PANELS // 2)
    keys, common = analysis.study.apart([c for _, c in shown])
    for number, c in shown:
        names, _ = _names(analysis, c)
        cube = run_files.layers(analysis.study.directory, names).get(column)
        if cube is None:
            if not panels:  # the best has none: nobody recorded them, and thousands of files need not be looked for
                break
            continue
        counted = np.isfinite(cube).sum(axis=0)
        mean = np.where(counted, np.where(np.isfinite(cube), cube, 0).sum(axis=0) / np.maximum(counted, 1), np.nan)
        mean = mean[:, np.isfinite(mean).any(axis=0)]
        panels.append((f"{number}. {analysis.study.describe(c, keys)}", mean))
        for epoch, line in enumerate(mean.tolist()):
            rows += [[number, analysis.study.describe(c), epoch, layer + 1, value] for layer, value in enumerate(line)]
    if not panels:
        return None
    header = ["rank", "configuration", "epoch", "layer", f"mean {column}"]
    return Picture(
        name=name,
        title=title,
        caption=f"Means over seeds. {_left_out(analysis, len(panels))}" + (f" All have {common}." if common else ""),
        figure=figures.layer_multiples(panels, title, share=column == "saturated"),
        table=Table(name=name, header=header, rows=rows),
    )


def _chosen(analysis: Analysis, panels: int, top: int) -> list[tuple[int, int]]:
    """(rank, configuration): the best, and others evenly down to the worst."""
    order = [c for c in analysis.ranking.order.tolist() if analysis.ranking.finished[c]]
    if len(order) <= panels:
        places = list(range(len(order)))
    else:
        rest = np.linspace(top, len(order) - 1, panels - top + 1).round().astype(int)[1:]
        places = [*range(top), *rest.tolist()]
    return [(place + 1, order[place]) for place in places]


def _names(analysis: Analysis, configuration: int) -> tuple[list[str], int]:
    """The directories of a configuration's good runs, at most MAX_SEEDS, and how many there are."""
    runs = [i for i in analysis.study.members[configuration] if analysis.study.ok[i]]
    return [analysis.study.names[i] for i in runs[:MAX_SEEDS]], len(runs)


def _left_out(analysis: Analysis, shown: int) -> str:
    total = int((analysis.ranking.finished > 0).sum())
    if shown >= total:
        return "Ordered by rank."
    said = f"Of {total:,} configurations {shown} are shown, by rank: the best, and others down to the worst; "
    return f"{said}{total - shown:,} are left out."
