"""The table of the best configurations at the end of a sweep; the ranking is the report's."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mlpexp.analysis.ranking import Ranking, rank
from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_table import SweepTable, from_records
from mlpexp.analysis.swept_keys import Key
from mlpexp.runtime.rich_console import Console
from mlpexp.store import results_table
from mlpexp.sweep.run_jobs import Job, Outcome, ended_rows

SHOWN = 5  # configurations
WIDE = 100  # columns of a terminal that has room for three metrics with their intervals


def show(console: Console, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
    """Print the best configurations; nothing where no run has finite numbers."""
    identities = [end.result.identity if end.result else None for end in outcomes if end.is_known]
    table = from_records(directory, results_table.records(ended_rows(sweep, outcomes, directory)), identities)
    monitor = sweep[0].config.monitor
    ranking = rank(table, monitor)
    if ranking.best is None:
        return
    metrics = [name for name in dict.fromkeys((monitor, "val/acc", "test/acc")) if math.isfinite(_best(ranking, name))]
    if console.width < WIDE and len(metrics) > 2:
        metrics.remove("val/acc")
    repeated = bool((ranking.finished > 1).any())
    console.print(_title(table, ranking, repeated), highlight=False, soft_wrap=True)
    grid = Table(header_style="bold")
    if table.factors:
        grid.add_column("configuration", overflow="fold")
    if repeated or (ranking.finished < ranking.runs).any():
        grid.add_column("runs", justify="right", no_wrap=True)
    for name in metrics:
        grid.add_column(name, justify="right", no_wrap=True)
    for c in ranking.ranked[:SHOWN]:
        run = table.members[c][0]
        cells = [escape(" ".join(_setting(key, key.levels[key.codes[run]]) for key in table.factors))]
        runs = f"{ranking.finished[c]}" + f" of {ranking.runs[c]}" * bool(ranking.finished[c] < ranking.runs[c])
        cells = cells[: len(table.factors)] + [runs] * (len(grid.columns) - len(metrics) - bool(table.factors))
        grid.add_row(*cells, *(_spelled(ranking.estimate(c, name)) for name in metrics))
    console.print(grid)
    for sentence in table.repeat_sentences():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _best(ranking: Ranking, metric: str) -> float:
    assert ranking.best is not None
    return float(ranking.means[metric][ranking.best])


def _title(table: SweepTable, ranking: Ranking, repeated: bool) -> str:
    interval = ", with 95 % intervals" if repeated else ""
    count = table.num_configurations - len(table.twins)
    if count == 1:
        if repeated:
            return f"mean over the runs{interval}"
        return "the run" if table.num_runs == 1 else f"the only one of {table.num_runs:,} runs that counts"
    parts = []
    for words, having in (("at chance level", ranking.chance > 0), ("with diverged runs", ranking.diverged > 0)):
        if number := int(having.sum()):
            parts.append(f"{number:,} of them {words}")
    which = f", {' and '.join(parts)}," if parts else ""
    return f"best of {count:,} configurations{which} by {'mean ' * repeated}{ranking.by}{interval}"


def _setting(key: Key, value: str) -> str:
    """`width=64`, or `tanh` alone: a word is understood without its key."""
    is_word = value.isidentifier() and value.lower() not in ("true", "false", "null", "none", "nan", "inf", "default")
    return value if is_word else f"{key.label}={value}"


def _spelled(value: Estimate) -> str:
    return f"{value.mean:.4f}" + (f" ± {value.half:.4f}" if math.isfinite(value.half) else "")
