"""`report=true` on real sweeps, and what TensorBoard finds in the sweep's directory afterwards."""

import csv
import html
import shutil
import warnings

import pytest
import report_sweeps
import torch
from conftest import SCRIPTS, run_script
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from test_events import hparams_page
from torch.nn import functional

from mlpexp import data as datasets
from mlpexp.config.schema import DataConfig
from mlpexp.data.prepared_data import prepare
from mlpexp.store import checkpoint_files
from mlpexp.store.results_table import load_results

SWEEP = ["-m", "name=s", "report=true", "trainer.max_epochs=2", "model.width=4,8", "model.activation=tanh,relu"]


def seen(directory):
    """Names of images, and texts by name, in the report's event files."""
    events = EventAccumulator(str(directory), size_guidance={"images": 0, "tensors": 0}).Reload()
    texts = {
        tag: tensor_util.make_ndarray(event.tensor_proto).item().decode()
        for tag in events.Tags()["tensors"]
        for event in events.Tensors(tag)
    }
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}, texts


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The directory of a sweep of eight runs that made its report, and what it said."""
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = run_script("train.py", [*SWEEP, "seed=0,1"])
    assert ended.code == 0, ended.err
    return place / "multirun/s", ended.out


def test_a_sweep_ends_with_its_report(swept):
    directory, said = swept
    assert "The report: multirun/s/report/index.html" in said
    assert "report.py multirun/s" not in said  # it is made
    assert (directory / "report/index.html").is_file()


def test_tensorboard_shows_figures_and_ranking_once_also_when_the_sweep_carries_on(swept, train, here, monkeypatch):
    shutil.copytree(swept[0], here / "multirun/s")
    images, texts = seen(here / "multirun/s/report")
    drawn = sorted(path.stem for path in (here / "multirun/s/report/figures").glob("*.png"))
    assert sorted(tag.split()[-1] for tag in images) == drawn
    assert all(len(pictures) == 1 for pictures in images.values())
    assert "8 runs of 4 configurations" in texts["report/answer"]
    assert train([*SWEEP, "seed=0,1,2"]).code == 0
    images, texts = seen(here / "multirun/s/report")
    assert all(len(pictures) == 1 for pictures in images.values())
    assert "12 runs of 4 configurations" in texts["report/answer"]
    assert texts["report/ranking"].count("\n| ") == 4 + 1
    assert len(list((here / "multirun/s/report").glob("events.*"))) == 1


def test_hparams_has_the_swept_keys_only_and_the_numbers_of_results_csv(swept):
    directory, _ = swept
    experiment, rows = hparams_page(directory)
    assert {info.name for info in experiment.hparam_infos} == {"model.width", "model.activation", "seed"}
    with (directory / "results.csv").open() as opened:
        results = {row["name"]: row for row in csv.DictReader(opened)}
    assert {row.sessions[0].name for row in rows} == set(results)
    for row in rows:
        shown = {metric.name.tag: metric.value for metric in row.metric_values}
        for name in ("val/loss", "val/acc", "test/loss", "test/acc", "train/loss"):
            assert shown[name] == pytest.approx(float(results[row.sessions[0].name][name]), rel=1e-6)


def test_a_report_that_fails_is_said_and_fails_nothing(train, here, monkeypatch):
    def fails(directories):
        raise RuntimeError("no space\nleft")

    monkeypatch.setattr("mlpexp.report.build_report.build", fails)
    ended = train(["-m", "name=s", "report=true", "trainer.max_epochs=1", "model.width=4", "seed=0,1"])
    assert ended.code == 0
    assert "the report could not be made (RuntimeError: no space left)" in ended.err
    assert f"python {SCRIPTS / 'report.py'} multirun/s" in ended.err
    assert (here / "multirun/s/results.csv").is_file()


def test_hostile_names_reach_tensorboard_as_text(tmp_path):
    sweep = report_sweeps.write(
        tmp_path / "s", {"+tag": ["'<script>alert(2)</script>'", "'a|b *c* [d](http://e)'"], "seed": range(3)}
    )
    assert run_script("report.py", [str(sweep)]).code == 0
    _, texts = seen(sweep / "report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own copy of html5lib
        from tensorboard.plugin_util import markdown_to_safe_html
    shown = "".join(map(markdown_to_safe_html, texts.values()))
    assert "<script" not in shown
    assert "<em>" not in shown
    assert "<a " not in shown
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in shown
    assert html.unescape(shown).count("a|b *c* [d](http://e)") >= 2


def test_a_sweep_whose_runs_failed_has_its_report_too(train, here):
    broken = "+callbacks.x._target_=builtins.NoSuchThing"
    ended = train(["-m", "name=s", "report=true", "trainer.max_epochs=1", "seed=0,1", broken])
    assert ended.code == 1
    assert "All 2 runs failed" in (here / "multirun/s/report/index.html").read_text()


def test_a_stacked_run_with_diagnostics_has_layers_and_a_confusion_matrix_in_tensorboard(train, here):
    words = "name=s trainer.max_epochs=2 model.depth=2 model.width=8 tracking.diagnostics=true seed=0,1"
    assert train(["-m", *words.split()]).code == 0
    for row in load_results(here / "multirun/s"):
        events = EventAccumulator(str(here / "multirun/s" / row["name"])).Reload()
        everywhere, hidden = ("gradient_norm", "weight_norm", "gradient_std"), ("saturated", "activation_std")
        for kind, layers in [*((kind, 3) for kind in everywhere), *((kind, 2) for kind in hidden)]:
            for layer in range(layers):
                assert [point.step for point in events.Scalars(f"within/{kind}/layer_{layer}")] == [-1, 0, 1]
        (event,) = events.Tensors("confusion/test")
        said, *lines = tensor_util.make_ndarray(event.tensor_proto).item().decode().splitlines()
        matrix = [[int(cell.strip() or 0) for cell in line.split("|")[2:-1]] for line in lines[3:]]
        right, total = sum(matrix[i][i] for i in range(10)), sum(map(sum, matrix))
        assert said.startswith(f"{right} of {total} test samples")
        assert right / total == pytest.approx(row["test/acc"])

        # against the saved weights, by torch alone
        state = checkpoint_files.load(here / "multirun/s" / row["name"] / "checkpoints/best.ckpt")["state_dict"]
        data = prepare(datasets.load(DataConfig()), DataConfig())
        x, labels = data.part("test")
        for layer in range(3):
            x = functional.linear(x, state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"])
            x = torch.tanh(x) if layer < 2 else x
        assert matrix == confusion_matrix(labels, x.argmax(-1), labels=range(10)).tolist()
