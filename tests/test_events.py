"""Event files hold what they were given, by the word of TensorBoard's own readers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups

from mlpexp.tracking import event_files, events
from mlpexp.tracking.crc32c import crc32cs, masked_crc32c
from mlpexp.tracking.run_events import end_events, run_events, start_events

EPOCHS = 4
HISTORY = [
    {"train/loss": 2.0 / (e + 1), "train/acc": 0.2 * e, "val/loss": 2.1 / (e + 1), "val/acc": 0.19 * e}
    for e in range(EPOCHS)
]
FINAL = {"test/loss": 0.625, "test/acc": 0.75}
HPARAMS = {"optimizer.lr": 0.125, "seed": 3, "model.activation": "tanh", "data.shuffle": True}
TIMES = [1.7e9 + second for second in range(EPOCHS + 1)]


def finished(**changes):
    given = {"history": HISTORY, "hparams": HPARAMS, "final": FINAL, "status": "ok", "wall_times": TIMES}
    return run_events(**(given | changes))


def write(directory: Path, given) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / event_files.file_name(TIMES[0])
    path.write_bytes(event_files.encode(given))
    return path


def read(directory: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(directory), size_guidance={"histograms": 0, "images": 0, "scalars": 0})
    return accumulator.Reload()


def provider(directory: Path) -> MultiplexerDataProvider:
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(directory))


def hparams_page(directory: Path, sort_by: str = "") -> tuple[api_pb2.Experiment, list[api_pb2.SessionGroup]]:
    """What the HParams page asks TensorBoard's server for: its columns and its rows."""
    context = Context(TBContext(data_provider=provider(directory)))
    experiment = GetExperiment(RequestContext(), context, "", api_pb2.GetExperimentRequest()).run()
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=api_pb2.Status.values())
    for metric in experiment.metric_infos:
        order = api_pb2.ORDER_ASC if metric.name.tag == sort_by else api_pb2.ORDER_UNSPECIFIED
        request.col_params.add(metric=metric.name, order=order)
    answer = ListSessionGroups(RequestContext(), context, "", request).run()
    return experiment, list(answer.session_groups)


def metrics(group: api_pb2.SessionGroup) -> dict[str, float]:
    return {value.name.tag: value.value for value in group.metric_values}


def test_every_epoch_of_every_metric_reads_back_at_its_step_and_time(tmp_path):
    write(tmp_path, finished())
    got = read(tmp_path)
    assert set(got.Tags()["scalars"]) == {*HISTORY[0], *FINAL}
    for tag in HISTORY[0]:
        points = got.Scalars(tag)
        assert [p.step for p in points] == list(range(EPOCHS))
        assert [p.value for p in points] == [np.float32(row[tag]) for row in HISTORY]
        assert [p.wall_time for p in points] == TIMES[1:]


def test_final_metrics_stand_at_the_epoch_whose_weights_gave_them(tmp_path):
    write(tmp_path, finished(final_epoch=2))
    assert [(p.step, p.value) for p in read(tmp_path).Scalars("test/acc")] == [(2, 0.75)]


def test_an_image_reads_back_with_its_bytes_and_size(tmp_path):
    png = bytes(range(256)) * 9
    write(tmp_path, [events.image("figures/curves", 7, png, 40, 30, wall_time=TIMES[0])])
    (picture,) = read(tmp_path).Images("figures/curves")
    assert (picture.step, picture.width, picture.height) == (7, 40, 30)
    assert picture.encoded_image_string == png


