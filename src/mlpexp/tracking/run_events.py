"""The events of a run: its settings, its curves, its final metrics, its status; figures are added elsewhere.

A run that is trained alone writes them live, a run of a stack once at the end; both use the same functions. No summary
of an experiment is written for the HParams page: without one TensorBoard derives the columns from the runs, so that
settings keep their types, and every scalar is a metric column with its last value.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Literal

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_RUNNING, STATUS_SUCCESS, STATUS_UNKNOWN
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from mlpexp.nn.diagnostics import LAYER_COLUMNS, START
from mlpexp.nn.metric_columns import columns, title
from mlpexp.tracking.events import Event, plain, scalars, string_tensor, text

CURVES = ("train/", "val/")
Hparam = bool | int | float | str
Status = Literal["ok", "chance", "diverged", "stopped", "failed", "interrupted", "running"]

STATUSES = {
    "ok": STATUS_SUCCESS,
    "chance": STATUS_SUCCESS,  # it was trained to its end, and its metrics are numbers
    "diverged": STATUS_FAILURE,
    "stopped": STATUS_SUCCESS,  # eliminated by halving, as intended
    "failed": STATUS_FAILURE,
    "interrupted": STATUS_UNKNOWN,  # neither success nor failure: it will be trained again
    "running": STATUS_RUNNING,
}


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
    titles: Sequence[tuple[str, str]] = (),
) -> list[Event]:
    """The events of one finished run, in the order in which a live run writes them.

    Args:
        history: one mapping from tag to value per epoch, e.g. `{"train/loss": 0.3, "val/acc": 0.9}`.
        hparams: the settings of the run, e.g. `{"optimizer.lr": 0.1, "model.activation": "tanh"}`.
        final: the metrics at the end under their own tags, e.g. `{"test/loss": 0.2, "test/acc": 0.95}`.
        wall_times: seconds since 1970, one more than epochs: the start, then the end of each epoch.
        final_epoch: the epoch whose weights gave `final`; by default the last one.
        note: for a run that did not end well, why, in a few words of Markdown.
        layer_rows: where layers were inspected, see `layers_event`; of all epochs, in order.
        titles: see `curve_titles`; by default of the metrics that every classification records.
    """
    events = start_events(hparams, wall_times[0], titles)
    inside = {epoch: list(rows) for epoch, rows in groupby(layer_rows, key=itemgetter(0))}
    if START in inside:
        events.append(layers_event(START, inside[START], wall_times[0]))
    for epoch, (values, wall_time) in enumerate(zip(history, wall_times[1:], strict=True)):
        events.append(scalars(epoch, values, wall_time))
        if epoch in inside:
            events.append(layers_event(epoch, inside[epoch], wall_time))
    last_epoch = max(len(history) - 1, 0)
    final_step = last_epoch if final_epoch is None else final_epoch
    return events + end_events(final_step, final, status, wall_times[-1], note=note)


def start_events(
    hparams: Mapping[str, Hparam], wall_time: float, titles: Sequence[tuple[str, str]] = ()
) -> list[Event]:
    """The events before the first epoch: the HParams row, and the Custom Scalars page with `titles` of its charts."""
    return [_session_start(hparams, wall_time), train_against_validation(wall_time, titles or curve_titles())]


def curve_titles(
    names: Sequence[str] | None = None, num_outputs: int = 0, loss: str = "cross_entropy"
) -> tuple[tuple[str, str], ...]:
    """The name of each metric in tags (see `nn/metric_columns.py`), and the title of its chart."""
    metrics = [column.removeprefix("val/") for column in columns("val", names=names, num_outputs=num_outputs)]
    return tuple((name, title(name, [loss])) for name in metrics)


def layers_event(epoch: int, rows: Sequence[Sequence[float | str]], wall_time: float) -> Event:
    """One epoch's numbers of each layer: rows of `layers.csv`.

    The tags begin with a letter behind `val`: the HParams page shows the first few metrics by name.
    """
    values: dict[str, float] = {}
    for column, kind in enumerate(LAYER_COLUMNS, start=2):
        values |= {f"within/{kind}/layer_{row[1]}": float(row[column]) for row in rows if row[column] != ""}
    return scalars(epoch, values, wall_time)


def end_events(
    step: int, final: Mapping[str, float], status: Status, wall_time: float, *, note: str = ""
) -> list[Event]:
    """The events after the last epoch: final metrics, a line of text unless the status is `ok`, the status.

    The metrics of the chosen epoch are `val_best/train/loss`, ..., a group that TensorBoard sorts behind the curves.
    """
    # under names of their own: the curves have these tags for each epoch already
    values = {f"val_best/{tag}" if tag.startswith(CURVES) else tag: value for tag, value in final.items()}
    events = [scalars(step, values, wall_time)] if values else []
    if status != "ok":
        events.append(text("status", step, f"**{status}**: {note}" if note else f"**{status}**", wall_time))
    return [*events, _session_end(status, wall_time)]


def confusion_table(counts: Sequence[Sequence[int]], class_names: Sequence[str], wall_time: float, step: int) -> Event:
    """A confusion matrix as text: `counts[t][p]` test samples of class t predicted as p; zeros stay blank."""
    names = [plain(name) for name in class_names]
    lines = ["| true \\\\ predicted | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name, row in zip(names, counts, strict=True):
        lines.append(f"| **{name}** | " + " | ".join(str(count or "") for count in row) + " |")
    right, total = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    caption = f"{right} of {total} test samples are right. Rows: the true class; columns: the predicted one."
    return text("confusion/test", step, f"{caption}\n\n" + "\n".join(lines), wall_time)


def train_against_validation(wall_time: float, titles: Sequence[tuple[str, str]]) -> Event:
    """TensorBoard's Custom Scalars page: train and validation in one chart for each metric.

    Written once for each run; TensorBoard merges the equal layouts of many runs into one page.
    """
    return string_tensor("custom_scalars__config__", 0, _layout(tuple(titles)), "custom_scalars", wall_time)


@cache
def _layout(titles: tuple[tuple[str, str], ...]) -> bytes:
    charts = [
        Chart(title=title, multiline=MultilineChartContent(tag=[f"^train/{metric}$", f"^val/{metric}$"]))
        for metric, title in titles
    ]
    layout: bytes = Layout(category=[Category(title="train against validation", chart=charts)]).SerializeToString()
    return layout


def _session_start(hparams: Mapping[str, Hparam], wall_time: float) -> Event:
    """The run's settings, one column each; whole numbers beyond 2**53 are rounded, as in JSON."""
    info = SessionStartInfo(start_time_secs=wall_time)
    for name, value in hparams.items():
        cell = info.hparams[name]
        if isinstance(value, bool):  # before int: True is an int as well
            cell.bool_value = value
        elif isinstance(value, str):
            cell.string_value = value
        else:
            cell.number_value = value
    return _session_event("_hparams_/session_start_info", HParamsPluginData(session_start_info=info), wall_time)


def _session_end(status: Status, wall_time: float) -> Event:
    """How and when the run ended."""
    info = SessionEndInfo(status=STATUSES[status], end_time_secs=wall_time)
    return _session_event("_hparams_/session_end_info", HParamsPluginData(session_end_info=info), wall_time)


def _session_event(tag: str, data: HParamsPluginData, wall_time: float) -> Event:
    content = data.SerializeToString(deterministic=True)  # otherwise the order of a map's entries is random
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    # everything is in the metadata; the empty tensor is there because a summary must have a value
    nothing = TensorProto(dtype=DT_FLOAT)
    nothing.tensor_shape.dim.add(size=0)
    value = Summary.Value(tag=tag, metadata=metadata, tensor=nothing)
    return Event(wall_time=wall_time, summary=Summary(value=[value]))
