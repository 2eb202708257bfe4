"""Builds the report of one or more sweeps: the page, its figures and tables, and the event file for TensorBoard."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlpexp.analysis import joined_sweeps, load_sweep
from mlpexp.analysis.load_sweep import Sources, different_data
from mlpexp.analysis.sweep_analysis import Analysis, Diverged, analyse_table
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.nn.chance_level import LIKELY_CAUSES
from mlpexp.nn.metric_columns import higher_is_better, label
from mlpexp.report import html_page, report_figure, report_tables, sweeps_section, tensorboard_report
from mlpexp.report.figures.svg import svg
from mlpexp.report.html_page import Grid, Heading
from mlpexp.report.report_figure import ReportFigure
from mlpexp.report.report_tables import Table
from mlpexp.report.sentences import counts, headline, method, verification
from mlpexp.report.wording import p_value
from mlpexp.store import owned_directory
from mlpexp.tracking.figures.plot_style import png

PNG_DPI = 130
TOP, SHOWN, COMMANDS, MESSAGES = 20, 200, 20, 50
KIND, ADVICE = "report", "choose another directory with --out DIR"
SINGLE_RUNS = "single runs"
PROBLEMS = {
    "diverged": "diverged: a loss was no longer finite. They have no number.",
    "failed": "failed with an error.",
    "unfinished": "did not finish.",
    "stopped": "were stopped early, by successive halving or a pruner, and are not ranked.",
    "chance": f"are no better than guessing (they count in every mean); {LIKELY_CAUSES}.",
}


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What a report says and where it is."""

    page: Path
    sweeps: list[tuple[str, list[str]]]
    """title and headline of each"""
    num_figures: int
    num_tables: int
    counts: list[str] = field(default_factory=list)
    """of each sweep, how many runs ended in which way"""
    incomplete: dict[Path, int] = field(default_factory=dict)
    """sweeps with planned runs that have not ended, and how many"""

    @property
    def missing(self) -> int:
        """Planned runs that have not ended, of all sweeps."""
        return sum(self.incomplete.values())


def build(
    directories: Sequence[Path],
    out: Path | None = None,
    metric: str | None = None,
    by: str | None = None,
    margin: float | None = None,
    diverged: Diverged = "last",
    refresh_s: int | None = None,
) -> WrittenReport:
    """Write the report of one or more sweeps; single runs among them are reported together, as one sweep.

    Args:
        out: the directory; by default `report` in the first of `directories`.
        metric, by, margin, diverged: see `analyse_table`.
        refresh_s: how often a browser loads the page again while runs are missing; None: never.

    Raises:
        UserError: one of them is neither sweep nor run, or `out` holds something else.
        OSError: it cannot be written.
    """
    out = directories[0] / "report" if out is None else out
    analyse = partial(analyse_table, metric=metric, by=by, margin=margin, diverged=diverged)
    titles, analyses = _analyse_all(directories, analyse)
    owned_directory.check(out, KIND, ADVICE, tensorboard_report.earlier_files)
    report = Report()
    sections = [
        _section(analysis, title, report, f"{number}-" if len(analyses) > 1 else "")
        for number, (analysis, title) in enumerate(zip(analyses, titles, strict=True), 1)
    ]
    incomplete = {analysis.study.directory: analysis.missing for analysis in analyses if analysis.missing}
    page = html_page.render(
        {
            "refresh_s": refresh_s if incomplete else None,
            "title": ", ".join(titles),
            "date": f"{datetime.now():%Y-%m-%d %H:%M}",
            "sweeps": sections,
            "comparison": _comparison(analyses, titles, analyse, report) if len(analyses) > 1 else None,
        }
    )
    name, events = tensorboard_report.event_file(report.texts, report.shown)
    files = {**report.files, name: events, "index.html": page}  # the page comes last
    owned_directory.replace(out, files, KIND, ADVICE, tensorboard_report.earlier_files)
    return WrittenReport(
        page=out / "index.html",
        sweeps=[(title, headline(analysis)) for title, analysis in zip(titles, analyses, strict=True)],
        num_figures=len(report.shown),
        num_tables=sum(name.endswith(".csv") for name in report.files),
        counts=[counts(analysis) for analysis in analyses],
        incomplete=incomplete,
    )


