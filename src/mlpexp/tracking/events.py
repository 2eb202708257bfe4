"""Plain numbers -> TensorBoard `Event`s, one function for each kind of data that TensorBoard shows.

In a tag such as `train/loss` the part before the slash is a group; a step is the epoch, from 0; wall times are seconds
since 1970. `event_files` writes events to files.
"""

import re
from collections.abc import Mapping

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

__all__ = ["Event", "histogram", "image", "plain", "restart", "scalar", "scalars", "text"]

FLOAT32_MAX = 3.4028234663852886e38  # TensorBoard's pages use float32: 1e39 would be infinity there
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>|#~$!&]")
RGB = 3  # the number that TensorBoard's image proto gives to this colour space


def scalar(tag: str, step: int, value: float, wall_time: float) -> Event:
    """One point of one curve, stored in float32."""
    return scalars(step, {tag: value}, wall_time)


def scalars(step: int, values: Mapping[str, float], wall_time: float) -> Event:
    """One point on each of several curves in one record, which takes half the bytes of four records.

    Values that are not finite in float32 are left out: HParams shows the last value of each curve and cannot sort a
    column with a NaN.
    """
    finite = {tag: value for tag, value in values.items() if abs(value) <= FLOAT32_MAX}  # False for NaN
    points = [Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
    return Event(wall_time=wall_time, step=step, summary=Summary(value=points))


def restart(step: int, wall_time: float) -> Event:
    """The points of this step and later ones come again. A file that has such events also begins with one."""
    return Event(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START))


def image(tag: str, step: int, png_bytes: bytes, width: int, height: int, *, wall_time: float) -> Event:
    """A PNG of `width` by `height` pixels: `image(tag, step, *png(figure), wall_time=now)`."""
    picture = Summary.Image(width=width, height=height, colorspace=RGB, encoded_image_string=png_bytes)
    return _event(Summary.Value(tag=tag, image=picture), step, wall_time)


def histogram(tag: str, step: int, values: np.ndarray, wall_time: float, *, bins: int = 64) -> Event:
    """Counts of `values` (any shape) in `bins` equal bins from the minimum to the maximum.

    Values that are not finite in float32 are left out; where none remains the histogram is empty.
    """
    finite = np.asarray(values, dtype=np.float64).ravel()
    finite = finite[np.abs(finite) <= FLOAT32_MAX]  # (n,); NaN fails every comparison
    if not finite.size:
        return _event(Summary.Value(tag=tag, histo=HistogramProto()), step, wall_time)
    counts, edges = _bin(finite, bins)  # (B,), (B + 1,)
    proto = HistogramProto(
        min=edges[0],
        max=edges[-1],
        num=finite.size,
        sum=finite.sum(),
        sum_squares=np.square(finite).sum(),
        bucket_limit=edges[1:],  # right-hand edges: TensorBoard takes `min` for the first left-hand one
        bucket=counts,
    )
    return _event(Summary.Value(tag=tag, histo=proto), step, wall_time)


def text(tag: str, step: int, markdown: str, wall_time: float) -> Event:
    """Text in Markdown; TensorBoard removes scripts from it."""
    return string_tensor(tag, step, markdown.encode(), "text", wall_time)


def plain(words: str) -> str:
    """Escape Markdown with entities, since a backslash cannot escape every character."""
    return _MARKDOWN.sub(lambda sign: f"&#{ord(sign[0])};", " ".join(words.split()))


def string_tensor(tag: str, step: int, content: bytes, plugin: str, wall_time: float) -> Event:
    """A string for one of TensorBoard's plugins."""
    value = Summary.Value(
        tag=tag,
        tensor=TensorProto(dtype=DT_STRING, string_val=[content]),
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin)),
    )
    value.tensor.tensor_shape.SetInParent()  # a scalar, as opposed to an unknown shape
    return _event(value, step, wall_time)


def _bin(finite: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (B,) and edges (B + 1,); one bin where the values are too close together for several."""
    low, high = finite.min(), finite.max()
    if (high - low) / bins <= np.spacing(max(abs(low), abs(high))):
        half = max(0.5, 1e-3 * abs(low))  # the width with which TensorBoard draws a single value
        return np.array([finite.size]), np.array([low - half, high + half])
    return np.histogram(finite, bins=bins, range=(low, high))


def _event(value: Summary.Value, step: int, wall_time: float) -> Event:
    return Event(wall_time=wall_time, step=step, summary=Summary(value=[value]))