def test_text_reads_back(tmp_path):
    write(tmp_path, [events.text("note", 0, "**größer** than 3", TIMES[0])])
    (note,) = read(tmp_path).Tensors("note")
    assert note.tensor_proto.string_val[0].decode() == "**größer** than 3"
    assert set(provider(tmp_path).list_tensors(RequestContext(), experiment_id="", plugin_name="text")["."]) == {"note"}


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32),
        np.zeros(10),
        np.full(3, 1e20),
        np.array([1.0, np.nextafter(1.0, 2.0)]),
        np.array([-3e38, 3e38], dtype=np.float32),
        np.array([1e-9, 2e-9, 9e-9]),
        np.array([5, 6, 7]),
        np.array(4.0),
    ],
    ids=[
        "normal",
        "constant",
        "huge constant",
        "neighbours",
        "float32 range",
        "tiny",
        "int",
        "one",
    ],
)
def test_a_histogram_counts_every_value_between_rising_edges(tmp_path, values):
    write(tmp_path, [events.histogram("weights/0", 1, values, TIMES[0])])
    (point,) = read(tmp_path).Histograms("weights/0")
    got = point.histogram_value
    edges = np.array([got.min, *got.bucket_limit])
    assert sum(got.bucket) == got.num == values.size
    assert np.all(np.diff(edges) > 0)
    assert edges[0] <= values.min() <= values.max() <= edges[-1]
    assert got.sum == pytest.approx(values.astype(float).sum())
    assert got.sum_squares == pytest.approx(np.square(values.astype(float)).sum())
    inside = np.histogram(values, bins=edges)[0]
    assert got.bucket == list(inside)


def test_a_histogram_leaves_out_what_is_not_finite(tmp_path):
    write(
        tmp_path,
        [
            events.histogram("some", 0, np.array([np.nan, 1.0, 2.0, np.inf]), TIMES[0]),
            events.histogram("none", 0, np.array([np.nan, -np.inf, 1e39]), TIMES[0]),
        ],
    )
    got = read(tmp_path)
    assert sum(got.Histograms("some")[0].histogram_value.bucket) == 2
    assert got.Histograms("none")[0].histogram_value.num == 0
    # as the Histograms page gets it, after TensorBoard's own conversion
    tensors = provider(tmp_path).read_tensors(
        RequestContext(), experiment_id="", plugin_name="histograms", downsample=10
    )["."]
    assert tensors["some"][0].numpy[:, 2].sum() == 2
    assert tensors["none"][0].numpy.shape == (0, 3)


def test_settings_and_last_metrics_fill_the_hparams_page(tmp_path):
    write(tmp_path / "a", finished())
    write(
        tmp_path / "b",
        finished(hparams={**HPARAMS, "optimizer.lr": 0.5}, final={"test/loss": 0.5, "test/acc": 0.8}),
    )
    experiment, rows = hparams_page(tmp_path, sort_by="test/loss")
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "optimizer.lr": api_pb2.DATA_TYPE_FLOAT64,
        "seed": api_pb2.DATA_TYPE_FLOAT64,
        "model.activation": api_pb2.DATA_TYPE_STRING,
        "data.shuffle": api_pb2.DATA_TYPE_BOOL,
    }
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["optimizer.lr"]
    assert {info.name.tag for info in experiment.metric_infos} == {*HISTORY[0], *FINAL}
    assert [row.name for row in rows] == ["b", "a"]
    assert metrics(rows[1]) == pytest.approx(HISTORY[-1] | FINAL)
    assert MessageToDict(rows[1])["hparams"] == HPARAMS
    (session,) = rows[1].sessions
    assert session.status == api_pb2.STATUS_SUCCESS
    assert (session.start_time_secs, session.end_time_secs) == (TIMES[0], TIMES[-1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39])
