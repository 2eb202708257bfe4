"""Tables of the report: as CSV beside the page, the first rows in the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlpexp.analysis import run_files
from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import COSTS, Analysis
from mlpexp.nn.metric_columns import higher_is_better, is_column
from mlpexp.store.csv_tables import csv_text


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells are texts, numbers or None."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def csv(self) -> str:
        return csv_text(self.header, self.rows)


def ranking(analysis: Analysis) -> Table:
    """All configurations, the best first."""
    study, ranked, comparison = analysis.study, analysis.ranking, analysis.comparison
    parts = ("val/", "test/") if analysis.has_test else ("val/",)
    metrics = [name for part in parts for name in study.values if name.startswith(part)]
    spread = [f"{metric}{end}" for metric in metrics for end in ("", " ±")]
    versus = [f"best minus this, {analysis.reported}", "±", "p", "p corrected", "distinguishable"]
    versus += ["p of a difference beyond the margin", "answer", "further seeds"]
    header = ["rank", *(key.name for key in study.factors), "runs", "finished", "diverged", "chance", *spread]
    header += [*COSTS, *versus, "first run"]
    rows = []
    for number, c in enumerate(ranked.order.tolist()):
        first_run = study.members[c][0]
        row: list[Any] = [number + 1, *(key.levels[key.codes[first_run]] for key in study.factors)]
        row += [int(ranked.runs[c]), int(ranked.finished[c]), int(ranked.diverged[c]), int(ranked.chance[c])]
        row += [float(values[metric][c]) for metric in metrics for values in (ranked.means, ranked.halves)]
        row += [float(ranked.means[name][c]) for name in COSTS]
        if comparison is None or c == comparison.best:
            row += [None] * 8
        else:
            row += [
                float(values[c])
                for values in (comparison.difference, comparison.half, comparison.p, comparison.adjusted)
            ]
            row += ["yes" if comparison.distinguishable[c] else "no", float(comparison.equivalence[c])]
            row += [comparison.answer(c, higher_is_better(analysis.reported)), float(comparison.further_seeds[c])]
        rows.append([*row, study.names[first_run]])
    return Table(name="ranking", header=header, rows=rows)


def every_run(analysis: Analysis) -> Table:
    """Each run with the command that trains it again, and the run that it repeats, if any."""
    study = analysis.study
    keys = [*study.factors, *study.seeds]
    metrics = [*filter(is_column, study.values), "seconds"]
    rows = []
    for i, name in enumerate(study.names):
        swept = [(key.name, key.levels[key.codes[i]]) for key in keys]
        command, exact = run_files.command(study.directory, name, swept)
        numbers = [float(study.values[metric][i]) for metric in metrics]
        remark = "" if exact else "from the swept keys: the run left no overrides.yaml"
        if study.finite[i] and study.repeats[i] >= 0:
            remark = f"the same training as {study.names[study.repeats[i]]}"
        rows.append([name, study.status[i], *(v for _, v in swept), *numbers, command, remark, study.messages[i]])
    header = ["name", "status", *(key.name for key in keys), *metrics, "command", "remark", "message"]
    return Table(name="runs", header=header, rows=rows)


def variance(analysis: Analysis) -> Table:
    """Analysis of variance of the validation metric."""
    decomposition, keys = analysis.variance, analysis.study.coarse
    rows: list[list[Any]] = [
        [" x ".join(keys[k].name for k in t.keys), t.freedom, t.squares, t.share, t.f, t.p, t.adjusted]
        for t in sorted(decomposition.terms, key=lambda term: (len(term.keys), -term.share))
    ]
    for name, share, freedom in (
        ("other differences between configurations", decomposition.rest, None),
        ("seed, the same in all configurations", decomposition.blocks, None),
        ("noise between seeds", decomposition.noise, decomposition.noise_freedom),
    ):
        rows.append([name, freedom, share * decomposition.total, share, None, None, None])
    header = ["term", "degrees of freedom", "sum of squares", "share", "F", "p", "p corrected"]
    return Table(name="variance", header=header, rows=rows)


def effects(analysis: Analysis) -> Table:
    """The mean at each level of each key."""
    rows = []
    for k in analysis.importance:
        key = analysis.study.coarse[k]
        for part in analysis.parts:
            for (level,), estimate in analysis.cells(part, [k]).items():
                rows.append([key.name, key.levels[level], part, *estimate_cells(estimate)])
    return Table(name="effects", header=["key", "level", "part", "mean", "low", "high", "runs"], rows=rows)


def problems(analysis: Analysis) -> Table:
    """Runs with a problem by level of each key."""
    rows = []
    for key in analysis.study.coarse:
        counts = analysis.problems_by_level(key)
        rows += [[key.name, level, *(column[i] for column in counts.values())] for i, level in enumerate(key.levels)]
    return Table(name="trouble", header=["key", "level", "runs", *analysis.counts], rows=rows)


def origin(analysis: Analysis) -> Table:
    """Versions, data, seeds, and what was the same in all runs."""
    sources = analysis.sources
    rows: list[list[Any]] = []
    counters = {"versions": sources.versions, "git commit": sources.commits, "data (SHA-256)": sources.digests}
    for kind, counter in counters.items():
        rows += [[kind, value, count] for value, count in counter.most_common()]
    for key in analysis.study.seeds:
        rows.append([key.name, _listed(key.levels), analysis.study.num_runs])
    rows += [[key, value, analysis.study.num_runs] for key, value in constants(analysis).items()]
    return Table(name="provenance", header=["what", "value", "runs"], rows=rows)


def _listed(levels: Sequence[str]) -> str:
    """`0, 1, 2`, or `0 to 39` where every whole number between is there."""
    if len(levels) > 4 and all(level.isdecimal() for level in levels):
        low, high = int(levels[0]), int(levels[-1])
        if high - low + 1 == len(levels):
            return f"{low} to {high}"
    return ", ".join(levels) if len(levels) <= 100 else f"{', '.join(levels[:100])}, … ({len(levels):,} values)"


def constants(analysis: Analysis) -> dict[str, str]:
    """The settings that are the same in all runs, as sweep.json lists them."""
    settings = analysis.sources.plan.constants if analysis.sources.plan else {}
    return {key: "null" if value is None else str(value) for key, value in settings.items() if key != "data digest"}


def estimate_cells(estimate: Estimate) -> list[Any]:
    return [estimate.mean, estimate.mean - estimate.half, estimate.mean + estimate.half, estimate.runs]
