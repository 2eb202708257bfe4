"""One run, from the command line to what it leaves behind."""

import csv
import errno
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, Outcome, tree
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mlpexp import models
from mlpexp.data.datamodule import TableDataModule
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.tracking.event_files import EventLog

QUICK = "tracking.figures=false tracking.diagnostics=false"
METRICS = ["train/loss", "train/acc", "val/loss", "val/acc"]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> tuple[Path, Outcome]:
    """A run with everything on, read by many tests and changed by none."""
    from conftest import run_script

    place = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COLUMNS", "120")
        outcome = run_script("train.py", ["trainer.max_epochs=4", "hydra.run.dir=run", "optimizer.lr=0.2"])
    return place / "run", outcome


def test_a_run_leaves_exactly_these_files(usual):
    run, outcome = usual
    assert outcome.code == 0, outcome.err
    figures = {
        f"figures/{name}.png" for name in ("curves", "samples", "confusion_test", "mistakes_test", "first_layer")
    }
    figures |= {"figures/gradient_norms.png", "figures/saturation.png"}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    files = {name for name, digest in tree(run).items() if digest and not name.startswith("events.out.tfevents.")}
    assert files == figures | hydra | {
        ".lock",
        "metrics.csv",
        "layers.csv",
        "result.json",
        "train.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert len(list(run.glob("events.out.tfevents.*"))) == 1


def test_nothing_is_said_on_stderr_and_the_table_and_two_commands_on_stdout(usual):
    _, outcome = usual
    assert outcome.err == ""
    assert "epoch 3, the best by val/loss, of epochs 0 to 3" in outcome.out
    for word in ("training", "validation", "test", "loss (nats)", "accuracy"):
        assert word in outcome.out
    assert "tensorboard --logdir run\n" in outcome.out
    assert f"python {SCRIPTS / 'train.py'} resume=run trainer.max_epochs=8\n" in outcome.out


def test_metrics_csv_has_one_row_per_epoch_at_full_precision(usual):
    run, _ = usual
    lines = (run / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch," + ",".join(METRICS)
    assert [row["epoch"] for row in rows(run)] == ["0", "1", "2", "3"]
    losses = [float(row["train/loss"]) for row in rows(run)]
    assert losses == sorted(losses, reverse=True)
    assert all(repr(float(row[name])) == row[name] for row in rows(run) for name in METRICS)
    assert all(0 <= float(row[name]) <= 1 for row in rows(run) for name in ("train/acc", "val/acc"))


def test_the_marker_is_written_last_and_its_checksums_match(usual):
    run, _ = usual
    marker = result(run)
    assert set(marker["files"]) == {
        "metrics.csv",
        "layers.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        next(path.name for path in run.glob("events.out.tfevents.*")),
    }
    for name, noted in marker["files"].items():
        assert run_directory.checksum((run / name).read_bytes()) == noted
        assert (run / name).stat().st_mtime_ns <= (run / "result.json").stat().st_mtime_ns


def test_the_marker_holds_the_metrics_of_the_best_epoch_and_of_the_test(usual):
    run, _ = usual
    marker = result(run)
    best = min(rows(run), key=lambda row: float(row["val/loss"]))
    assert marker["status"] == "ok"
    assert marker["epoch"] == int(best["epoch"])
    assert marker["objective"] == float(best["val/loss"])
    assert {name: marker["metrics"][name] for name in METRICS} == {name: float(best[name]) for name in METRICS}
    loaded = checkpoint_files.load(run / file_names.BEST)
    cfg, features, classes = checkpoint_files.described(run / file_names.BEST, loaded)
    data = TableDataModule(cfg.data, cfg.seed)
    data.setup()
    module = models.build(cfg, features, classes)
    module.load_state_dict(loaded["state_dict"])
    inputs, labels = data.prepared.part("test")
    with torch.no_grad():
        assert marker["metrics"]["test/acc"] == (module(inputs).argmax(-1) == labels).double().mean().item()
    assert marker["identity"] == identity(cfg, marker["data_digest"])


def test_events_read_back_equal_metrics_csv(usual):
    run, _ = usual
    found = events(run)
    for name in METRICS:
        points = found.Tensors(name) if name in found.Tags()["tensors"] else found.Scalars(name)
        curve = {}
        for point in points:
            value = point.tensor_proto.float_val[0] if hasattr(point, "tensor_proto") else point.value
            curve[point.step] = value
        assert sorted(curve) == [0, 1, 2, 3]
        for row in rows(run):
            assert math.isclose(curve[int(row["epoch"])], float(row[name]), rel_tol=1e-6)


def test_the_hyperparameter_tab_holds_only_what_was_chosen(usual):
    run, _ = usual
    metadata = events(run).summary_metadata
    started = HParamsPluginData.FromString(metadata["_hparams_/session_start_info"].plugin_data.content)
    shown = started.session_start_info.hparams
    assert len(shown) < 12
    assert shown["optimizer.lr"].number_value == 0.2
    assert "_hparams_/session_end_info" in metadata
    for name in [*METRICS, "test/loss", "test/acc"]:
        assert name in metadata or name in events(run).Tags()["scalars"]


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_load_as_data_and_the_way_lightning_loads_them(usual, name: str):
    run, _ = usual
    path = run / f"checkpoints/{name}.ckpt"
    plain = torch.load(path, weights_only=True)
    assert set(plain["state_dict"]) == {f"layers.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    cfg, features, classes = checkpoint_files.described(path, plain)
    module = TorchMLP.load_from_checkpoint(path, cfg=cfg, num_features=features, num_classes=classes)
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, plain["state_dict"][key])


def test_the_same_seed_gives_the_same_files(usual, train, here: Path):
    run, _ = usual
    train(f"trainer.max_epochs=4 hydra.run.dir=again optimizer.lr=0.2 {QUICK}")
    assert (here / "again/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_flags_of_lightnings_trainer_change_the_training(train, here: Path):
    base = f"trainer.max_epochs=2 {QUICK}"
    train(f"hydra.run.dir=plain {base}")
    clipped = train(
        f"hydra.run.dir=clipped {base} +trainer.gradient_clip_val=0.5 +trainer.deterministic=true "
        "+trainer.accumulate_grad_batches=2"
    )
    assert (clipped.code, clipped.err) == (0, "")
    assert rows(here / "clipped") != rows(here / "plain")


def test_a_run_cut_short_by_max_steps_records_whole_epochs_only(train, here: Path):
    assert train(f"hydra.run.dir=run +trainer.max_steps=50 {QUICK}").code == 0
    assert len(rows(here / "run")) == 1
    refused = train(f"hydra.run.dir=none +trainer.max_steps=20 {QUICK}")
    assert refused.code == 2
    assert "before its first epoch was done" in refused.line
    assert result(here / "none")["status"] == "failed"


def test_a_persons_callback_and_logger_take_part(train, here: Path):
    outcome = train(
        f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} optimizer.schedule=step optimizer.step_epochs=1 "
        "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor +callbacks.lr.logging_interval=epoch "
        "+logger.csv._target_=lightning.pytorch.loggers.CSVLogger +logger.csv.save_dir=mine"
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = events(here / "run")
    tags = found.Tags()
    assert "lr-SGD" in [*tags["scalars"], *tags["tensors"]]
    points = found.Tensors("lr-SGD") if "lr-SGD" in tags["tensors"] else found.Scalars("lr-SGD")
    assert len(points) == 2
    assert len(list((here / "mine").rglob("metrics.csv"))) == 1


def test_early_stopping_ends_a_run_that_gets_no_better(train, here: Path):
    outcome = train(
        f"hydra.run.dir=run {QUICK} optimizer=adam optimizer.lr=0.03 trainer.max_epochs=40 early_stopping.patience=2"
    )
    marker = result(here / "run")
    assert marker["epochs"] == marker["epoch"] + 3 < 40
    assert "resume" not in outcome.out  # a longer run would stop there, too
    refused = train("resume=run trainer.max_epochs=80")
    assert refused.code == 2
    assert "was stopped early" in refused.line


def test_a_diverging_run_is_warned_of_and_marked(train, here: Path):
    outcome = train(
        f"hydra.run.dir=run {QUICK} optimizer.lr=1e6 model.activation=relu model.depth=3 trainer.max_epochs=2"
    )
    assert outcome.code == 0
    assert "diverged in epoch 0: the loss is no longer finite; another optimizer.lr may help" in outcome.line
    marker = result(here / "run")
    assert marker["status"] == "diverged"
    assert marker["message"].startswith("diverged in epoch 0")
    assert marker["metrics"]["val/loss"] is None
    assert "NaN" not in (here / "run/result.json").read_text()
    refused = train("resume=run trainer.max_epochs=20")
    assert refused.code == 2
    assert "holds NaN" in refused.line


def test_a_diverged_run_can_be_drawn(train, here: Path):
    outcome = train("hydra.run.dir=run optimizer.lr=1e6 model.activation=relu model.depth=3 trainer.max_epochs=2")
    assert outcome.code == 0
    assert (here / "run/figures/curves.png").exists()


def test_a_run_that_fails_says_so_in_one_line_and_keeps_the_traceback_in_its_log(train, here: Path):
    outcome = train(
        f"hydra.run.dir=run {QUICK} +callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping "
        "+callbacks.stop.monitor=val/nothing"
    )
    assert outcome.code == 1
    assert "Early stopping conditioned on metric `val/nothing`" in outcome.line
    assert "Traceback" in (here / "run/train.log").read_text()
    marker = result(here / "run")
    assert marker["status"] == "failed"
    assert "val/nothing" in marker["message"]


def test_a_callback_that_leaves_the_program_is_a_failed_run(train, here: Path, monkeypatch):
    from lightning.pytorch.callbacks import LearningRateMonitor

    def leave(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(LearningRateMonitor, "on_train_epoch_start", leave)
    outcome = train(f"hydra.run.dir=run {QUICK} +callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor")
    assert outcome.code == 1
    assert "ended the program" in outcome.line
    assert result(here / "run")["status"] == "failed"


@pytest.mark.parametrize("which", ["metrics.csv", "last.ckpt", "result.json", "events"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(train, here: Path, monkeypatch, which: str):
    write, flush = atomic_files.write, EventLog.flush

    def full(path: Path, content: bytes | str) -> None:
        if path.name == which:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    def full_log(log: EventLog) -> None:
        flush(log)
        if which == "events" and log.path.stat().st_size > 500:
            raise OSError(errno.ENOSPC, "No space left on device", str(log.path))

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "write", full)
        patch.setattr(EventLog, "flush", full_log)
        outcome = train(f"hydra.run.dir=run trainer=smoke {QUICK}")
    assert outcome.code == 1
    assert "No space left on device" in outcome.line
    assert not list(here.rglob("*.partial"))
    if (here / "run/result.json").exists():
        assert result(here / "run")["status"] == "failed"


def test_a_log_that_cannot_be_written_hides_no_message(train, here: Path, monkeypatch):
    def full(handler: logging.Handler, record: logging.LogRecord) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logging.FileHandler, "format", full, raising=False)
    monkeypatch.setattr(atomic_files, "write", full)
    outcome = train(f"hydra.run.dir=run trainer=smoke {QUICK}")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "No space left on device" in outcome.line


def test_without_a_test_part_nothing_is_tested(train, here: Path):
    assert train(f"hydra.run.dir=run trainer=smoke {QUICK} data.test_fraction=0").code == 0
    assert set(result(here / "run")["metrics"]) == set(METRICS)


@pytest.mark.parametrize("off", ["tensorboard", "figures", "diagnostics"])
def test_each_kind_of_tracking_can_be_left_out(train, here: Path, off: str):
    assert train(f"hydra.run.dir=run trainer=smoke tracking.{off}=false").code == 0
    found = {"tensorboard": "events.out.tfevents.*", "figures": "figures", "diagnostics": "layers.csv"}
    for name, pattern in found.items():
        assert bool(list((here / "run").glob(pattern))) == (name != off)


def test_the_last_weights_are_tested_where_asked(train, here: Path):
    base = f"{QUICK} optimizer=adam optimizer.lr=0.03 trainer.max_epochs=40 early_stopping.patience=1"
    for which in ("best", "last"):
        train(f"hydra.run.dir={which} {base} test_weights={which}")
    best, last = result(here / "best"), result(here / "last")
    assert best["epochs"] == last["epochs"] == last["epoch"] + 1 == best["epoch"] + 2
    assert best["metrics"]["test/loss"] != last["metrics"]["test/loss"]


def test_on_a_machine_with_slurm_nothing_is_said_about_srun(train, tmp_path: Path, monkeypatch):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    outcome = train(f"trainer.max_epochs=1 {QUICK}")
    assert (outcome.code, outcome.err) == (0, "")


def test_tensorboard_shows_train_and_validation_before_the_layers(train, here: Path):
    assert train("hydra.run.dir=run model.depth=6 trainer.max_epochs=1 tracking.figures=false").code == 0
    reader = EventAccumulator(str(here / "run"), size_guidance={"histograms": 0, "scalars": 0})
    reader.Reload()
    tags = reader.Tags()
    groups = {tag.partition("/")[0] for tag in (*tags["scalars"], *tags["histograms"])}
    assert sorted(groups)[:3] == ["test", "train", "val"]  # TensorBoard opens the first groups by name
    assert len(tags["histograms"]) == 6  # weights and gradients of the first, a middle and the last layer
    assert {tag.rpartition("_")[2] for tag in tags["histograms"]} == {"0", "3", "6"}
    start = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"data.name" in start and b"digits" in start


def test_a_gpu_that_is_not_used_is_no_warning(train, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.trainer.setup.CUDAAccelerator.is_available", staticmethod(lambda: True))
    ended = train("trainer.max_epochs=1 tracking.figures=false tracking.tensorboard=false")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.parametrize("words", ["", "data.name=moons", "data.name=diabetes optimizer.lr=0.01"])
def test_a_run_in_another_precision_has_its_figures(words, precision, train):
    ended = train(
        f"+trainer.precision={precision} trainer.max_epochs=1 {words} hydra.run.dir=run tracking.figures=true"
    )
    assert ended.code == 0, ended.err
    assert list(Path("run/figures").iterdir())
