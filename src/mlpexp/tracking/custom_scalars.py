"""TensorBoard's Custom Scalars page: train against validation, in one chart."""

from functools import cache

from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

from mlpexp.tracking.events import Event, string_tensor


def train_against_validation(wall_time: float) -> Event:
    """Written once for each run; TensorBoard merges the equal layouts of many runs into one page."""
    return string_tensor("custom_scalars__config__", 0, _layout(), "custom_scalars", wall_time)


@cache
def _layout() -> bytes:
    charts = [
        Chart(title=title, multiline=MultilineChartContent(tag=[f"^train/{metric}$", f"^val/{metric}$"]))
        for metric, title in {"loss": "loss (nats)", "acc": "accuracy"}.items()
    ]
    layout: bytes = Layout(category=[Category(title="train against validation", chart=charts)]).SerializeToString()
    return layout
