"""The terminal output of a sweep: its plan, a progress bar, the best configurations, the next commands."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from mlpexp.analysis import blocks
from mlpexp.analysis.ranking import Ranking, rank, usual_metric
from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_table import SweepTable, from_columns
from mlpexp.analysis.swept_keys import Key
from mlpexp.analysis.variation import covered_in_words
from mlpexp.config.overrides import parse, swept_keys
from mlpexp.config.schema import Config
from mlpexp.nn.chance_level import LIKELY_CAUSES, MARK
from mlpexp.nn.metric_columns import headline, higher_is_better
from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import described
from mlpexp.runtime.notebook_progress import NotebookProgress, in_notebook
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import wrapped
from mlpexp.store import results_table
from mlpexp.store.run_directory import FINITE
from mlpexp.store.sweep_manifest import REPEATED
from mlpexp.sweep.hydra_jobs import Job, Outcome, ended_rows
from mlpexp.sweep.time_left import TimeLeft
from mlpexp.training.engine_choice import cannot_be_compiled
from mlpexp.training.planner import Plan

NAMED = 10  # failures that are named one by one
SHOWN = 5  # configurations in the table of the best
WIDE = 100  # columns of a terminal that has room for three metrics with their intervals


class Screen:
    """The terminal output of a sweep: nothing if `quiet`, for use as a library; the bar only if `brief`."""

    def __init__(self, *, quiet: bool = False, brief: bool = False) -> None:
        self._brief = brief
        self._console = Console(quiet=quiet)
        self._errors = Console(stderr=True, quiet=quiet)
        self._progress: Any = None
        self._best: float | None = None
        self._monitor = ""
        self._failures = 0
        self._left: TimeLeft | None = None
        self._trained: dict[int, float] = {}  # of the units that are under way
        self._written: Counter[int] = Counter()
        self._done = 0
        self._shown_s = -math.inf

    @contextmanager
    def showing(self, sweep: Sequence[Job], planned: Plan, left: TimeLeft) -> Iterator[None]:
        """Print the plan and show a progress bar while the block runs.

        Args:
            left: is told of all progress, and says how long it still takes.
        """
        if not self._brief:
            self._console.print(plan_line(sweep, planned), highlight=False)
            for reason, count in Counter(planned.alone.values()).items():
                self._console.print(f"{count:,} of them train alone: {reason}", highlight=False)
        columns = (
            TextColumn("training"),
            BarColumn(bar_width=16),  # all of it in 80 columns
            TextColumn("{task.percentage:.0f} %, {task.fields[done]:,} of {task.total:,} runs"),
            _Left(left),
            TextColumn("{task.fields[best]}"),
            TextColumn("{task.fields[failures]}", style="red"),
        )
        disable = not sys.stderr.isatty()
        bar: Any = Progress(*columns, console=self._errors, disable=disable, transient=self._brief)
        if in_notebook():
            bar = NotebookProgress("{done:,} of {total:,} runs  {left}  {best}  {failures}", left.seconds)
        self._left = left
        with bar as self._progress:
            self._task = self._progress.add_task("", total=len(sweep), done=0, best="", failures="")
            try:
                yield
            finally:
                self._move(every_s=0)

    def explain(self, sweep: Sequence[Job], left: Sequence[Job], state: str, planned: Plan | None) -> None:
        """Print what the same command would do without `dry_run=true`."""
        if state:
            self._console.print(state, highlight=False)
        if planned is None:
            self._console.print(f"nothing to train: all {len(sweep):,} runs are done", highlight=False)
            return
        self._console.print(plan_line(left, planned), highlight=False)
        for reason, count in Counter(planned.alone.values()).items():
            self._console.print(f"{count:,} would train alone: {reason}", highlight=False)
        if planned.stacks:
            memory = max(stack.memory_bytes for stack in planned.stacks) / 2**20
            self._console.print(f"the largest stack needs about {memory:,.0f} MiB", highlight=False)
        self._console.print("dry run: nothing was trained or written", highlight=False)

    def progress(self, unit: int, runs: float) -> None:
        """Note how much of a unit, named by its origin, is trained, in runs."""
        self._trained[unit] = runs
        if self._left is not None:
            self._left.trained(unit, runs)
        self._move()

    def finished(self, unit: int, outcome: Outcome) -> None:
        """Note that a run of a unit is written."""
        self._written[unit] += 1
        self._done += 1
        if self._written[unit] >= self._trained.get(unit, math.inf):
            del self._trained[unit]
        if self._left is not None:
            self._left.written(unit)
        result = outcome.result
        self._failures += outcome.error is not None
        if result is not None and math.isfinite(result.objective):
            better = max if higher_is_better(result.monitor) else min
            if self._best is None or better(self._best, result.objective) != self._best:
                self._best, self._monitor = result.objective, result.monitor
        self._move()

    def _move(self, every_s: float = 0.05) -> None:
        """Bring the bar up to date, at most so often: thousands of runs end at once."""
        now = time.monotonic()
        if self._progress is None or now < self._shown_s + every_s:
            return
        self._shown_s = now
        under_way = sum(max(0.0, runs - self._written[unit]) for unit, runs in self._trained.items())
        best = "" if self._best is None else f"best {self._monitor} {self._best:.4f}"
        failures = f"{self._failures:,} failed" if self._failures else ""
        self._progress.update(
            self._task, completed=self._done + under_way, done=self._done, best=best, failures=failures
        )

    def conclude(self, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
        """Print the best configurations, the failures and the next commands."""
        _show_ranking(self._console, sweep, outcomes, directory)
        left = Counter(end.result.epochs for end in outcomes if end.result and end.result.status == "stopped")
        if left:
            text = ", ".join(f"{count:,} after epoch {epoch}" for epoch, count in sorted(left.items()))
            going = sum(end.result is not None and end.result.status in FINITE for end in outcomes)
            self._console.print(
                f"of {len(sweep):,} runs {text} left; {going:,} trained to the end", highlight=False, soft_wrap=True
            )
        for status, text in (("chance", MARK), ("diverged", "diverged")):
            having = [
                run for run, end in zip(sweep, outcomes, strict=True) if end.result and end.result.status == status
            ]
            if having:
                some = "; ".join(run.directory.name for run in having[:3])
                more = f" and {len(having) - 3:,} more" if len(having) > 3 else ""
                advice = LIKELY_CAUSES if status == "chance" else "another optimizer.lr may help"
                verb = "" if status == "diverged" else "is " if len(having) == 1 else "are "
                self.warn(f"{len(having):,} of {len(sweep):,} runs {verb}{text} ({some}{more}); {advice}")
        notes = Counter(end.result.message for end in outcomes if end.result and end.result.status == "ok")
        for message, count in notes.items():
            if message:
                self.warn(f"{count:,} of {len(sweep):,} runs: {message}")
        failed = [(run, end.error) for run, end in zip(sweep, outcomes, strict=True) if end.error is not None]
        for run, error in failed[:NAMED]:
            self._errors.print(
                f"failed: {run.log or run.directory}: {described(error)}", markup=False, highlight=False, soft_wrap=True
            )
        if len(failed) > NAMED:
            self.warn(f"… and {len(failed) - NAMED:,} more failed runs; results.csv names all")
        place = str(_relative(directory))
        table = all(run.config.record == "table" for run in sweep)
        what = "runs.jsonl, with every run's epochs, are in" if table else "one directory per run are in"
        commands = [shell_commands.script("report.py", place)]
        commands += (
            []
            if table or not sweep[0].config.writes_events
            else [shell_commands.tool("tensorboard", "--logdir", place)]
        )
        self._console.print(
            "\n  ".join([f"\nresults.csv and {what} {place}\nNext:", *commands]),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def warn(self, line: str) -> None:
        """Print a line on standard error."""
        self._errors.print(line, markup=False, highlight=False, soft_wrap=True)


class _Left(ProgressColumn):
    """The time that is left, e.g. `0:02:10 left`."""

    def __init__(self, left: TimeLeft) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        seconds = self._left.seconds()
        return Text("-:--:-- left" if seconds is None else f"{timedelta(seconds=math.ceil(seconds))} left")


def plan_line(sweep: Sequence[Job], planned: Plan) -> str:
    """E.g. `1,080 runs: 27 architectures x 40 seeds, in 9 stacks (compiled engine)`."""
    swept = swept_keys([run.overrides for run in sweep])
    keys = [key for key in swept if key not in REPEATED]
    repeated = Counter(tuple(item for item in run.overrides if parse(item).key in keys) for run in sweep)
    counts = set(repeated.values())
    noun = "architecture" if keys and all(key.startswith("model.") for key in keys) else "configuration"
    what = f"{len(repeated):,} {noun}{'s' * (len(repeated) != 1)}"
    if len(counts) == 1 and counts != {1}:
        repeats = {"data.fold": "folds"}.get(next((key for key in swept if key in REPEATED), ""), "seeds")
        what += f" x {counts.pop():,} {repeats if len(swept) - len(keys) == 1 else 'runs'}"
    stacks = len(planned.stacks)
    line = f"{len(sweep):,} run{'s' * (len(sweep) != 1)}: {what}"
    if stacks:
        line += f", in {stacks:,} stack{'s' * (stacks != 1)}"
        line += _engines([sweep[run].config for stack in planned.stacks for run in stack.runs])
    return line


def _engines(configs: Sequence[Config]) -> str:
    """E.g. ` (compiled engine)`, and the reason where one is needed that is slower."""
    engines = sorted({cfg.stack.engine for cfg in configs} - {"auto"})
    if not engines:
        return ""
    by_torch = [cfg for cfg in configs if cfg.stack.engine == "torch"]
    reasons = Counter(cannot_be_compiled(cfg) for cfg in by_torch)
    reasons.pop(None, None)
    own = Counter(f"{cfg.model.target} is a module of your own" for cfg in configs if cfg.model.target)
    reasons.update(own)
    why = f": {str(reasons.most_common(1)[0][0]).partition(';')[0]}" if reasons else ""
    return f" ({' and '.join(engines)} engine{why})"


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show_ranking(console: Console, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
    """Print the best configurations; nothing where no run has finite numbers."""
    identities = [end.result.identity if end.result else None for end in outcomes if end.is_known]
    table = from_columns(directory, results_table.columns(ended_rows(sweep, outcomes, directory)), identities)
    monitor = sweep[0].config.monitor
    data = {f"data.{key}": {str(value)} for key, value in vars(sweep[0].config.data).items()}
    repetitions = blocks.of(table, data)
    monitor = usual_metric(table, monitor)
    ranking = rank(repetitions, monitor)
    if ranking.best is None:
        return
    metric = headline(table.values) if monitor == "val/loss" else monitor.removeprefix("val/")
    wanted = dict.fromkeys((monitor, f"val/{metric}", f"test/{metric}"))
    metrics = [name for name in wanted if name in ranking.means and math.isfinite(_best(ranking, name))]
    if console.width < WIDE and len(metrics) > 2:
        metrics.remove(f"val/{metric}")
    repeated = repetitions.name if (ranking.blocks > 1).any() else ""
    console.print(wrapped(_title(table, ranking, repeated)), highlight=False, soft_wrap=True)
    grid = Table(header_style="bold")
    if table.factors:
        grid.add_column("configuration", overflow="fold")
    if (ranking.finished > 1).any() or (ranking.finished < ranking.runs).any():
        grid.add_column("runs", justify="right", no_wrap=True)
    for name in metrics:
        grid.add_column(name, justify="right", no_wrap=True)
    for c in ranking.ranked[:SHOWN]:
        run = table.members[c][0]
        cells = [escape(" ".join(_setting(key, key.levels[key.codes[run]]) for key in table.factors))]
        runs = f"{ranking.finished[c]}" + f" of {ranking.runs[c]}" * bool(ranking.finished[c] < ranking.runs[c])
        if ranking.diverged[c]:
            runs += f", {ranking.diverged[c] / ranking.runs[c]:.0%} diverged"
        cells = cells[: len(table.factors)] + [runs] * (len(grid.columns) - len(metrics) - bool(table.factors))
        grid.add_row(*cells, *(_spelled(ranking.estimate(c, name)) for name in metrics))
    console.print(grid)
    redraws_test = sweep[0].config.data.test_path is None
    covers = covered_in_words([key.name for key in table.seeds], redraws_test)
    for sentence in [*[f"Each interval {covers}."] * bool(repeated), *table.repeat_sentences()]:
        console.print(wrapped(sentence), markup=False, highlight=False, soft_wrap=True)


def _best(ranking: Ranking, metric: str) -> float:
    assert ranking.best is not None
    return float(ranking.means[metric][ranking.best])


def _title(table: SweepTable, ranking: Ranking, repeated: str) -> str:
    interval = ", with 95 % intervals" if repeated else ""
    if repeated not in ("", "seeds"):
        interval += f" over {repeated}"
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
    return f"best of {count:,} configurations{which} by {'mean ' * bool(repeated)}{ranking.by}{interval}"


def _setting(key: Key, value: str) -> str:
    """`width=64`, or `tanh` alone: a word is understood without its key."""
    is_word = value.isidentifier() and value.lower() not in ("true", "false", "null", "none", "nan", "inf", "default")
    return value if is_word else f"{key.label}={value}"


def _spelled(value: Estimate) -> str:
    return f"{value.mean:.4f}" + (f" ± {value.half:.4f}" if math.isfinite(value.half) else "")
