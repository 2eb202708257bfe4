"""An evaluation of a run or of an ensemble in the terminal: the main metrics, a table, where the files are."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from mlpexp.evaluation.classification_metrics import Metrics
from mlpexp.evaluation.ensemble_scores import ScoreEstimate
from mlpexp.evaluation.evaluate import Evaluation
from mlpexp.evaluation.evaluate_ensemble import DIFFERENCE, EnsembleEvaluation
from mlpexp.evaluation.evaluation_data import EvaluationSamples
from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.evaluation.value_evaluation import ValueEvaluation
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.metric_columns import title
from mlpexp.nn.metrics import METRICS
from mlpexp.runtime import shell_commands
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import counted, say, wrapped

MAX_ROWS = 40  # classes; all are in per_class.csv
MAX_MEMBERS = 20  # all are in members.csv


def show(evaluation: Evaluation) -> None:
    """Print the evaluation of a run."""
    metrics, loss = evaluation.metrics, evaluation.run.cfg.loss_function.name
    with _with_heading(evaluation.samples, evaluation.run, evaluation.remarks) as console:
        if isinstance(metrics, ValueEvaluation):
            values = metrics.measured.items()
            console.print(", ".join(f"{title(name, [loss])} {_number(value)}" for name, value in values))
            console.print(metrics.shown())
        else:
            _show_classes(console, metrics, LOSSES[loss].unit)
        if evaluation.same:
            console.print(f"{_equal_metrics(evaluation)} are those of result.json, to the last bit")
    _show_directory(f"{len(evaluation.images)} figures, tables as CSV and metrics.json", evaluation.directory)


def show_ensemble(evaluation: EnsembleEvaluation) -> None:
    """Print the evaluation of an ensemble: its scores and those of its members, with intervals."""
    with _with_heading(evaluation.samples, evaluation.ensemble, evaluation.remarks) as console:
        summary = evaluation.summary()
        table = Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # of 80 columns
        table.add_column("")
        for column in summary:
            table.add_column(column, justify="right")
        for name in evaluation.scores:
            metric, _, target = name.partition(" ")
            cells = [_interval(scores[name], signed=column == DIFFERENCE) for column, scores in summary.items()]
            table.add_row(escape(f"{METRICS[metric].title}{f' of {target}' if target else ''}"), *cells)
        console.print(table)
        console.print("95 % intervals by resampling these samples; no result of the test part has chosen a member")
        console.print(f"members by {evaluation.ensemble.metric}:")
        for member in evaluation.ensemble.members[:MAX_MEMBERS]:
            picks = f", {member.picks} picks" if member.picks > 1 else ""
            console.print(f"  {member.validation:.4f}  {escape(member.name)}{picks}", soft_wrap=True)
        if (more := len(evaluation.ensemble.members) - MAX_MEMBERS) > 0:
            console.print(f"  and {more:,} more, in members.csv")
    assert evaluation.directory is not None, "only a written evaluation is shown"
    images = counted(len(evaluation.images), "figure")
    _show_directory(f"{images}, members.csv, further tables and metrics.json", evaluation.directory)


@contextmanager
def _with_heading(samples: EvaluationSamples, run: TrainedModel, remarks: Sequence[str]) -> Iterator[Console]:
    """Print which samples and weights were evaluated, then what the block prints, then the remarks."""
    console, count = Console(highlight=False), len(samples.labels)
    description = f"{counted(count, 'sample')}; {escape(run.weights_description)}"
    console.print(f"[bold]{escape(str(samples.title))}[/bold], {description}")
    yield console
    for remark in remarks:
        console.print(f"[yellow]note:[/yellow] {escape(remark)}")


def _show_directory(files: str, directory: Path) -> None:
    # no console: a path must not be broken, and its brackets are not markup
    say()
    say(wrapped(f"{files} are in {directory}"))
    say("Next:")
    say(f"  {shell_commands.tool('tensorboard', '--logdir', str(directory))}")


def _equal_metrics(evaluation: Evaluation) -> str:
    names = [title(name) if name != "loss" else name for name in evaluation.run.cfg.metric_names]
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


def _interval(estimate: ScoreEstimate, *, signed: bool) -> str:
    value, low, high = (_number(number, "+" * signed) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value}\n[dim]{low} {high}[/dim]"


def _number(value: float, sign: str = "") -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:{sign}.4f}" if abs(value) < 1000 else f"{value:{sign}.4g}"
