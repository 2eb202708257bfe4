"""The first section of a page about several sweeps."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.sweep_comparison import contest
from mlpexp.nn.metrics import column_label
from mlpexp.report.figure_entry import Picture
from mlpexp.report.figures.forest_plot import forest
from mlpexp.report.html_page import grid
from mlpexp.report.report_tables import Table
from mlpexp.report.sentences import chance, spelled

if TYPE_CHECKING:
    from mlpexp.report.build_report import Writer


def describe(analyses: Sequence[Analysis], titles: Sequence[str], writer: "Writer") -> dict[str, Any]:
    """Sentences, table and figure for the page."""
    found = contest(analyses)
    rows: list[list[Any]] = []
    for number, (analysis, title) in enumerate(zip(analyses, titles, strict=True)):
        counts = analysis.trouble.counts
        row: list[Any] = [
            title,
            analysis.study.num_runs,
            analysis.study.num_configurations,
            counts["diverged"],
            counts["failed"],
        ]
        if analysis.best is None:
            rows.append([*row, *[None] * 6])
            continue
        ranked, best = analysis.ranking, analysis.best
        row += [analysis.study.describe(best), spelled(ranked.estimate(best, ranked.by))]
        row += [spelled(ranked.estimate(best, analysis.reported)), float(ranked.means["num_parameters"][best])]
        against = found.comparison if found else None
        place = found.sweeps.index(number) if found else 0
        if found is None or against is None or place == found.best:
            row += [None, None]
        else:
            row += [float(against.difference[place]), float(against.adjusted[place])]
        rows.append(row)
    by = next((column_label(a.ranking.by) for a in analyses), "")
    reported = next((column_label(a.reported) for a in analyses if a.best is not None), "test")
    header = ["sweep", "runs", "configurations", "diverged", "failed", "best configuration", by, reported]
    header += ["parameters", "behind the best", "p corrected"]
    table = Table(name="sweeps", header=header, rows=rows)
    link = writer.table(table)
    picture = None
    if found:
        shown = [analyses[number] for number in found.sweeps]
        parts = {
            part: [a.ranking.estimate(int(a.ranking.order[0]), a.parts[part]) for a in shown]
            for part in ("validation", "test")
            if all(part in a.parts for a in shown)
        }
        names = [
            f"{titles[number]}: {analyses[number].study.describe(int(analyses[number].ranking.order[0]))}"
            for number in found.sweeps
        ]
        figure = forest("The best of each sweep", names, parts, shown[0].metric)
        caption = "The best configuration of each sweep, chosen by validation. Intervals: 95% over seeds."
        picture = writer.figure(Picture(name="sweeps", title="The best of each sweep", caption=caption, figure=figure))
    return {
        "sentences": _sentences(analyses, titles),
        "table": grid(table),
        "files": [link],
        "picture": picture,
    }


def _sentences(analyses: Sequence[Analysis], titles: Sequence[str]) -> list[str]:
    found = contest(analyses)
    if found is None:
        return ["No sweep has a run that ended well."]
    winner = analyses[found.sweeps[found.best]]
    name = titles[found.sweeps[found.best]]
    described = winner.study.describe(int(winner.ranking.order[0]))
    said = [f"Best by {column_label(winner.ranking.by)}: {name}, with {described}."]
    if found.comparison is not None:
        against = found.comparison
        for place, number in enumerate(found.sweeps):
            if place == found.best:
                continue
            p = against.adjusted[place]
            if not math.isfinite(p):
                said.append(f"It cannot be compared with {titles[number]}: too few seeds.")
                continue
            verdict = "distinguishable" if p <= 0.05 else "not distinguishable"
            how = "paired" if against.paired else "Welch"
            low, high = against.difference[place] - against.half[place], against.difference[place] + against.half[place]
            said.append(
                f"It is {verdict} from the best of {titles[number]} (difference of {column_label(winner.reported)} "
                f"{against.difference[place]:+.4f}, 95% interval [{low:+.4f}, {high:+.4f}]; {how} t-test, "
                f"{against.seeds[place]} seeds, {chance(p)} corrected)."
            )
    if not found.same_data:
        said.append("Careful: the sweeps were not run on the same data, so this comparison says little.")
    return said
