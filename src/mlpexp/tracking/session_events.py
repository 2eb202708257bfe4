"""The events behind a row of TensorBoard's HParams page: the settings of a run, and its status.

No experiment summary is written. Without one TensorBoard derives the columns from the runs: settings keep their types,
and every scalar becomes a metric column with its last value.
"""

from collections.abc import Mapping
from typing import Literal

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_RUNNING, STATUS_SUCCESS, STATUS_UNKNOWN
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

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


def session_start(hparams: Mapping[str, Hparam], wall_time: float) -> Event:
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
    return _event("_hparams_/session_start_info", HParamsPluginData(session_start_info=info), wall_time)


def session_end(status: Status, wall_time: float) -> Event:
    """How and when the run ended."""
    info = SessionEndInfo(status=STATUSES[status], end_time_secs=wall_time)
    return _event("_hparams_/session_end_info", HParamsPluginData(session_end_info=info), wall_time)


def _event(tag: str, data: HParamsPluginData, wall_time: float) -> Event:
    content = data.SerializeToString(deterministic=True)  # otherwise the order of a map's entries is random
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    # everything is in the metadata; the empty tensor is there because a summary must have a value
    nothing = TensorProto(dtype=DT_FLOAT)
    nothing.tensor_shape.dim.add(size=0)
    value = Summary.Value(tag=tag, metadata=metadata, tensor=nothing)
    return Event(wall_time=wall_time, summary=Summary(value=[value]))
