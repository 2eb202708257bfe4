"""The terminal output of a sweep: its plan, a progress bar, the best configurations, the next commands."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlpexp.analysis.ranking_table import print_ranking
from mlpexp.analysis.sweep_table import from_columns
from mlpexp.config.overrides import parse, swept_keys
from mlpexp.config.schema import Config
from mlpexp.nn.chance_level import LIKELY_CAUSES, MARK
from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import described
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import counted
from mlpexp.store import results_table
from mlpexp.store.run_directory import FINITE
from mlpexp.store.sweep_manifest import REPEATED
from mlpexp.sweep.jobs import Job, Outcome, ended_rows
from mlpexp.sweep.progress_bar import SweepBar
from mlpexp.sweep.sweep_progress import SweepProgress
from mlpexp.training.engine_choice import cannot_be_compiled
from mlpexp.training.planner import Plan

NOTHING_DONE = "dry run: nothing was trained or written"
NAMED = 10  # failures that are named one by one


class Screen:
    """The terminal output of a sweep.

    Args:
        search_left: seconds until the end of the search that the runs are a part of, of which only the progress bar is
            shown; None: they are all.
    """

    def __init__(self, search_left: Callable[[SweepProgress], float | None] | None = None) -> None:
        self._search_left = search_left
        self._console, self._errors = Console(), Console(stderr=True)
        self._bar: SweepBar | None = None
        self._progress: SweepProgress | None = None
        self.hydra_files_s: float | None = None
        """the median of what Hydra's files of a run have taken in this command, in seconds"""

    @contextmanager
    def showing(
        self, sweep: Sequence[Job], planned: Plan, progress: SweepProgress, known: Iterable[Outcome] = ()
    ) -> Iterator[None]:
        """Print the plan and show a progress bar while the block runs.

        Args:
            progress: notes what is trained and written.
            known: outcomes of runs that have ended before.
        """
        if self._search_left is None:
            alone = Counter(planned.alone.values())
            self.say(
                plan_line(sweep, planned),
                *(f"{count:,} of them train alone: {reason}" for reason, count in alone.items()),
            )
        self._progress = progress
        with SweepBar(progress, len(sweep), self._errors, known, self._search_left) as self._bar:
            yield

    def progress(self, unit: int, trained: float, written: int = 0, seconds: float | None = None) -> None:
        """See `Watcher.progress`."""
        if self._progress is not None and self._bar is not None:
            self._progress.note(unit, trained, written, seconds)
            self._bar.draw()

    def finished(self, unit: int, outcome: Outcome) -> None:
        """Note that a run of a unit is written."""
        if self._progress is not None and self._bar is not None:
            self._progress.note_written(unit)
            self._bar.note(outcome)
            self._bar.draw()

    def conclude(self, sweep: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> None:
        """Print the best configurations, the failures and the next commands."""
        identities = [end.result.identity if end.result else None for end in outcomes if end.is_known]
        table = from_columns(directory, results_table.columns(ended_rows(sweep, outcomes, directory)), identities)
        print_ranking(self._console, table, sweep[0].config)
        ended = [(run, end.result) for run, end in zip(sweep, outcomes, strict=True) if end.result is not None]
        if stopped := Counter(result.epochs for _, result in ended if result.status == "stopped"):
            text = ", ".join(f"{count:,} after epoch {epoch}" for epoch, count in sorted(stopped.items()))
            going = sum(result.status in FINITE for _, result in ended)
            self.say(
                f"{stopped.total():,} of {counted(len(sweep), 'run')} were stopped early: {text}; "
                f"{going:,} trained to the end"
            )
        for status, text, advice in (
            ("chance", MARK, LIKELY_CAUSES),
            ("diverged", "diverged", "another optimizer.lr may help"),
        ):
            if names := [run.directory.name for run, result in ended if result.status == status]:
                more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
                verb = "" if status == "diverged" else "is " if len(names) == 1 else "are "
                some = f"{'; '.join(names[:3])}{more}"
                self.warn(f"{len(names):,} of {counted(len(sweep), 'run')} {verb}{text} ({some}); {advice}")
        notes = Counter(result.message for _, result in ended if result.status == "ok" and result.message)
        for message, count in notes.items():
            self.warn(f"{count:,} of {counted(len(sweep), 'run')}: {message}")
        failed = [(run, end.error) for run, end in zip(sweep, outcomes, strict=True) if end.error is not None]
        for run, error in failed[:NAMED]:
            self.warn(f"failed: {run.log or run.directory}: {described(error)}")
        if len(failed) > NAMED:
            self.warn(f"… and {len(failed) - NAMED:,} more failed runs; results.csv names all")
        self._say_next(sweep, str(shell_commands.short_path(directory)))

    def _say_next(self, sweep: Sequence[Job], place: str) -> None:
        in_table = all(run.config.record == "table" for run in sweep)
        files = "runs.jsonl, with every run's epochs, are in" if in_table else "one directory per run are in"
        commands = [] if sweep[0].config.report else [shell_commands.script("report.py", place)]
        if not in_table and sweep[0].config.writes_events:
            commands.append(shell_commands.tool("tensorboard", "--logdir", place))
        following = ["Next:", *(f"  {command}" for command in commands)] if commands else []
        self.say(f"\nresults.csv and {files} {place}", *following)

    def say(self, *lines: str) -> None:
        """Print lines on standard output."""
        for line in lines:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a line on standard error."""
        self._errors.print(line, markup=False, highlight=False, soft_wrap=True)


def explanation(sweep: Sequence[Job], new: Sequence[Job], state: str, planned: Plan | None) -> list[str]:
    """What a sweep would do, in lines.

    Args:
        new: the runs that are not done.
        state: `Survey.sentence`.
        planned: how they are stacked; None where none is left.
    """
    lines = [state] if state else []
    if planned is None:
        return [*lines, f"nothing to train: {'the run is' if len(sweep) == 1 else f'all {len(sweep):,} runs are'} done"]
    lines.append(plan_line(new, planned))
    lines += [f"{count:,} would train alone: {reason}" for reason, count in Counter(planned.alone.values()).items()]
    if planned.stacks:
        memory = max(stack.memory_bytes for stack in planned.stacks) / 2**20
        lines.append(f"the largest stack needs about {memory:,.0f} MiB")
    return [*lines, NOTHING_DONE]


def plan_line(sweep: Sequence[Job], planned: Plan) -> str:
    """E.g. `1,080 runs: 27 architectures x 40 seeds, in 9 stacks (compiled engine)`."""
    swept = swept_keys([run.overrides for run in sweep])
    keys = [key for key in swept if key not in REPEATED]
    repeated = Counter(tuple(item for item in run.overrides if parse(item).key in keys) for run in sweep)
    counts = set(repeated.values())
    noun = "architecture" if keys and all(key.startswith("model.") for key in keys) else "configuration"
    product = f"{counted(len(repeated), noun)}"
    if len(counts) == 1 and counts != {1}:
        repeats = {"data.fold": "folds"}.get(next((key for key in swept if key in REPEATED), ""), "seeds")
        product += f" x {counts.pop():,} {repeats if len(swept) - len(keys) == 1 else 'runs'}"
    stacks = len(planned.stacks)
    line = f"{counted(len(sweep), 'run')}: {product}"
    if stacks:
        line += f", in {counted(stacks, 'stack')}"
        line += _engines([sweep[run].config for stack in planned.stacks for run in stack.runs])
    return line


def _engines(configs: Sequence[Config]) -> str:
    """E.g. ` (compiled engine)`, with the reason if a slower engine is needed."""
    engines = sorted({cfg.stack.engine for cfg in configs} - {"auto"})
    if not engines:
        return ""
    by_torch = [cfg for cfg in configs if cfg.stack.engine == "torch"]
    reasons = Counter(cannot_be_compiled(cfg) for cfg in by_torch)
    reasons.pop(None, None)
    reasons.update(f"{cfg.model.target} is a module of your own" for cfg in configs if cfg.model.target)
    why = f": {str(reasons.most_common(1)[0][0]).partition(';')[0]}" if reasons else ""
    if further := len(reasons) - 1 if reasons else 0:
        why += f", and {counted(further, 'other reason')}"
    return f" ({' and '.join(engines)} engine{why})"
