"""The figures of what keys do: alone, together, and how much of the variance they explain."""

from typing import Any

import numpy as np

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.report.figure_entry import Picture, intervals, levels_kept
from mlpexp.report.figures import effect_plots, variance_shares
from mlpexp.report.report_tables import Table, ends
from mlpexp.report.sentences import chance

MAX_KEYS, MAX_PAIRS = 8, 4
MAX_LEVELS, EFFECT_LEVELS, LINES = 12, 20, 8
MAX_BARS = 14
MATTERS = 0.01  # share of the variance from which an interaction is drawn


def main_effects(analysis: Analysis) -> Picture | None:
    """Each key by itself."""
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
            effect_plots.Group(
                label=keys[k].label, kind=keys[k].kind, levels=[keys[k].levels[i] for i in kept], parts=parts
            )
        )
    if not groups:
        return None
    caption = "Each point averages over everything else that was swept; the axis does not begin at 0."
    if len(analysis.importance) > MAX_KEYS:
        caption += f" The {len(analysis.importance) - MAX_KEYS} keys that explain least are only in the table."
    if dropped:
        caption += f" {dropped:,} values are only in the table."
    return Picture(
        name="effects",
        title="What each key does",
        caption=caption + intervals(analysis),
        figure=effect_plots.main_effects(groups, analysis.metric),
    )


def explained(analysis: Analysis) -> Picture | None:
    """Shares of the variance."""
    found, keys = analysis.variance, analysis.study.coarse
    if not found.terms:
        return None
    bars = [
        (
            " x ".join(keys[k].label for k in term.keys),
            term.share,
            "key" if len(term.keys) == 1 else "pair",
            chance(term.adjusted) if np.isfinite(term.adjusted) else "",
        )
        for term in sorted(found.terms, key=lambda term: -term.share)
    ]
    singles = [bar for bar in bars if bar[2] == "key"]
    pairs = [bar for bar in bars if bar[2] == "pair" and bar[1] >= MATTERS / 10]
    bars = sorted([*singles, *pairs], key=lambda bar: -bar[1])[:MAX_BARS]
    left_out = len(found.terms) - len(bars)
    if found.rest > MATTERS / 1000:
        rest = "other differences" if any(key.binned for key in keys) else "three keys and more"
        bars.append((rest, found.rest, "rest", ""))
    if found.blocks:
        bars.append(("seed (alike in all)", found.blocks, "seed", ""))
    if found.noise_freedom:
        bars.append(("noise between seeds", found.noise, "noise", ""))
    caption = (
        "Analysis of variance of the runs that ended well: what a key explains beyond the other keys, what a pair "
        "explains beyond its two. "
    )
    if found.noise_freedom:
        caption += "p-values are of F-tests against the noise between seeds, corrected for all terms (Holm)."
    else:
        caption += "One run per configuration: noise and effects cannot be told apart, so nothing is tested."
    if left_out:
        caption += f" What explains less is only in the table ({left_out:,} term{'s' * (left_out != 1)})."
    return Picture(
        name="variance",
        title="What explains the differences",
        caption=caption,
        figure=variance_shares.shares(bars, analysis.metric),
    )


def interactions(analysis: Analysis) -> Picture | None:
    """Pairs of keys whose effects depend on each other."""
    keys = analysis.study.coarse
    pairs = [t for t in analysis.variance.terms if len(t.keys) == 2 and t.share >= MATTERS and not t.adjusted > 0.05]
    pairs.sort(key=lambda term: -term.share)
    drawn: list[effect_plots.Pair] = []
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
            effect_plots.Pair(
                label=keys[across].label,
                levels=[keys[across].levels[i] for i in kept],
                other=keys[other].label,
                other_kind=keys[other].kind,
                other_levels=[keys[other].levels[j] for j in lines],
                lines=[[found.get((i, j)) for i in kept] for j in lines],
                title=f"{term.share:.1%} of the variance"
                + (f", {chance(term.adjusted)}" if np.isfinite(term.adjusted) else ""),
            )
        )
    if not drawn:
        return None
    caption = "Where lines are not parallel, what one key does depends on the other."
    if len(drawn) < len(pairs):
        caption += f" Shown are the {len(drawn)} largest of {len(pairs):,} interactions that matter."
    header = ["key", "level", "other key", "other level", "mean", "low", "high", "runs"]
    return Picture(
        name="interactions",
        title="Keys that act together",
        caption=caption + intervals(analysis),
        figure=effect_plots.interactions(drawn, analysis.metric),
        table=Table(name="interactions", header=header, rows=rows),
    )