def test_a_diverged_run_is_a_failed_row_without_a_number_that_is_not_finite(tmp_path, bad):
    history = [*HISTORY[:2], *({**row, "train/loss": bad, "val/loss": bad} for row in HISTORY[2:])]
    diverged = finished(
        history=history, final={"test/loss": bad, "test/acc": 0.1}, status="diverged", note="at epoch 2"
    )
    write(tmp_path / "diverged", diverged)
    write(tmp_path / "well", finished())
    _, rows = hparams_page(tmp_path, sort_by="test/loss")
    assert [row.name for row in rows] == ["well", "diverged"]
    assert rows[1].sessions[0].status == api_pb2.STATUS_FAILURE
    expected = {
        **HISTORY[-1],
        "test/acc": 0.1,
        "train/loss": HISTORY[1]["train/loss"],
        "val/loss": HISTORY[1]["val/loss"],
    }
    assert metrics(rows[1]) == pytest.approx(expected)
    json.dumps([MessageToDict(row) for row in rows], allow_nan=False)
    got = read(tmp_path / "diverged")
    assert [p.step for p in got.Scalars("train/loss")] == [0, 1]
    assert got.Tensors("status")[0].tensor_proto.string_val[0] == b"**diverged**: at epoch 2"


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("ok", "SUCCESS"),
        ("chance", "SUCCESS"),
        ("diverged", "FAILURE"),
        ("failed", "FAILURE"),
        ("interrupted", "UNKNOWN"),
    ],
)
def test_how_a_run_ended_is_shown_even_before_its_first_epoch(tmp_path, status, shown):
    write(tmp_path, run_events([], HPARAMS, {}, status, TIMES[:1]))
    _, (row,) = hparams_page(tmp_path)
    assert row.sessions[0].status == api_pb2.Status.Value(f"STATUS_{shown}")
    assert ("status" in read(tmp_path).Tags()["tensors"]) == (status != "ok")


# TensorBoard's own import of its vendored html5lib
@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")
def test_custom_scalars_show_train_against_validation_once_for_all_runs(tmp_path):
    write(tmp_path / "a", finished())
    write(tmp_path / "b", finished())
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    source = provider(tmp_path)
    plugin = CustomScalarsPlugin(TBContext(data_provider=source, logdir=str(tmp_path)))
    layout = json.loads(plugin.layout_impl(RequestContext(), ""))
    (category,) = layout["category"]
    assert [(chart["title"], chart["multiline"]["tag"]) for chart in category["chart"]] == [
        ("loss (nats)", ["^train/loss$", "^val/loss$"]),
        ("accuracy", ["^train/acc$", "^val/acc$"]),
    ]


def test_a_live_log_and_an_encoded_run_read_back_the_same(tmp_path):
    with event_files.EventLog(tmp_path / "live", TIMES[0]) as log:
        log.add(*start_events(HPARAMS, TIMES[0]))
        for epoch, row in enumerate(HISTORY):
            log.add(events.scalars(epoch, row, TIMES[epoch + 1]))
            log.flush()
        log.add(*end_events(EPOCHS - 1, FINAL, "ok", TIMES[-1]))
    assert log.path.read_bytes() == event_files.encode(finished())


def test_what_a_live_log_has_flushed_can_be_read_while_it_is_open(tmp_path):
    with event_files.EventLog(tmp_path) as log:
        log.add(events.scalars(0, HISTORY[0], TIMES[1]))
        log.flush()
        assert [p.step for p in read(tmp_path).Scalars("val/acc")] == [0]
    log.close()


def test_two_logs_of_one_second_do_not_share_a_file(tmp_path):
    with event_files.EventLog(tmp_path, TIMES[0]) as one, event_files.EventLog(tmp_path, TIMES[0]) as two:
        assert one.path != two.path
        assert one.path.name.startswith("events.out.tfevents.1700000000.")


def test_the_same_run_encodes_to_the_same_bytes_whatever_the_order_of_its_settings():
    again = dict(reversed(HPARAMS.items()))
    assert event_files.encode(finished(hparams=again)) == event_files.encode(finished())


@pytest.mark.parametrize("size", [4, 5, 8, 255, 256, 257, 512, 1000, 5001])
def test_checksums_are_those_of_tensorboard(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32cs([data]) == [pywrap_tensorflow.crc32c(data)]
    assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e39])
def test_scalars_leave_out_what_is_not_finite_whoever_writes_them(tmp_path, bad):
    write(tmp_path, [events.scalars(0, {"good": 1.0, "bad": bad}, 1.0), events.scalar("worse", 0, bad, 1.0)])
    assert read(tmp_path).Tags()["scalars"] == ["good"]
