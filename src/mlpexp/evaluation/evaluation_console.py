"""An evaluation in the terminal: the numbers that matter, a row for each class, where the files are."""

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlpexp.evaluation.classification_metrics import Measures
from mlpexp.evaluation.evaluate import Evaluation
from mlpexp.runtime import shell_commands

ROWS = 40  # classes that a terminal shows; the rest is in per_class.csv


def show(found: Evaluation) -> None:
    """Print it."""
    console, m = Console(highlight=False), found.measures
    samples = f"{m.samples:,} sample{'s' * (m.samples != 1)}"
    console.print(f"[bold]{escape(str(found.material.title))}[/bold], {samples}; {found.run.weights}")
    console.print(_summary(m))
    console.print(_by_class(m))
    if len(m.classes) > ROWS:
        console.print(f"[dim]and {len(m.classes) - ROWS} more classes, in per_class.csv[/dim]")
    if mix_ups := m.mix_ups():
        told = [f"{true} taken for {guess} ({count})" for true, guess, count in mix_ups]
        console.print(f"most frequent mistakes: {escape(', '.join(told))}")
    if found.same:
        console.print("loss and accuracy are those of result.json, to the last bit")
    for remark in found.remarks:
        console.print(f"[yellow]note:[/yellow] {escape(remark)}")
    # plain prints: a path must not be wrapped, and its brackets are no markup
    print(f"\n{len(found.pictures)} pictures, tables as CSV and metrics.json are in {found.directory}. Next:")
    print(f"  {shell_commands.tool('tensorboard', '--logdir', str(found.directory))}")


def _summary(m: Measures) -> str:
    """The measures of all samples together, in two lines."""
    interval = f"95 % interval {m.acc_low:.4f} to {m.acc_high:.4f}"
    return (
        f"accuracy [bold]{m.acc:.4f}[/bold] ({interval}), loss [bold]{_number(m.loss)}[/bold] nats\n"
        f"balanced accuracy {_number(m.balanced_acc)}, macro F1 {_number(m.macro_f1)}, "
        f"calibration error {_number(m.ece)}, Brier score {_number(m.brier)}"
    )


def _by_class(m: Measures) -> Table:
    table = Table(header_style="bold")
    table.add_column("class")
    for name in ("precision", "recall", "F1", "samples", "predicted"):
        table.add_column(name, justify="right")
    for one in m.classes[:ROWS]:
        shares = [_number(value) for value in (one.precision, one.recall, one.f1)]
        table.add_row(escape(" ".join(one.name.split())), *shares, str(one.support), str(one.predicted))
    return table


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