def _analyse_all(
    directories: Sequence[Path], analyse: Callable[[SweepTable, Sources], Analysis]
) -> tuple[list[str], list[Analysis]]:
    sweeps = [path for path in directories if not load_sweep.is_single_run(path)]
    single = [path for path in directories if load_sweep.is_single_run(path)]
    analyses = [analyse(*load_sweep.read(path)) for path in sweeps]
    names = [path.resolve().name for path in sweeps]
    titles = [name if names.count(name) == 1 else str(path) for name, path in zip(names, sweeps, strict=True)]
    if single:
        analyses.append(analyse(*load_sweep.read_single_runs(single)))
        titles.append(single[0].resolve().name if len(single) == 1 else SINGLE_RUNS)
    return titles, analyses


@dataclass
class Report:
    """The files of a report, in the order in which they are written, and what TensorBoard shows."""

    files: dict[str, str | bytes] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    shown: list[tuple[str, ReportFigure, tuple[bytes, int, int]]] = field(default_factory=list)

    def add_figure(self, name: str, figure: ReportFigure, prefix: str = "") -> dict[str, Any]:
        """Add a figure as PNG and SVG with its tables; returns what the page needs of it."""
        links = [self.add_table(table, prefix) for table in figure.tables]
        anchor = f"{prefix}{name}"
        drawing = svg(figure.figure, anchor, f"{figure.title}. {figure.caption}")
        picture = png(figure.figure, PNG_DPI)
        paths = {kind: f"figures/{anchor}.{kind}" for kind in ("png", "svg")}
        self.files |= {paths["png"]: picture[0], paths["svg"]: drawing}
        self.shown.append((anchor, figure, picture))
        return {
            "svg": drawing,
            "title": figure.title,
            "caption": figure.caption,
            "anchor": anchor,
            "files": [*((kind.upper(), path) for kind, path in paths.items()), *links],
        }

    def add_table(self, table: Table, prefix: str = "") -> tuple[str, str]:
        """Add a table; returns the text and the target of its link."""
        path = f"tables/{prefix}{table.name}.csv"
        self.files[path] = table.csv()
        return f"CSV: {prefix}{table.name}", path


def _section(analysis: Analysis, title: str, report: Report, prefix: str) -> dict[str, Any]:
    ranking, all_runs = report_tables.ranking(analysis), report_tables.every_run(analysis)
    all_runs_link = report.add_table(all_runs, prefix)
    command_column = all_runs.header.index("command")
    first_runs = [analysis.study.members[c][0] for c in analysis.ranking.order.tolist()[:COMMANDS]]
    origin = report_tables.origin(analysis)
    best_command = all_runs.rows[first_runs[0]][command_column] if first_runs and analysis.best is not None else ""
    ranked, note = _ranking_grid(analysis), _ranking_note(analysis)
    answer = headline(analysis)
    report.texts.append((f"{prefix}answer", tensorboard_report.answer(answer, counts(analysis), best_command)))
    if ranked.rows:
        report.texts.append((f"{prefix}ranking", tensorboard_report.table(ranked, note)))
    return {
        "title": title,
        "anchor": f"{prefix}sweep",
        "headline": answer,
        "counts": counts(analysis),
        "command": best_command,
        "figures": [report.add_figure(name, figure, prefix) for name, figure in report_figure.draw(analysis)],
        "problems": _problems(analysis, report, prefix),
        "ranking": ranked,
        "top": TOP,
        "ranking_note": note,
        "ranking_more": _other_rows(len(ranking.rows)),
        "ranking_files": [report.add_table(ranking, prefix), all_runs_link],
        "commands": [all_runs.rows[i][command_column] for i in first_runs],
        "method": method(analysis),
        "origin": html_page.grid(origin),
        "origin_top": len(origin.rows) - len(report_tables.constants(analysis)),
        "origin_notes": verification(analysis),
        "origin_files": [report.add_table(origin, prefix)],
    }


def _comparison(
    analyses: Sequence[Analysis],
    titles: Sequence[str],
    analyse: Callable[[SweepTable, Sources], Analysis],
    report: Report,
) -> Mapping[str, Any]:
    joined = None
    if not any(different_data([analysis.sources for analysis in analyses if analysis.study.num_runs])):
        joined_table = joined_sweeps.join([(analysis.study, analysis.sources) for analysis in analyses], titles)
        joined = analyse(*joined_table)
    table, figure = sweeps_section.table(analyses, titles), sweeps_section.figure(analyses, titles)
    return {
        "sentences": sweeps_section.sentences(analyses, titles, joined),
        "table": html_page.grid(table),
        "files": [report.add_table(table)],
        "figure": report.add_figure("sweeps", figure) if figure else None,
    }


