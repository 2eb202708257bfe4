"""The figures of one sweep, each with its caption and its numbers as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mlpexp.report import training
from mlpexp.report.analysis import COSTS, Analysis
from mlpexp.report.figures import cost, effects, forest, heat, shares
from mlpexp.report.intervals import Estimate
from mlpexp.report.keys import Key
from mlpexp.report.sentences import NAMES, chance
from mlpexp.report.tables import Table, ends

MAX_LEVELS, MAX_PANELS = 12, 6
MAX_KEYS, MAX_PAIRS = 8, 4
MAX_BARS, MAX_RANKED = 14, 15
MATTERS = 0.01  # share of the variance from which an interaction is drawn
EFFECT_LEVELS = 20


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words."""

    name: str
    title: str
    caption: str
    figure: Figure
    table: Table | None = None


def draw(analysis: Analysis) -> Iterator[Picture]:
    """Every figure that this sweep has numbers for, in the order of the page."""
    parts: Sequence[Callable[[Analysis], Picture | None]] = (
        ranked, heat_maps, main_effects, explained, interactions, costs, training.curves,
        training.gradients, training.saturation,
    )  # fmt: skip
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
    caption = f"Ordered by {NAMES[analysis.ranking.by]}."
    if len(shown) < len(order):
        caption += f" The other {len(order) - len(shown):,} configurations are in the ranking below."
    if common:
        caption += f" All have {common}."
    caption += _intervals(analysis)
    title = f"The best {len(shown)} of {len(order):,}" if len(shown) < len(order) else "All configurations"
    figure = forest.forest(f"{title}, by {NAMES[analysis.ranking.by]}", names, parts, analysis.metric)
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
    kept = {k: _kept(analysis, k, MAX_PANELS if k == third else MAX_LEVELS) for k in used}
    parts: dict[str, heat.Cells] = {}
    table = []
    for part in analysis.parts:
        found = analysis.cells(part, used)
        parts[part] = shown = {}
        for combination, estimate in found.items():
            names = [keys[k].levels[level] for k, level in zip(used, combination, strict=True)]
            table.append([part, *names, *ends(estimate)])
            if all(level in kept[k] for k, level in zip(used, combination, strict=True)):
                place = [kept[k].index(level) for k, level in zip(used, combination, strict=True)]
                shown[tuple([0, *place][-3:])] = estimate  # type: ignore[index]
    best = [int(analysis.levels[analysis.best, k]) for k in used]
    framed = [0, *(kept[k].index(level) for k, level in zip(used, best, strict=True))][-3:]

    def axis(k: int) -> heat.Axis:
        return heat.Axis(label=keys[k].label, levels=[keys[k].levels[level] for level in kept[k]])

    figure = heat.heat_maps(
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
    caption += _intervals(analysis)
    title = f"{keys[rows].label} by {keys[columns].label}" + (f", for each {keys[third].label}" if third is not None else "")
    header = ["part", *(keys[k].name for k in used), "mean", "low", "high", "runs"]
    return Picture(
        name="heat", title=title, caption=caption, figure=figure, table=Table(name="heat", header=header, rows=table)
    )


def main_effects(analysis: Analysis) -> Picture | None:
    """Each key by itself."""
    groups = []
    dropped = 0
    keys = analysis.study.coarse
    for k in analysis.importance[:MAX_KEYS]:
        kept = _kept(analysis, k, EFFECT_LEVELS)
        dropped += len(keys[k].levels) - len(kept)
        parts = {}
        for part in analysis.parts:
            found = analysis.cells(part, [k])
            parts[part] = [found.get((level,)) for level in kept]
        groups.append(effects.Group(label=keys[k].label, kind=keys[k].kind, levels=[keys[k].levels[i] for i in kept], parts=parts))
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
        caption=caption + _intervals(analysis),
        figure=effects.main_effects(groups, analysis.metric),
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
    bars.append(("three keys and more", found.rest, "rest", ""))
    if found.blocks:
        bars.append(("seed (alike in all)", found.blocks, "seed", ""))
    if found.noise_freedom:
        bars.append(("noise between seeds", found.noise, "noise", ""))
    caption = (
        "Analysis of variance of the runs that ended well: what a key explains beyond the other keys, what a pair explains "
        "beyond its two. "
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
        figure=shares.shares(bars, analysis.metric),
    )


def interactions(analysis: Analysis) -> Picture | None:
    """Pairs of keys whose effects depend on each other."""
    keys = analysis.study.coarse
    pairs = [t for t in analysis.variance.terms if len(t.keys) == 2 and t.share >= MATTERS and not t.adjusted > 0.05]
    pairs.sort(key=lambda term: -term.share)
    drawn, rows = [], []
    for term in pairs:
        # along the axis the key with an order and more levels; a line for each level of the other
        across, other = sorted(term.keys, key=lambda k: (keys[k].kind == "categorical", -len(keys[k].levels)))
        found = analysis.cells("validation", [across, other])
        for (i, j), estimate in found.items():
            rows.append([keys[across].name, keys[across].levels[i], keys[other].name, keys[other].levels[j], *ends(estimate)])
        if len(drawn) == MAX_PAIRS:
            continue
        kept, lines = _kept(analysis, across, MAX_LEVELS), _kept(analysis, other, 8)
        drawn.append(
            effects.Pair(
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
        caption=caption + _intervals(analysis),
        figure=effects.interactions(drawn, analysis.metric),
        table=Table(name="interactions", header=header, rows=rows),
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
            rows.append([analysis.study.describe(c), *numbers, *("yes" if analysis.fronts[n][c] else "" for n in COSTS)])
    header = ["configuration", *COSTS, *analysis.parts.values(), *(f"front by {name}" for name in COSTS)]
    caption = (
        "Nothing cheaper than a configuration on the front has as good a validation mean. Seconds are a run's share of the "
        "stack that it was trained in."
    )
    if len(mean) > cost.MAX_POINTS:
        caption += f" Of {len(mean):,} configurations {cost.MAX_POINTS:,} are drawn, and the whole front."
    return Picture(
        name="cost",
        title="What it costs",
        caption=caption + _intervals(analysis),
        figure=cost.cost(panels, mean, half, analysis.metric, best),
        table=Table(name="cost", header=header, rows=rows),
    )


def _kept(analysis: Analysis, k: int, limit: int) -> list[int]:
    """The levels of a key that are drawn: all, or those with the best means, always that of the best configuration."""
    key: Key = analysis.study.coarse[k]
    if len(key.levels) <= limit:
        return list(range(len(key.levels)))
    sign = 1 if analysis.metric == "acc" else -1
    found: dict[tuple[int, ...], Estimate] = analysis.cells("validation", [k])
    ranked = sorted(found, key=lambda level: -sign * found[level].mean)
    best = int(analysis.levels[analysis.best, k])
    return sorted({best, *(level for (level,) in ranked[: limit - 1])})


def _intervals(analysis: Analysis) -> str:
    return " Intervals: 95% over seeds." if analysis.seeds > 1 else " One run each: no intervals."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
