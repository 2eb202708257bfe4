"""TensorBoard's Custom Scalars page: train against validation, in one chart."""

from functools import cache

from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

from mlpexp.nn.metrics import METRICS, recorded
from mlpexp.tracking.events import Event, string_tensor


def train_against_validation(wall_time: float) -> Event:
    """Written once for each run; TensorBoard merges the equal layouts of many runs into one page."""
    titles = tuple((name, METRICS[name].title) for name in recorded())
    return string_tensor("custom_scalars__config__", 0, _layout(titles), "custom_scalars", wall_time)


@cache
def _layout(titles: tuple[tuple[str, str], ...]) -> bytes:
    charts = [
        Chart(title=title, multiline=MultilineChartContent(tag=[f"^train/{metric}$", f"^val/{metric}$"]))
        for metric, title in titles
    ]
    layout: bytes = Layout(category=[Category(title="train against validation", chart=charts)]).SerializeToString()
    return layout
