"""The evaluation of an ensemble in the terminal: scores of ensemble and members with intervals, where the files are."""

import math

from rich.markup import escape
from rich.table import Table

from mlpexp.evaluation.ensemble_scores import Estimate
from mlpexp.evaluation.evaluate_ensemble import DIFFERENCE, Written
from mlpexp.nn.metrics import METRICS
from mlpexp.runtime import shell_commands
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import say, wrapped

MAX_MEMBERS = 20  # rows; all are in members.csv


def show(written: Written) -> None:
    """Print it."""
    found, console = written.evaluation, Console(highlight=False)
    chosen, count = found.ensemble, len(found.samples.labels)
    samples = f"{count:,} sample{'s' * (count != 1)}"
    console.print(f"[bold]{escape(str(found.samples.title))}[/bold], {samples}; {escape(chosen.weights)}")
    table = Table(header_style="bold")
    summary = found.summary()
    table.add_column("", overflow="fold")
    for column in summary:
        table.add_column(column, justify="right")
    for name in found.scores:
        metric, _, target = name.partition(" ")
        title = f"{METRICS[metric].title}{f' of {target}' if target else ''}"
        cells = [_cell(scores[name], signed=column == DIFFERENCE) for column, scores in summary.items()]
        table.add_row(escape(title), *cells)
    console.print(table)
    listed = []
    for member in chosen.members:
        picks = f", {member.picks} picks" if member.picks > 1 else ""
        listed.append(f"{escape(member.name)} ({chosen.metric} {member.validation:.4f}{picks})")
    more = f" and {len(listed) - MAX_MEMBERS:,} more" if len(listed) > MAX_MEMBERS else ""
    console.print(f"members: {', '.join(listed[:MAX_MEMBERS])}{more}")
    console.print("95 % intervals by resampling these samples; no result of the test part has chosen a member")
    for remark in found.remarks:
        console.print(f"[yellow]note:[/yellow] {escape(remark)}")
    say()
    images = f"{len(written.images)} figure{'s' * (len(written.images) != 1)}"
    say(wrapped(f"{images}, members.csv, further tables and metrics.json are in {written.directory}"))
    say("Next:")
    say(f"  {shell_commands.tool('tensorboard', '--logdir', str(written.directory))}")


def _cell(estimate: Estimate, *, signed: bool) -> str:
    def number(value: float) -> str:
        if not math.isfinite(value):
            return "–"
        digits = f"{value:+.4f}" if signed else f"{value:.4f}"
        return digits if abs(value) < 1000 else f"{value:{'+' if signed else ''}.4g}"

    return f"{number(estimate.value)}\n[dim]{number(estimate.low)} to {number(estimate.high)}[/dim]"
