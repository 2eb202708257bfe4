"""`scripts/report.py`: read sweeps, draw, write the page with its figures and tables beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlpexp.analysis.sweep_analysis import Analysis, analyse
from mlpexp.nn.chance_level import LIKELY_CAUSES
from mlpexp.nn.metrics import column_label
from mlpexp.report import html_page, report_tables, sweep_figures, sweeps_section, tensorboard_report
from mlpexp.report.figure_entry import Picture
from mlpexp.report.figures.svg import svg
from mlpexp.report.html_page import Grid, Heading
from mlpexp.report.report_tables import Table
from mlpexp.report.sentences import chance, counts, headline, method, spelled
from mlpexp.report.tensorboard_report import Shown
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files
from mlpexp.tracking.figures.plot_style import png

PNG_DPI = 130
TOP, SHOWN, COMMANDS, MESSAGES = 20, 200, 20, 50
FIGURES, TABLES = "figures", "tables"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What there is to tell the person."""

    page: Path
    sweeps: list[tuple[str, list[str]]]
    """title and headline of each"""
    num_figures: int
    num_tables: int


def build(
    directories: Sequence[Path],
    out: Path | None = None,
    metric: str = "acc",
    by: str | None = None,
) -> Written:
    """Write the report of one or more sweeps.

    Args:
        out: where; by default `report` in the first sweep's directory.

    Raises:
        UserError: one of them is no sweep.
        OSError: it cannot be written.
    """
    analyses = [analyse(directory, metric, by) for directory in directories]
    out = directories[0] / "report" if out is None else out
    writer = Writer(out)
    titles = _titles(directories)
    sweeps = [
        _sweep(analysis, title, writer, f"{number}-" if len(analyses) > 1 else "")
        for number, (analysis, title) in enumerate(zip(analyses, titles, strict=True), 1)
    ]
    contest = sweeps_section.describe(analyses, titles, writer) if len(analyses) > 1 else None
    content = {
        "title": ", ".join(titles),
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "sweeps": sweeps,
        "contest": contest,
    }
    path = writer.finish(html_page.render(content))
    return Written(
        page=path,
        sweeps=[(title, headline(analysis)) for title, analysis in zip(titles, analyses, strict=True)],
        num_figures=len(writer.figures),
        num_tables=len(writer.tables),
    )


class Writer:
    """The report's directory; files of an earlier report that this one does not have are removed at the end."""

    def __init__(self, out: Path) -> None:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; move it away, or give another place with --out")
        self.out = out
        self.figures: list[str] = []
        self.tables: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.shown: list[Shown] = []
        for folder in (FIGURES, TABLES):
            (out / folder).mkdir(parents=True, exist_ok=True)

    def figure(self, picture: Picture, prefix: str = "") -> dict[str, Any]:
        """Write a figure as PNG and SVG, and its table; what the page needs of it."""
        name = f"{prefix}{picture.name}"
        words = f"{picture.title}. {picture.caption}"
        drawn = svg(picture.figure, name, words)
        atomic_files.write(self.out / FIGURES / f"{name}.svg", drawn)
        content, width, height = png(picture.figure, PNG_DPI)
        atomic_files.write(self.out / FIGURES / f"{name}.png", content)
        self.shown.append(
            Shown(name=name, title=picture.title, caption=picture.caption, png=content, width=width, height=height)
        )
        self.figures.append(name)
        links = [(kind.upper(), f"{FIGURES}/{name}.{kind}") for kind in ("png", "svg")]
        if picture.table:
            links.append(self.table(picture.table, prefix))
        return {
            "svg": drawn, "title": picture.title, "caption": picture.caption, "anchor": name, "files": links,
        }  # fmt: skip

    def table(self, table: Table, prefix: str = "") -> tuple[str, str]:
        """Write a table; the text and the target of its link."""
        name = f"{prefix}{table.name}.csv"
        atomic_files.write(self.out / TABLES / name, table.csv())
        self.tables.append(name)
        return f"CSV: {table.name}", f"{TABLES}/{name}"

    def finish(self, text: str) -> Path:
        """What TensorBoard shows, and the page, which comes last."""
        kept = {f"{name}.{kind}" for name in self.figures for kind in ("png", "svg")} | set(self.tables)
        for folder, kinds in ((FIGURES, (".png", ".svg")), (TABLES, (".csv",))):
            for path in (self.out / folder).iterdir():
                if path.suffix in kinds and path.name not in kept:
                    path.unlink()
        tensorboard_report.write(self.out, self.texts, self.shown)
        path = self.out / "index.html"
        atomic_files.write(path, text)
        return path


