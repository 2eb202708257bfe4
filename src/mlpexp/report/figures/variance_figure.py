"""The share of the variance that each key explains."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import label
from mlpexp.report.figures.canvas import CATEGORIES, share_bars
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure
from mlpexp.report.report_tables import variance
from mlpexp.report.wording import p_value
from mlpexp.runtime.terminal import counted
from mlpexp.tracking.figures.plot_style import headline, in_house_style

MAX_BARS = 14
MIN_SHARE = 0.001  # share of the variance from which a pair is drawn
COLOURS = {"key": CATEGORIES[0], "pair": CATEGORIES[5], "seed": CATEGORIES[4], "noise": "#9A9A9A", "rest": "#9A9A9A"}


def explained(analysis: Analysis) -> ReportFigure | None:
    """Shares of the variance."""
    decomposition, keys = analysis.variance, analysis.study.coarse
    if not decomposition.terms:
        return None
    bars = [
        (
            " x ".join(keys[k].label for k in term.keys),
            term.share,
            "key" if len(term.keys) == 1 else "pair",
            p_value(term.adjusted) if np.isfinite(term.adjusted) else "",
        )
        for term in sorted(decomposition.terms, key=lambda term: -term.share)
    ]
    singles = [bar for bar in bars if bar[2] == "key"]
    pairs = [bar for bar in bars if bar[2] == "pair" and bar[1] >= MIN_SHARE]
    bars = sorted([*singles, *pairs], key=lambda bar: -bar[1])[:MAX_BARS]
    left_out = len(decomposition.terms) - len(bars)
    if decomposition.rest > MIN_SHARE / 100:
        rest_label = "other differences" if any(key.binned for key in keys) else "three keys and more"
        bars.append((rest_label, decomposition.rest, "rest", ""))
    if decomposition.blocks:
        bars.append(("seed (same in all)", decomposition.blocks, "seed", ""))
    if decomposition.noise_freedom:
        bars.append(("noise between seeds", decomposition.noise, "noise", ""))
    caption = (
        "Analysis of variance (type II): what a key explains beyond the other keys, and a pair beyond its two keys. "
    )
    if decomposition.noise_freedom:
        caption += "p-values are of F-tests against the noise between seeds, corrected for all terms (Holm)."
    else:
        caption += "One run per configuration: effects cannot be separated from noise, so nothing is tested."
    if left_out:
        caption += f" Smaller ones are only in the table ({counted(left_out, 'term')})."
    return ReportFigure(
        title="Variance explained",
        caption=caption,
        figure=shares(bars, analysis.metric),
        tables=(variance(analysis),),
    )


@in_house_style
def shares(bars: Sequence[tuple[str, float, str, str]], metric: str) -> Figure:
    """Horizontal bars, as given.

    Args:
        bars: name, share in [0, 1], kind (`key`, `pair`, `seed`, `noise`, `rest`), a remark.
    """
    names, values, kinds, remarks = zip(*bars, strict=True)
    figure, axes = share_bars(names, values, [COLOURS[kind] for kind in kinds], remarks)
    axes.set_xlabel("share of the variance between runs")
    headline(figure, f"Variance explained, {label(f'val/{metric}')}")
    return figure


FIGURES.register("variance", Entry(40, explained))
