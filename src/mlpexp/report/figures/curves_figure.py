"""Learning curves of the best configurations and of some of the others, as small multiples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlpexp.analysis import run_files
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.report.figures.small_multiples import Multiples, panel_title
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure, run_names, shown_configurations, shown_of
from mlpexp.report.report_tables import Table
from mlpexp.tracking.figures.plot_style import TRAIN, VALIDATION, headline, in_house_style

PANELS, FROM_THE_TOP = 12, 8
PARTS = {"train": "train", "validation": "val"}
LOG_FROM = 30  # greatest over least loss
COLOURS = {"train": TRAIN, "validation": VALIDATION}
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # (epochs,) low, middle, high
Panel = tuple[str, dict[str, Band]]  # title, part -> band


def curves(analysis: Analysis) -> ReportFigure | None:
    """A panel for each configuration, read from the runs' metrics.csv."""
    configurations = shown_configurations(analysis, PANELS, FROM_THE_TOP)
    keys, common = analysis.study.differing([c for _, c in configurations])
    panels, rows, altered = [], [], 0
    for number, c in configurations:
        names = run_names(analysis, c)
        run_curves = run_files.curves(analysis.study.directory, names, analysis.sources.results)
        altered += len(names) - run_curves.runs
        bands = {}
        for split, column_part in PARTS.items():
            for column, values in run_curves.values.items():
                metric = column.removeprefix(f"{column_part}/")
                if metric == column or not np.isfinite(values).any():
                    continue
                lines = band(values)
                if metric == analysis.metric:
                    bands[split] = lines
                counted = np.isfinite(values).sum(axis=0)
                for epoch, (low, middle, high) in enumerate(zip(*lines, strict=True)):
                    rows.append([number, analysis.study.describe(c), f"{column_part}/{metric}", epoch,
                                 float(middle), float(low), float(high), int(counted[epoch])])  # fmt: skip
        if bands:
            panels.append((f"{number}. {analysis.study.describe(c, keys)}", bands))
    if not panels:
        return None
    caption = "Lines: mean over seeds; bands: from the 10th to the 90th percentile of the seeds. "
    caption += shown_of(analysis, len(panels), common)
    if altered:
        caption += f" {altered:,} runs are left out: their metrics.csv is missing or not what the run wrote."
    header = ["rank", "configuration", "metric", "epoch", "mean", "10 %", "90 %", "runs"]
    return ReportFigure(
        title="Learning curves",
        caption=caption,
        figure=learning_curves(panels, analysis.metric, analysis.title),
        tables=(Table(name="curves", header=header, rows=rows),),
    )


def band(rows: np.ndarray) -> Band:
    """10th percentile, mean, 90th percentile over runs (runs, epochs); NaN where no run has an epoch."""
    finite = np.isfinite(rows)
    has_run = finite.any(axis=0)
    quantiles = np.full((3, rows.shape[1]), np.nan)
    if has_run.any():
        rows_finite = np.where(finite, rows, np.nan)[:, has_run]
        quantile = np.quantile if finite.all() else np.nanquantile
        quantiles[0, has_run], quantiles[2, has_run] = quantile(rows_finite, (0.1, 0.9), axis=0)
        quantiles[1, has_run] = np.nanmean(rows_finite, axis=0)
    return quantiles[0], quantiles[1], quantiles[2]


@in_house_style
def learning_curves(panels: Sequence[Panel], metric: str, title: str) -> Figure:
    """One panel per configuration: the mean over its seeds, and a band from the 10th to the 90th percentile."""
    values = np.concatenate([line for _, bands in panels for band in bands.values() for line in band])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    log = metric == "loss" and 0 < low * LOG_FROM < high
    if not log:
        margin = 0.05 * (high - low) or 0.01
        low, high = low - margin, high + margin
    last = max(len(band[1]) for _, bands in panels for band in bands.values()) - 1
    multiples = Multiples([panel_title(t) for t, _ in panels], (0, last), low, high, log=log, label=title)
    for split, colour in COLOURS.items():
        panel_numbers = [number for number, (_, bands) in enumerate(panels) if split in bands]
        bands = [panels[number][1][split] for number in panel_numbers]
        multiples.bands(panel_numbers, [b[0] for b in bands], [b[2] for b in bands], colour)
        multiples.lines(panel_numbers, [b[1] for b in bands], colour)
    multiples.legend(list(COLOURS.items()))
    headline(multiples.figure, f"{title[:1].upper()}{title[1:]} while training{' (log scale)' if log else ''}")
    return multiples.figure


FIGURES.register("curves", Entry(70, curves))