def _sweep(analysis: Analysis, title: str, writer: Writer, prefix: str) -> dict[str, Any]:
    ranking, every = report_tables.ranking(analysis), report_tables.every_run(analysis)
    every_link = writer.table(every, prefix)
    drawn = []
    for picture in sweep_figures.draw(analysis):
        one = writer.figure(picture, prefix)
        extra = {"effects": report_tables.effects, "variance": report_tables.variance}.get(picture.name)
        if extra:
            one["files"].append(writer.table(extra(analysis), prefix))
        drawn.append(one)
    command = every.header.index("command")
    first = [analysis.study.members[c][0] for c in analysis.ranking.order.tolist()[:COMMANDS]]
    origin = report_tables.provenance(analysis)
    to_repeat = every.rows[first[0]][command] if first and analysis.best is not None else ""
    ranked, note = _ranked(analysis, ranking), _note(analysis)
    writer.texts.append((f"{prefix}answer", tensorboard_report.answer(headline(analysis), counts(analysis), to_repeat)))
    if ranked.rows:
        writer.texts.append((f"{prefix}ranking", tensorboard_report.table(ranked, note)))
    return {
        "title": title,
        "anchor": f"{prefix}sweep",
        "headline": headline(analysis),
        "counts": counts(analysis),
        "command": to_repeat,
        "pictures": drawn,
        "trouble": _trouble(analysis, writer, prefix),
        "ranking": ranked,
        "top": TOP,
        "ranking_note": note,
        "ranking_more": _more(len(ranking.rows)),
        "ranking_files": [writer.table(ranking, prefix), every_link],
        "commands": [every.rows[i][command] for i in first],
        "method": method(analysis),
        "origin": html_page.grid(origin),
        "origin_top": len(origin.rows) - len(report_tables.constants(analysis)),
        "origin_notes": _origin(analysis),
        "origin_files": [writer.table(origin, prefix)],
    }


def _ranked(analysis: Analysis, table: Table) -> Grid:
    """Fewer columns than the CSV: mean and interval in one."""
    study, ranked = analysis.study, analysis.ranking
    header = [Heading("#", True), *(Heading(key.label, key.kind == "numeric") for key in study.factors)]
    metrics = list(dict.fromkeys([ranked.by, *analysis.parts.values()]))
    header += [Heading("runs", True), *(Heading(column_label(metric), True) for metric in metrics)]
    header += [Heading("parameters", True), Heading("p against best", True)]
    rows = []
    for number, c in enumerate(ranked.order.tolist()[:SHOWN], 1):
        first = study.members[c][0]
        finished = f"{ranked.finished[c]}" + (f" of {ranked.runs[c]}" if ranked.finished[c] < ranked.runs[c] else "")
        row = [str(number), *(key.levels[key.codes[first]] for key in study.factors), finished]
        row += [spelled(ranked.estimate(c, metric)) for metric in metrics]
        row.append(html_page.cell(float(ranked.means["num_parameters"][c])))
        adjusted = analysis.comparison.adjusted[c] if analysis.comparison else float("nan")
        rows.append([*row, chance(adjusted).removeprefix("p ").removeprefix("= ") if math.isfinite(adjusted) else "–"])
    return Grid(header, rows)


def _note(analysis: Analysis) -> str:
    said = f"By mean {column_label(analysis.ranking.by)}, ± 95% interval over seeds. "
    if analysis.seeds < 2:
        said = f"By {column_label(analysis.ranking.by)}; one run each, so without intervals. "
    if analysis.comparison and analysis.seeds > 1:
        said += f"p: {column_label(analysis.reported)} against that of the best, corrected."
    return said


def _more(rows: int) -> str:
    if rows <= SHOWN:
        return f"the other {rows - TOP:,} configurations"
    return f"{SHOWN - TOP} more; all {rows:,} configurations are in the CSV"


def _trouble(analysis: Analysis, writer: Writer, prefix: str) -> dict[str, Any] | None:
    found, study = analysis.trouble, analysis.study
    if not study.num_runs:
        return None
    if not found:
        sentence = "None: every run ended well and learned something."
        return {"sentences": [sentence], "table": Grid([], []), "messages": [], "said": "", "files": []}
    table = report_tables.trouble(analysis)
    words = {
        "diverged": "diverged: a loss was no longer finite", "failed": "failed with an error",
        "unfinished": "did not finish", "stopped": "left the race early (halving), and are not ranked",
        "chance": f"are no better than guessing (they count in every mean); {LIKELY_CAUSES}",
    }  # fmt: skip
    sentences = [f"{n:,} of {study.num_runs:,} {words[kind]}." for kind, n in found.counts.items() if n]
    rows = [row for row in table.rows if any(row[3:])]
    kinds = [c for c in range(3, len(table.header)) if any(row[c] for row in rows)]
    shown = html_page.grid(Table(name="", header=table.header, rows=rows), [0, 1, 2, *kinds])
    bad = [i for i in range(study.num_runs) if study.messages[i]]
    said = f"{len(bad):,} messages" if len(bad) <= MESSAGES else f"the first {MESSAGES} of {len(bad):,} messages"
    return {
        "sentences": sentences,
        "table": shown,
        "messages": [(study.names[i], study.messages[i]) for i in bad[:MESSAGES]],
        "said": said,
        "files": [writer.table(table, prefix)],
    }


def _origin(analysis: Analysis) -> list[str]:
    found, runs = analysis.provenance, analysis.study.num_runs
    said = []
    if not found.read:
        said.append("No run left a result.json, so versions and data are not known.")
    elif found.read < runs:
        said.append(f"Read from {found.read:,} of {runs:,} runs.")
    if found.damaged:
        said.append(f"{found.damaged:,} result.json could not be read.")
    for what, counter in (("versions", found.versions), ("code", found.commits), ("data", found.data)):
        if len(counter) > 1:
            said.append(f"Careful: not all runs have the same {what}.")
    return said


def _titles(directories: Sequence[Path]) -> list[str]:
    names = [directory.resolve().name for directory in directories]
    return [
        name if names.count(name) == 1 else str(directory) for name, directory in zip(names, directories, strict=True)
    ]
