"""The best configurations of a sweep, as a table for the terminal."""

import math

from rich.markup import escape
from rich.table import Table

from mlpexp.analysis import blocks
from mlpexp.analysis.ranking import Ranking, rank, usual_metric
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.analysis.swept_keys import ABSENT, Key
from mlpexp.analysis.variation import covered_in_words
from mlpexp.config.schema import Config
from mlpexp.nn.metric_columns import headline
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import wrapped

SHOWN = 5  # configurations
WIDE = 100  # columns of a terminal that has room for three metrics with their intervals
MIN_WIDTH = 10  # of the configurations, in a terminal that is too narrow for all columns


def print_ranking(console: Console, table: SweepTable, cfg: Config) -> None:
    """Print the best configurations of a sweep; nothing where no run has finite numbers.

    Args:
        cfg: of one of its runs.
    """
    monitor = cfg.monitor
    data = {f"data.{key}": {str(value)} for key, value in vars(cfg.data).items()}
    repetitions = blocks.independent_blocks(table, data)
    monitor = usual_metric(table, monitor)
    ranking = rank(repetitions, monitor)
    if ranking.best is None:
        return
    metric = headline(table.values) if monitor == "val/loss" else monitor.removeprefix("val/")
    candidates = dict.fromkeys((monitor, f"val/{metric}", f"test/{metric}"))
    metrics = [name for name in candidates if name in ranking.means and math.isfinite(_best(ranking, name))]
    if console.width < WIDE and len(metrics) > 2:
        metrics.remove(f"val/{metric}")
    repetition_name = repetitions.name if (ranking.blocks > 1).any() else ""
    console.print(wrapped(_title(table, ranking, repetition_name)), highlight=False, soft_wrap=True)
    grid = Table(header_style="bold")
    if table.factors:
        grid.add_column("configuration", overflow="fold", min_width=MIN_WIDTH)
    if (ranking.finished > 1).any() or (ranking.finished < ranking.runs).any():
        grid.add_column("runs", justify="right", no_wrap=True)
    for name in metrics:
        grid.add_column(name, justify="right", no_wrap=True)
    for c in ranking.ranked[:SHOWN]:
        run = table.members[c][0]
        settings = [(key, key.levels[key.codes[run]]) for key in table.factors]
        cells = [escape(" ".join(_setting(key, level) for key, level in settings if level != ABSENT) or "defaults")]
        runs = f"{ranking.finished[c]}" + f" of {ranking.runs[c]}" * bool(ranking.finished[c] < ranking.runs[c])
        if ranking.diverged[c]:
            runs += f", {ranking.diverged[c] / ranking.runs[c]:.0%} diverged"
        cells = cells[: len(table.factors)] + [runs] * (len(grid.columns) - len(metrics) - bool(table.factors))
        grid.add_row(*cells, *(str(ranking.estimate(c, name)) for name in metrics))
    console.print(grid)
    redraws_test = cfg.data.test_path is None
    covers = covered_in_words([key.name for key in table.seeds], redraws_test)
    for sentence in [*[f"Each interval {covers}."] * bool(repetition_name), *table.repeat_sentences()]:
        console.print(wrapped(sentence), markup=False, highlight=False, soft_wrap=True)


def _best(ranking: Ranking, metric: str) -> float:
    assert ranking.best is not None
    return float(ranking.means[metric][ranking.best])


def _title(table: SweepTable, ranking: Ranking, repetition_name: str) -> str:
    interval = ", with 95 % intervals" if repetition_name else ""
    if repetition_name not in ("", "seeds"):
        interval += f" over {repetition_name}"
    count = table.num_configurations - len(table.twins)
    if count == 1:
        if repetition_name:
            return f"mean over the runs{interval}"
        return "the run" if table.num_runs == 1 else f"the only one of {table.num_runs:,} runs that counts"
    remarks = []
    for remark, mask in (("at chance level", ranking.chance > 0), ("with diverged runs", ranking.diverged > 0)):
        if number := int(mask.sum()):
            remarks.append(f"{number:,} of them {remark}")
    details = f", {' and '.join(remarks)}," if remarks else ""
    return f"best of {count:,} configurations{details} by {'mean ' * bool(repetition_name)}{ranking.by}{interval}"


def _setting(key: Key, value: str) -> str:
    """`width=64`, or `tanh` alone: a word is understood without its key."""
    is_word = value.isidentifier() and value.lower() not in ("true", "false", "null", "none", "nan", "inf")
    return value if is_word else f"{key.label}={value}"
