"""A run that is continued has the numbers of a run that was never interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, tree
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mlpexp.config.schema import Config, TrainerConfig
from mlpexp.store import checkpoint_files, file_names, run_directory
from mlpexp.tracking.previous_events import carried_over
from mlpexp.training import resume
from mlpexp.training.recorder import Recorder

QUICK = "tracking.figures=false"
STEPS = "optimizer.momentum=0.9 optimizer.schedule=step optimizer.step_epochs=1 optimizer.warmup_epochs=1"
SETTINGS = {
    "torch_nn": "",
    "autograd": "model.variant=autograd optimizer.momentum=0.9",
    "backprop": f"model.variant=backprop optimizer.nesterov=true {STEPS}",
    "adam": "optimizer=adam",
    "steps": f"{STEPS} optimizer.weight_decay=0.001",
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint_files.load(run / file_names.LAST)["state_dict"]


def assert_same_numbers(run: Path, other: Path) -> None:
    for name in ("metrics.csv", "layers.csv"):
        assert (run / name).read_text() == (other / name).read_text(), name
    mine, theirs = weights(run), weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    one, two = (json.loads((place / "result.json").read_text()) for place in (run, other))
    for key in ("status", "metrics", "objective", "epoch", "epochs", "identity"):
        assert one[key] == two[key], key


def points(run: Path) -> dict[str, list[int]]:
    """Steps by tag, over all event files of a run, in the order in which TensorBoard reads them."""
    found: dict[str, list[int]] = {}
    for path in sorted(run.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int, epoch: int) -> None:
    """Send this process a signal in the middle of an epoch."""

    def stop(recorder: Recorder, trainer, module, outputs, batch, index: int) -> None:
        if trainer.current_epoch == epoch and index == 3:
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # a signal is handled between two bytecodes

    monkeypatch.setattr(Recorder, "on_train_batch_end", stop)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_trained_further_equals_one_that_was_never_stopped(train, here: Path, kind: str):
    train(f"hydra.run.dir=whole trainer.max_epochs=4 {QUICK} {SETTINGS[kind]}")
    train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} {SETTINGS[kind]}")
    outcome = train("resume=run trainer.max_epochs=4")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_numbers(here / "run", here / "whole")


@pytest.mark.parametrize("kind", ["backprop", "adam", "steps"])
def test_an_interrupted_run_is_continued_as_if_nothing_had_happened(train, here: Path, kind: str, monkeypatch):
    train(f"hydra.run.dir=whole trainer.max_epochs=4 {QUICK} {SETTINGS[kind]}")
    with monkeypatch.context() as patch:
        interrupt(patch, signal.SIGTERM, epoch=2)
        stopped = train(f"hydra.run.dir=run trainer.max_epochs=4 {QUICK} {SETTINGS[kind]}")
    assert stopped.code == 143
    assert "stopped by SIGTERM; what was finished is kept in run, continue with: python " in stopped.line
    assert stopped.line.endswith("scripts/train.py resume=run")
    assert json.loads((here / "run/result.json").read_text())["status"] == "interrupted"
    assert len((here / "run/metrics.csv").read_text().splitlines()) == 3
    outcome = train("resume=run")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_numbers(here / "run", here / "whole")
    assert {tag: steps for tag, steps in points(here / "run").items() if tag != "_hparams_/session_start_info"} == {
        tag: steps for tag, steps in points(here / "whole").items() if tag != "_hparams_/session_start_info"
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_each_signal_has_its_exit_code(train, here: Path, monkeypatch, number: int, code: int):
    interrupt(monkeypatch, number, epoch=1)
    outcome = train(f"hydra.run.dir=run {QUICK}")
    assert outcome.code == code
    assert f"stopped by {signal.Signals(number).name}" in outcome.line


def test_a_run_stopped_in_its_first_epoch_is_simply_started_again(train, here: Path, monkeypatch):
    interrupt(monkeypatch, signal.SIGTERM, epoch=0)
    outcome = train(f"hydra.run.dir=run {QUICK}")
    assert outcome.code == 143
    assert "nothing to continue yet in run" in outcome.line


def test_what_was_finished_but_not_marked_is_completed(train, here: Path, finished: Path):
    shutil.copytree(finished, here / "whole")
    (finished / "result.json").unlink()
    assert train("resume=run").code == 0
    assert_same_numbers(finished, here / "whole")


def test_the_curve_is_one_with_no_step_twice(train, here: Path):
    monitor = (
        "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor +callbacks.lr.logging_interval=epoch"
    )
    train(f"hydra.run.dir=run trainer.max_epochs=3 {QUICK} {monitor}")
    assert train(f"resume=run trainer.max_epochs=5 {monitor}").code == 0
    assert len(list((here / "run").glob("events.out.tfevents.*"))) == 1
    found = points(here / "run")
    for tag in ("train/loss", "val/acc"):
        assert sorted(set(found[tag])) == [0, 1, 2, 3, 4]
    for tag in (
        "within/gradients/layer_0",
        "within/weights/layer_1",
        "within/gradient_norm/layer_0",
    ):  # and before the first step
        assert sorted(set(found[tag])) == [-1, 0, 1, 2, 3, 4]
    for tag, count in (("within/gradients/layer_0", 6), ("within/gradient_norm/layer_0", 6), ("lr-SGD", 5)):
        assert len(found[tag]) == count, tag
    for tag in ("_hparams_/session_start_info", "_hparams_/session_end_info", "test/acc"):
        assert len(found[tag]) == 1, tag


def test_the_recorded_configuration_follows(train, here: Path, finished: Path):
    train("resume=run trainer.max_epochs=3")
    assert "max_epochs: 3" in (finished / ".hydra/config.yaml").read_text()


def test_settings_that_are_not_typed_stay_the_runs_own(train, here: Path):
    train(f"hydra.run.dir=run trainer.max_epochs=12 {QUICK} +trainer.max_steps=50 test_weights=last")
    typed = Config(resume="run", threads=7, trainer=TrainerConfig(max_epochs=20, enable_progress_bar=False))
    kept = resume.find(typed, ["resume=run", "trainer.enable_progress_bar=false"]).cfg
    assert (kept.threads, kept.trainer.max_epochs, kept.trainer.flags) == (1, 12, {"max_steps": 50})
    assert (kept.test_weights, kept.trainer.enable_progress_bar) == ("last", False)
    assert resume.find(typed, ["resume=run", "trainer.max_epochs=20", "threads=7"]).cfg.threads == 7


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "leaves nothing to train"),
        ("trainer.max_epochs=2", "leaves nothing to train; give a larger number, e.g. trainer.max_epochs=4"),
        ("trainer.max_epochs=1", "leaves nothing to train"),
        ("trainer.max_epochs=4 seed=1", "seed cannot be given; only trainer.max_epochs may grow"),
        ("trainer.max_epochs=4 optimizer=adam", "optimizer cannot be given"),
        ("trainer.max_epochs=4 +callbacks.x._target_=a.B", "was trained without callbacks of your own"),
    ],
)
def test_what_cannot_be_continued_is_refused_untouched(train, here: Path, finished: Path, command: str, said: str):
    before = tree(here)
    outcome = train(f"resume=run {command}")
    assert outcome.code == 2
    assert said in outcome.line
    assert tree(here) == before


def test_a_cosine_schedule_cannot_be_stretched(train, here: Path, monkeypatch):
    settings = f"trainer.max_epochs=3 {QUICK} optimizer.schedule=cosine"
    train(f"hydra.run.dir=whole {settings}")
    assert "follows a cosine schedule" in train("resume=whole trainer.max_epochs=4").line
    with monkeypatch.context() as patch:
        interrupt(patch, signal.SIGTERM, epoch=2)
        train(f"hydra.run.dir=run {settings}")
    assert train("resume=run").code == 0  # but it can be finished
    assert_same_numbers(here / "run", here / "whole")


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("history"),
        lambda state: state.update(history=[{"train/loss": "low"}]),
        lambda state: state.update(wall_times=[]),
        lambda state: state.update(progress=None),
        lambda state: state.update(saved_at="now"),
    ],
)
def test_a_history_that_mlpexp_would_not_write_is_refused(train, here: Path, finished: Path, damage):
    path = finished / file_names.LAST
    loaded = checkpoint_files.load(path)
    damage(loaded["callbacks"]["Recorder"])
    checkpoint_files.save(path, checkpoint_files.to_bytes(loaded))
    (finished / "result.json").unlink()  # its checksum would tell
    before = tree(here)
    outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == 2
    assert "last.ckpt" in outcome.line
    assert tree(here) == before


def test_events_are_carried_over_up_to_a_tear_and_each_point_once(here: Path, finished: Path):
    path = next(finished.glob("events.out.tfevents.*"))
    torn = here / "torn"
    whole = list(carried_over([path], time.time()))
    torn.write_bytes(path.read_bytes()[:-2000])
    kept = list(carried_over([torn], time.time()))
    assert 0 < len(kept) < len(whole)
    assert kept == whole[: len(kept)]
    assert list(carried_over([path, torn], time.time())) == whole
    assert list(carried_over([path], whole[2].wall_time)) == [
        event for event in whole if event.wall_time <= whole[2].wall_time
    ]


def test_a_run_in_use_is_refused_with_the_holders_pid(train, here: Path, finished: Path):
    from mlpexp.store import directory_lock

    with directory_lock.hold(finished):
        outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == 2
    assert f"run is in use by pid {os.getpid()}" in outcome.line
    assert (finished / "result.json").exists()
    assert train("resume=run trainer.max_epochs=3").code == 0


def test_a_real_process_ends_in_order_when_it_is_terminated(here: Path):
    command = [sys.executable, str(SCRIPTS / "train.py"), "hydra.run.dir=run", "trainer.max_epochs=100000", QUICK]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 20_000 for path in (here / "run").glob("events.*")
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # an impatient second one tears nothing
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert re.fullmatch(r"train.py: stopped by SIGTERM; .* resume=run\n", err)
    assert out == ""
    assert run_directory.read_result(here / "run").status == "interrupted"
