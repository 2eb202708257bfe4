"""A run's whole event file, pictures aside: its settings, its curves, its final metrics, how it ended.

Who writes live (a run alone) and who writes once at the end (a run of a stack) use the same three parts, so
that TensorBoard cannot tell the two apart.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from mlpexp.tracking.custom_scalars import train_against_validation
from mlpexp.tracking.events import Event, scalars, text
from mlpexp.tracking.layer_columns import COLUMNS, START
from mlpexp.tracking.session_events import Hparam, Status, session_end, session_start

CURVES = ("train/", "val/")


def run_events(
    history: Sequence[Mapping[str, float]],
    hparams: Mapping[str, Hparam],
    final: Mapping[str, float],
    status: Status,
    wall_times: Sequence[float],
    *,
    final_epoch: int | None = None,
    note: str = "",
    layer_rows: Sequence[Sequence[float | str]] = (),
) -> list[Event]:
    """The events of one finished run, in the order in which a live run writes them.

    Args:
        history: one mapping from tag to value per epoch, e.g. `{"train/loss": 0.3, "val/acc": 0.9}`.
        hparams: what the run was asked to do, e.g. `{"optimizer.lr": 0.1, "model.activation": "tanh"}`.
        final: the metrics at the end under their own tags, e.g. `{"test/loss": 0.2, "test/acc": 0.95}`.
        wall_times: seconds since 1970, one more than epochs: the start, then the end of each epoch.
        final_epoch: the epoch whose weights gave `final`; the last one unless told otherwise.
        note: for a run that did not end well, why, in a few words of Markdown.
        layer_rows: where layers were inspected, see `layers_event`; of all epochs, in order.
    """
    events = start_events(hparams, wall_times[0])
    inside = {epoch: list(rows) for epoch, rows in groupby(layer_rows, key=itemgetter(0))}
    if START in inside:
        events.append(layers_event(START, inside[START], wall_times[0]))
    for epoch, (values, wall_time) in enumerate(zip(history, wall_times[1:], strict=True)):
        events.append(epoch_event(epoch, values, wall_time))
        if epoch in inside:
            events.append(layers_event(epoch, inside[epoch], wall_time))
    last_epoch = max(len(history) - 1, 0)
    final_step = last_epoch if final_epoch is None else final_epoch
    return events + end_events(final_step, final, status, wall_times[-1], note=note)


def start_events(hparams: Mapping[str, Hparam], wall_time: float) -> list[Event]:
    """Before the first epoch: the HParams row and the Custom Scalars page."""
    return [session_start(hparams, wall_time), train_against_validation(wall_time)]


def epoch_event(epoch: int, values: Mapping[str, float], wall_time: float) -> Event:
    """The metrics of one epoch, from 0, at the time of its end."""
    return scalars(epoch, values, wall_time)


def layers_event(epoch: int, rows: Sequence[Sequence[float | str]], wall_time: float) -> Event:
    """One epoch's numbers of each layer: rows of `layers.csv`.

    The tags begin with a letter behind `val`: the HParams page shows the first few metrics by name.
    """
    values: dict[str, float] = {}
    for column, kind in enumerate(COLUMNS, start=2):
        values |= {f"within/{kind}/layer_{row[1]}": float(row[column]) for row in rows if row[column] != ""}
    return scalars(epoch, values, wall_time)


def end_events(
    step: int, final: Mapping[str, float], status: Status, wall_time: float, *, note: str = ""
) -> list[Event]:
    """After the last epoch: the final metrics, a line of text if the run did not end well, the status.

    The metrics of the chosen epoch are `best/train/loss`, ..., those of the test `test/loss`, ...
    """
    # under names of their own: the curves have these tags for each epoch already
    values = {f"best/{tag}" if tag.startswith(CURVES) else tag: value for tag, value in final.items()}
    events = [epoch_event(step, values, wall_time)] if values else []
    if status != "ok":
        events.append(text("status", step, f"**{status}**: {note}" if note else f"**{status}**", wall_time))
    return [*events, session_end(status, wall_time)]
