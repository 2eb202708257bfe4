"""The first section of a page about several sweeps: the best of each, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlpexp.analysis.load_sweep import different_data
from mlpexp.analysis.ranking import best_first
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metrics import label
from mlpexp.report.figures.ranking_figure import forest
from mlpexp.report.report_figure import ReportFigure
from mlpexp.report.report_tables import Table
from mlpexp.report.wording import listed, spelled

NO_TEST = (
    "No test is made between sweeps: each best was chosen on the same seeds that its mean is computed from, and a "
    "p-value that ignores this would be too small."
)


def sentences(analyses: Sequence[Analysis], titles: Sequence[str]) -> list[str]:
    """Which sweep has the best configuration, and whether the sweeps can be compared."""
    having = [number for number, analysis in enumerate(analyses) if analysis.best is not None]
    if not having:
        return ["No sweep has a run with finite numbers."]
    by = analyses[having[0]].ranking.by
    means = np.array([analyses[number].ranking.means[by][analyses[number].best] for number in having])
    number = having[int(np.argmin(best_first(means, by)))]
    winner, best = analyses[number], analyses[number].best
    assert best is not None
    reported = spelled(winner.ranking.estimate(best, winner.reported))
    said = [
        f"Best by {label(by)}: {titles[number]}, with {winner.study.describe(best)} "
        f"({label(winner.reported)} {reported}).",
        NO_TEST,
    ]
    if different := list(different_data([analysis.sources for analysis in analyses])):
        said.append(
            f"Careful: the sweeps were not run on the same data; they differ in {listed(different)}. Their numbers "
            "cannot be compared."
        )
    return said


def table(analyses: Sequence[Analysis], titles: Sequence[str]) -> Table:
    """One row for each sweep."""
    rows: list[list[Any]] = []
    for analysis, title in zip(analyses, titles, strict=True):
        ranked, best = analysis.ranking, analysis.best
        row: list[Any] = [title, analysis.study.num_runs, analysis.study.num_configurations]
        row += [analysis.counts[name] for name in ("diverged", "chance", "failed")]
        if best is None:
            rows.append([*row, *[None] * 4])
            continue
        row += [analysis.study.describe(best)]
        row += [spelled(ranked.estimate(best, metric)) for metric in (ranked.by, analysis.reported)]
        rows.append([*row, float(ranked.means["num_parameters"][best])])
    by = label(analyses[0].ranking.by)
    reported = next((label(analysis.reported) for analysis in analyses if analysis.best is not None), "test")
    header = ["sweep", "runs", "configurations", "diverged", "chance", "failed", "best configuration", by, reported]
    return Table(name="sweeps", header=[*header, "parameters"], rows=rows)


def figure(analyses: Sequence[Analysis], titles: Sequence[str]) -> ReportFigure | None:
    """The best configuration of each sweep with its intervals."""
    shown = [(a, a.best, title) for a, title in zip(analyses, titles, strict=True) if a.best is not None]
    if not shown:
        return None
    parts = {
        part: [a.ranking.estimate(best, a.parts[part]) for a, best, _ in shown]
        for part in ("validation", "test")
        if all(part in a.parts for a, _, _ in shown)
    }
    names = [f"{title}: {a.study.describe(best)}" for a, best, title in shown]
    drawn = forest("The best of each sweep", names, parts, shown[0][0].metric)
    caption = "The best configuration of each sweep, chosen by validation. Intervals: 95 % over seeds."
    return ReportFigure(title="The best of each sweep", caption=caption, figure=drawn)
