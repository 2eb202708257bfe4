"""An evaluation in the terminal: the main metrics, a row for each class, where the files are."""

import math

from rich.markup import escape
from rich.table import Table

from mlpexp.evaluation.classification_metrics import Metrics
from mlpexp.evaluation.evaluate import Evaluation
from mlpexp.evaluation.value_evaluation import ValueEvaluation
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.metric_columns import title
from mlpexp.runtime import shell_commands
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import say, wrapped

MAX_ROWS = 40  # classes; all are in per_class.csv


def show(found: Evaluation) -> None:
    """Print it."""
    console, metrics = Console(highlight=False), found.metrics
    count = len(found.samples.labels)
    samples = f"{count:,} sample{'s' * (count != 1)}"
    console.print(f"[bold]{escape(str(found.samples.title))}[/bold], {samples}; {found.run.weights}")
    loss = found.run.cfg.loss_function.name
    if isinstance(metrics, ValueEvaluation):
        console.print(", ".join(f"{title(name, [loss])} {_number(value)}" for name, value in metrics.measured.items()))
        console.print(metrics.shown())
    else:
        _show_classes(console, metrics, LOSSES[loss].unit)
    if found.same:
        console.print(f"{_same(found)} are those of result.json, to the last bit")
    for remark in found.remarks:
        console.print(f"[yellow]note:[/yellow] {escape(remark)}")
    # no console: a path must not be broken, and its brackets are not markup
    say()
    say(wrapped(f"{len(found.images)} figures, tables as CSV and metrics.json are in {found.directory}"))
    say("Next:")
    say(f"  {shell_commands.tool('tensorboard', '--logdir', str(found.directory))}")


def _same(found: Evaluation) -> str:
    names = [title(name) if name != "loss" else name for name in found.run.cfg.metric_names]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _show_classes(console: Console, metrics: Metrics, unit: str) -> None:
    console.print(_summary(metrics, unit))
    console.print(_by_class(metrics))
    if len(metrics.classes) > MAX_ROWS:
        console.print(f"[dim]and {len(metrics.classes) - MAX_ROWS} more classes, in per_class.csv[/dim]")
    if mistakes := metrics.frequent_mistakes():
        listed = [f"{true} taken for {guess} ({count})" for true, guess, count in mistakes]
        console.print(f"most frequent mistakes: {escape(', '.join(listed))}")


def _summary(m: Metrics, unit: str) -> str:
    """The metrics of all samples together, in two lines."""
    interval = f"95 % interval {m.acc_low:.4f} to {m.acc_high:.4f}"
    return (
        f"accuracy [bold]{m.acc:.4f}[/bold] ({interval}), loss [bold]{_number(m.loss)}[/bold] {unit}\n"
        f"balanced accuracy {_number(m.balanced_acc)}, macro F1 {_number(m.macro_f1)}, "
        f"calibration error {_number(m.ece)}, Brier score {_number(m.brier)}"
    )


def _by_class(m: Metrics) -> Table:
    table = Table(header_style="bold")
    table.add_column("class")
    for name in ("precision", "recall", "F1", "samples", "predicted"):
        table.add_column(name, justify="right")
    for entry in m.classes[:MAX_ROWS]:
        shares = [_number(value) for value in (entry.precision, entry.recall, entry.f1)]
        table.add_row(escape(" ".join(entry.name.split())), *shares, str(entry.support), str(entry.predicted))
    return table


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
