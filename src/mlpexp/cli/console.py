"""The terminal output of a single run: a progress bar, a table of final metrics, the next commands."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mlpexp.config.checks import BUILT
from mlpexp.config.overrides import parse, spell
from mlpexp.nn.metric_columns import PARTS, all_parts, in_order, title
from mlpexp.runtime import shell_commands
from mlpexp.runtime.notebook_progress import NotebookProgress, in_notebook
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import counted, say
from mlpexp.store.file_names import RESULT
from mlpexp.store.run_directory import Result

BAR_METRICS = 3  # beside the progress bar


def bar(max_epochs: int) -> Callback | None:
    """A progress bar over epochs; None where standard error is neither a terminal nor a notebook."""
    return EpochBar(max_epochs) if sys.stderr.isatty() or in_notebook() else None


class EpochBar(Callback):
    """One line, redrawn after each epoch: validation metrics, epochs done, time left."""

    def __init__(self, max_epochs: int) -> None:
        self._progress: Any = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
        )
        if in_notebook():
            self._progress = NotebookProgress("{completed} of {total} epochs  {left}  {state}")
        self._task = self._progress.add_task("", total=max_epochs, state="")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._progress.update(self._task, completed=trainer.current_epoch)
        self._progress.start()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        metrics: dict[str, Any] = module.metrics  # type: ignore[assignment]
        names = [name for name in in_order(metrics) if name.startswith("val/")][:BAR_METRICS]
        state = "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
        self._progress.update(self._task, completed=trainer.current_epoch + 1, state=state)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._progress.stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._progress.stop()


def show(
    result: Result,
    directory: Path,
    more_epochs: int | None,
    overrides: Sequence[str] = (),
    loss: str = "cross_entropy",
) -> None:
    """The run's final table, where its files are, and two useful next commands.

    Args:
        more_epochs: a larger number of epochs, if the run can be continued to it.
        overrides: of the run, to be kept in the next command.
        loss: that was minimised.
    """
    console = Console()
    console.print(_title(result), style="italic", highlight=False)
    table = Table(header_style="bold")
    table.add_column("")
    names = list(dict.fromkeys(column.partition("/")[2] for column in all_parts(result.metrics)))
    for metric in names:
        table.add_column(title(metric, [loss]), justify="right")
    for part, name in PARTS.items():
        if f"{part}/loss" in result.metrics:
            table.add_row(name, *(_number(result.metrics.get(f"{part}/{metric}", math.nan)) for metric in names))
    console.print(table)
    seconds = f"{result.seconds['fit']:.1f} s of training"
    if "epoch" in result.seconds:
        seconds += f", {1000 * result.seconds['epoch']:.0f} ms an epoch (median after the first)"
    console.print(f"[dim]{result.num_parameters:,} parameters, {seconds}[/dim]")
    # plain prints: a path must not be wrapped, and its brackets are no markup
    say(f"\nEverything is in {directory} ({RESULT}, figures, checkpoints)", "Next:")
    say(f"  {shell_commands.tool('tensorboard', '--logdir', str(directory))}")
    if more_epochs is not None:
        arguments = [f"resume={spell(str(directory))}", f"trainer.max_epochs={more_epochs}", *built(overrides)]
    else:
        arguments = ["-m", *overrides, "seed=range(5)"]
    say(f"  {shell_commands.script('train.py', *arguments)}")


def built(overrides: Sequence[str]) -> list[str]:
    """The overrides of callbacks and loggers of the user, which a continued run needs again: no file records them."""
    return [override.text for override in map(parse, overrides) if override.key.startswith(BUILT)]


def _title(result: Result) -> str:
    if result.epoch is None:
        return f"{result.status} after {counted(result.epochs, 'epoch')}"
    is_best = result.metrics.get(result.monitor) == result.objective
    kind = f"the best by {result.monitor}" if is_best else "the last"
    return f"epoch {result.epoch}, {kind}, of epochs 0 to {result.epochs - 1}"


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else str(value)