def _ranking_grid(analysis: Analysis) -> Grid:
    """The ranking with fewer columns than its CSV: mean and interval in one."""
    study, ranked = analysis.study, analysis.ranking
    metrics = list(dict.fromkeys([ranked.by, *analysis.parts.values()]))
    shares = {
        name: values for name, values in (("diverged", ranked.diverged), ("chance", ranked.chance)) if values.any()
    }
    header = [Heading("#", True), *(Heading(key.label, key.kind == "numeric") for key in study.factors)]
    header += [Heading("runs", True), *(Heading(name, True) for name in shares)]
    header += [*(Heading(label(metric), True) for metric in metrics), Heading("parameters", True)]
    header += [Heading("against the best", False)]
    rows = []
    for number, c in enumerate(ranked.order.tolist()[:SHOWN], 1):
        first_run = study.members[c][0]
        runs = f"{ranked.finished[c]}" + (f" of {ranked.runs[c]}" if ranked.finished[c] < ranked.runs[c] else "")
        row = [str(number), *(key.levels[key.codes[first_run]] for key in study.factors), runs]
        row += [f"{values[c] / ranked.runs[c]:.0%}" if values[c] else "–" for values in shares.values()]
        row += [str(ranked.estimate(c, metric)) for metric in metrics]
        row.append(html_page.cell(float(ranked.means["num_parameters"][c])))
        rows.append([*row, _verdict(analysis, c)])
    return Grid(header, rows)


def _verdict(analysis: Analysis, c: int) -> str:
    """`worse (p = 0.002)`, `equivalent`, `undecided (12 more seeds)`."""
    comparison = analysis.comparison
    answer = comparison.answer(c, higher_is_better(analysis.reported)) if comparison else ""
    if not comparison or not answer:
        return "–"
    if answer in ("worse", "better"):
        return f"{answer} ({p_value(comparison.adjusted[c])})"
    if answer == "undecided" and math.isfinite(comparison.further_seeds[c]):
        return f"{answer} ({comparison.further_seeds[c]:,.0f} more {analysis.blocks.name})"
    return answer


def _ranking_note(analysis: Analysis) -> str:
    note = f"By mean {label(analysis.ranking.by)}, ± 95 % interval over {analysis.blocks.name}. "
    if analysis.seeds < 2:
        note = f"By {label(analysis.ranking.by)}; one run each, so without intervals. "
    if analysis.comparison and analysis.seeds > 1:
        note += f"The last column compares {label(analysis.reported)} with that of the best, family-wise at 5 %."
    return note


def _other_rows(rows: int) -> str:
    if rows <= SHOWN:
        return f"the other {rows - TOP:,} configurations"
    return f"{SHOWN - TOP} more; all {rows:,} configurations are in the CSV"


def _problems(analysis: Analysis, report: Report, prefix: str) -> dict[str, Any] | None:
    study = analysis.study
    if not study.num_runs:
        return None
    if not any(analysis.counts.values()):
        sentence = "None: every run has finite numbers and is better than guessing."
        return {"sentences": [sentence], "table": Grid([], []), "messages": [], "messages_title": "", "files": []}
    table = report_tables.problems(analysis)
    rows = [row for row in table.rows if any(row[3:])]
    kinds = [c for c in range(3, len(table.header)) if any(row[c] for row in rows)]
    grid = html_page.grid(Table(name="", header=table.header, rows=rows), [0, 1, 2, *kinds])
    runs = [i for i in range(study.num_runs) if study.messages[i]]
    messages_title = (
        f"{len(runs):,} messages" if len(runs) <= MESSAGES else f"the first {MESSAGES} of {len(runs):,} messages"
    )
    return {
        "sentences": [f"{n:,} of {study.num_runs:,} {PROBLEMS[name]}" for name, n in analysis.counts.items() if n],
        "table": grid,
        "messages": [(study.names[i], study.messages[i]) for i in runs[:MESSAGES]],
        "messages_title": messages_title,
        "files": [report.add_table(table, prefix)],
    }
