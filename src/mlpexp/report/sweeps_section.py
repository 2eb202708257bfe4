"""The first section of a page about several sweeps: the best of each, side by side."""

from collections.abc import Sequence
from typing import Any

from mlpexp.analysis.load_sweep import different_data
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import label
from mlpexp.report import comparison_sentences
from mlpexp.report.figures.ranking_figure import forest
from mlpexp.report.report_figure import ReportFigure
from mlpexp.report.report_tables import Table
from mlpexp.report.wording import listed


def sentences(analyses: Sequence[Analysis], titles: Sequence[str], joined: Analysis | None) -> list[str]:
    """Which configuration of all sweeps is best, how sure that is, and whether the sweeps can be compared.

    Args:
        joined: all sweeps as one; None where they were not run on the same data.
    """
    if joined is None:
        different = listed(list(different_data([analysis.sources for analysis in analyses if analysis.study.num_runs])))
        return [
            f"The sweeps were not run on the same data; they differ in {different}. Their numbers cannot be compared, "
            "so no best of all sweeps is named."
        ]
    best = joined.best
    if best is None:
        return ["No sweep has a run with finite numbers."]
    runs = [joined.study.names[run] for run in joined.study.members[best]]
    best_sweeps = [title for title in titles if any(name.startswith(f"{title}/") for name in runs)]
    reported = joined.ranking.estimate(best, joined.reported)
    sentence = (
        f"Best by {label(joined.ranking.by)}: {listed(best_sweeps)}, with {joined.study.describe(best)} "
        f"({label(joined.reported)} {reported})."
    )
    total = f"All {len(joined.ranking.ranked):,} configurations of all sweeps are one family."
    return [sentence, *comparison_sentences.against_others(joined, with_command=False), total]


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
        row += [str(ranked.estimate(best, metric)) for metric in (ranked.by, analysis.reported)]
        rows.append([*row, float(ranked.means["num_parameters"][best])])
    by = label(analyses[0].ranking.by)
    reported = next((label(analysis.reported) for analysis in analyses if analysis.best is not None), "test")
    header = ["sweep", "runs", "configurations", "diverged", "chance", "failed", "best configuration", by, reported]
    return Table(name="sweeps", header=[*header, "parameters"], rows=rows)


def figure(analyses: Sequence[Analysis], titles: Sequence[str]) -> ReportFigure | None:
    """The best configuration of each sweep with its intervals."""
    sweeps = [(a, a.best, title) for a, title in zip(analyses, titles, strict=True) if a.best is not None]
    if not sweeps:
        return None
    parts = {
        part: [a.ranking.estimate(best, a.parts[part]) for a, best, _ in sweeps]
        for part in ("validation", "test")
        if all(part in a.parts for a, _, _ in sweeps)
    }
    names = [f"{title}: {a.study.describe(best)}" for a, best, title in sweeps]
    drawing = forest("The best of each sweep", names, parts, sweeps[0][0].metric)
    caption = "The best configuration of each sweep, chosen by validation. Intervals: 95 % over seeds."
    return ReportFigure(title="The best of each sweep", caption=caption, figure=drawing)
