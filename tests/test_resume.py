"""A run that is continued has the numbers of a run that was never interrupted."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, run_script, tree
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mlpexp.config.schema import Config, TrainerConfig
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory
from mlpexp.tracking.event_files import carried_over
from mlpexp.training import recorded_history, resume, single_run
from mlpexp.training.recorder import Recorder

QUICK = "tracking.figures=false data.batch_size=256"
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of four epochs that were never stopped, by their settings; each is trained where a test first asks."""

    @functools.cache
    def trained(kind: str) -> Path:
        place = tmp_path_factory.mktemp(kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            words = f"hydra.run.dir=whole trainer.max_epochs=4 {QUICK} {SETTINGS[kind]}"
            assert run_script("train.py", words.split()).code == 0
        return place / "whole"

    return trained


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_trained_further_equals_one_that_was_never_stopped(train, here: Path, kind: str, whole):
    train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} {SETTINGS[kind]}")
    outcome = train("resume=run trainer.max_epochs=4")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_numbers(here / "run", whole(kind))


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize("kind", ["backprop", "adam", "steps"])
def test_an_interrupted_run_is_continued_as_if_nothing_had_happened(train, here: Path, kind: str, monkeypatch, whole):
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
    assert_same_numbers(here / "run", whole(kind))
    assert {tag: steps for tag, steps in points(here / "run").items() if tag != "_hparams_/session_start_info"} == {
        tag: steps for tag, steps in points(whole(kind)).items() if tag != "_hparams_/session_start_info"
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
    train(f"hydra.run.dir=run trainer.max_epochs=12 {QUICK} +trainer.gradient_clip_val=1.0 test_weights=last")
    run_directory.write_result(here / "run", replace(run_directory.read_result(here / "run"), status="interrupted"))
    typed = Config(resume="run", threads=7, trainer=TrainerConfig(max_epochs=20, enable_progress_bar=False))
    kept = resume.find(typed, ["resume=run", "trainer.enable_progress_bar=false"]).cfg
    assert (kept.threads, kept.trainer.max_epochs, kept.trainer.flags) == (1, 12, {"gradient_clip_val": 1.0})
    assert (kept.test_weights, kept.trainer.enable_progress_bar) == ("last", False)
    assert resume.find(typed, ["resume=run", "trainer.max_epochs=20", "threads=7"]).cfg.threads == 7


def test_a_run_whose_last_epoch_lightning_would_repeat_is_refused(train, here: Path):
    assert train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} +trainer.max_steps=500").code == 0
    ended = train("resume=run trainer.max_epochs=3")
    assert (ended.code, "with trainer.max_steps=500 Lightning would repeat the last epoch" in ended.line) == (2, True)


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
    assert "optimizer.schedule=cosine divides a rate over all epochs" in train("resume=whole trainer.max_epochs=4").line
    with monkeypatch.context() as patch:
        interrupt(patch, signal.SIGTERM, epoch=2)
        train(f"hydra.run.dir=run {settings}")
    assert train("resume=run").code == 0  # but it can be finished
    assert_same_numbers(here / "run", here / "whole")


def first(node: dict, *path: str | int) -> dict:
    for key in path:
        node = node[key]
    return node


FIT = ("loops", "fit_loop")
SGD = "optimizer.momentum=0.5 optimizer.schedule=step optimizer.step_epochs=1"
DAMAGES = {
    "no state": lambda c: c["callbacks"].pop("Recorder"),
    "fewer epochs": lambda c: c["callbacks"]["Recorder"].update(epochs=1),
    "more epochs": lambda c: c["callbacks"]["Recorder"].update(epochs=3),
    "no number of epochs": lambda c: c["callbacks"]["Recorder"].update(epochs="2"),
    "no time": lambda c: c["callbacks"]["Recorder"].update(saved_at="now"),
    "an infinite time": lambda c: c["callbacks"]["Recorder"].update(started=float("inf")),
    "an old history of texts": lambda c: c["callbacks"].update(Recorder=OLD | {"history": [{"train/loss": "low"}]}),
    "an old history without times": lambda c: c["callbacks"].update(Recorder=OLD | {"wall_times": []}),
    "an old history of nothing": lambda c: c["callbacks"].update(Recorder=OLD | {"history": None}),
    "another epoch": lambda c: c.update(epoch=5),
    "another step": lambda c: c.update(global_step=7),
    "no loops": lambda c: c.pop("loops"),
    "loops of another kind": lambda c: c.update(loops=[]),
    "epochs that are counted otherwise": lambda c: first(c, *FIT, "epoch_progress", "current").update(processed=-3),
    "no optimizer": lambda c: c.update(optimizer_states=[]),
    "an optimizer without state": lambda c: first(c, "optimizer_states", 0).update(state={}),
    "a momentum of another shape": lambda c: first(c, "optimizer_states", 0, "state", 0).update(
        momentum_buffer=torch.zeros(1)
    ),
    "no momentum": lambda c: first(c, "optimizer_states", 0, "state", 1).pop("momentum_buffer"),
    "another rate": lambda c: first(c, "optimizer_states", 0, "param_groups", 0).update(lr=9.0),
    "another decay": lambda c: first(c, "optimizer_states", 0, "param_groups", 0).update(weight_decay=0.5),
    "another schedule": lambda c: first(c, "lr_schedulers", 0).update(last_epoch=0),
    "no schedule": lambda c: c.update(lr_schedulers=[]),
}
OLD = {
    "history": [{"train/loss": 1.0, "train/acc": 0.5, "val/loss": 1.0, "val/acc": 0.5}] * 2,
    "wall_times": [1.0, 2.0, 3.0],
    "layer_rows": [],
    "progress": {},
    "saved_at": 3.0,
}


@pytest.fixture(scope="module")
def _with_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_script("train.py", f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} {SGD}".split()).code == 0
    return place / "run"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.thorough(sample=8)
def test_a_checkpoint_that_mlpexp_would_not_write_is_refused(train, here: Path, _with_state: Path, damage: str):
    shutil.copytree(_with_state, here / "run")
    path = here / "run" / file_names.LAST
    loaded = checkpoint_files.load(path)
    DAMAGES[damage](loaded)
    checkpoint_files.save(path, checkpoint_files.to_bytes(loaded))
    (here / "run/result.json").unlink()  # its checksum would tell
    before = tree(here)
    outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == 2
    assert "last.ckpt" in outcome.line
    assert tree(here) == before


@pytest.mark.parametrize("variant", ["backprop", "autograd"])
def test_lost_velocities_are_refused(train, here: Path, variant: str):
    train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK} {SETTINGS['backprop']} model.variant={variant}")
    path = here / "run" / file_names.LAST
    loaded = checkpoint_files.load(path)
    loaded["velocities"] = [[None, None] for _ in loaded["velocities"]]
    checkpoint_files.save(path, checkpoint_files.to_bytes(loaded))
    (here / "run/result.json").unlink()
    assert "the state of its training is not that of its configuration" in train("resume=run trainer.max_epochs=4").line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.csv", None, "metrics.csv is missing"),
        ("metrics.csv", "", "metrics.csv is damaged"),
        ("metrics.csv", "epoch,train/loss\n0,1.0\n", "metrics.csv has 1 epochs"),
        ("metrics.csv", "epoch,train/loss\n1,1.0\n0,1.0\n", "the epochs are not 0, 1, 2"),
        ("metrics.csv", "epoch,train/loss\n0,low\n1,1.0\n", "metrics.csv is damaged"),
        ("layers.csv", "epoch,layer\n", "layers.csv is damaged"),
        (".hydra/config.yaml", "a: [", "config.yaml cannot be read as YAML"),
        (".hydra/config.yaml", "a: 1", "config.yaml holds no configuration of a run"),
    ],
)
def test_a_damaged_table_or_configuration_is_refused_untouched(
    train, here: Path, finished: Path, name: str, content: str | None, said: str
):
    (finished / "result.json").unlink()
    (finished / name).unlink()
    if content is not None:
        (finished / name).write_text(content)
    before = tree(here)
    outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == 2
    assert said in outcome.line
    assert tree(here) == before


@pytest.mark.parametrize("name", ["metrics.csv", "layers.csv", "checkpoints/last.ckpt"])
def test_files_that_are_not_what_the_marker_says_are_refused(train, here: Path, finished: Path, name: str):
    content = (finished / name).read_bytes()
    (finished / name).write_bytes(content.replace(b"1", b"2", 1))
    before = tree(here)
    assert "is not what was written: its checksum differs" in train("resume=run trainer.max_epochs=4").line
    assert tree(here) == before


def test_a_checkpoint_that_holds_its_history_is_continued_too(train, here: Path, whole):
    train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK}")
    run = here / "run"
    history, rows = recorded_history.read_tables(run)
    path = run / file_names.LAST
    loaded = checkpoint_files.load(path)
    state = loaded["callbacks"]["Recorder"]
    moments = [state["started"], state["saved_at"] - 0.01, state["saved_at"]]
    loaded["callbacks"]["Recorder"] = {
        "saved_at": state["saved_at"], "history": history, "wall_times": moments, "layer_rows": rows, "progress": {},
    }  # fmt: skip
    checkpoint_files.save(path, checkpoint_files.to_bytes(loaded))
    for name in ("result.json", "metrics.csv", "layers.csv"):
        (run / name).unlink()
    assert train("resume=run trainer.max_epochs=4").code == 0
    assert_same_numbers(run, whole("torch_nn"))


def test_a_checkpoint_does_not_grow_with_the_number_of_epochs(train, here: Path):
    train(f"hydra.run.dir=run trainer.max_epochs=2 {QUICK}")
    size = (here / "run" / file_names.LAST).stat().st_size
    assert train("resume=run trainer.max_epochs=22").code == 0
    assert abs((here / "run" / file_names.LAST).stat().st_size - size) < 500


class Failing(Callback):
    """Raises, or sends a signal, at one of Lightning's hooks."""

    def __init__(self, hook: str, number: int = 0, epoch: int = -1) -> None:
        def act(trainer, *_: object, **__: object) -> None:
            if epoch in (-1, trainer.current_epoch):
                if not number:
                    raise RuntimeError("of a callback")
                os.kill(os.getpid(), number)
                time.sleep(0.01)

        setattr(self, hook, act)


BEFORE_THE_FIRST_EPOCH = ["setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_validation_start"]


@pytest.mark.parametrize("number", [0, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", BEFORE_THE_FIRST_EPOCH)
@pytest.mark.thorough(sample=3)
def test_a_finished_run_stays_as_it_was_until_a_new_epoch_is_done(
    train, here: Path, finished: Path, monkeypatch, hook: str, number: int
):
    def state() -> dict[str, str]:
        return {name: digest for name, digest in tree(here).items() if not name.endswith("train.log")}

    before = state()
    with monkeypatch.context() as patch:
        patch.setattr(single_run, "own_callbacks", lambda cfg: {"failing": Failing(hook, number)})
        outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == {0: 1, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert state() == before
    if number:
        command = outcome.line.partition("continue with: ")[2]
        again = train(command.partition("train.py ")[2])
        assert (again.code, again.err) == (0, "")
        assert run_directory.read_result(finished).epochs == 4


def test_a_run_that_is_killed_while_it_is_trained_further_can_be_continued(
    train, here: Path, finished: Path, monkeypatch
):
    shutil.copytree(finished, here / "whole")
    train("resume=whole trainer.max_epochs=6")

    write, killed = atomic_files.write, []

    def kill(path: Path, content: bytes | str, **settings: object) -> None:
        killed.append(str(path).endswith("best.ckpt"))
        if any(killed):
            raise KeyboardInterrupt  # as good as a kill: nothing more is written
        write(path, content, **settings)

    for _ in range(2):
        killed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "write", kill)
            with contextlib.suppress(KeyboardInterrupt):
                train("resume=run trainer.max_epochs=6")
        assert run_directory.read_result(finished).status == "interrupted"
    assert train("resume=run trainer.max_epochs=6").code == 0
    assert_same_numbers(finished, here / "whole")


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    ("name", "further"),
    # one that averages up to the last epoch that was announced differs from the start in a longer run
    [("EMAWeightAveraging", False), ("EMAWeightAveraging", True), ("StochasticWeightAveraging", False)],
)
def test_weights_that_a_callback_averages_at_the_end_are_not_trained_further(
    train, here: Path, monkeypatch, name: str, further: bool
):
    callback = f"+callbacks.e._target_=lightning.pytorch.callbacks.{name}"
    settings = f"{QUICK} optimizer.momentum=0.5 {callback}"
    if name == "StochasticWeightAveraging":
        callback += " +callbacks.e.swa_lrs=0.05 +callbacks.e.swa_epoch_start=2"
        settings += " +callbacks.e.swa_lrs=0.05 +callbacks.e.swa_epoch_start=2"
    train(f"hydra.run.dir=whole trainer.max_epochs=5 {settings}")
    if further:
        train(f"hydra.run.dir=run trainer.max_epochs=3 {settings}")
    else:
        with monkeypatch.context() as patch:
            interrupt(patch, signal.SIGTERM, epoch=3)
            train(f"hydra.run.dir=run trainer.max_epochs=5 {settings}")
    outcome = train(f"resume=run trainer.max_epochs=5 {callback}")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_numbers(here / "run", here / "whole")


def test_the_last_weights_are_those_that_were_tested_and_training_continues_from_its_own(train, here: Path):
    swa = "+callbacks.e._target_=lightning.pytorch.callbacks.StochasticWeightAveraging +callbacks.e.swa_lrs=0.05"
    train(f"hydra.run.dir=run trainer.max_epochs=5 {QUICK} {swa} test_weights=last")
    ended = run_script("evaluate.py", ["run", "--weights", "last", "--no-embedding"])
    assert ended.code == 0, ended.err
    assert json.loads((here / "run/evaluation-last/metrics.json").read_text())["same_as_result"] is True
    loaded = checkpoint_files.load(here / "run" / file_names.LAST)
    assert not torch.equal(loaded["state_dict"]["layers.0.weight"], loaded["training_state_dict"]["layers.0.weight"])


@pytest.mark.filterwarnings("ignore:Experimental rerun")
def test_hydras_rerun_of_a_finished_run_is_refused_untouched(train, here: Path):
    pickled = "hydra.callbacks.pickle._target_=hydra.experimental.callbacks.PickleJobInfoCallback"
    assert train(f"hydra.run.dir=run trainer.max_epochs=1 {QUICK} +{pickled}").code == 0

    def state() -> dict[str, str]:
        return {name: digest for name, digest in tree(here).items() if not name.endswith(("train.log", ".pickle"))}

    before = state()
    outcome = train("--experimental-rerun run/.hydra/config.pickle")
    assert outcome.code == 2
    assert "run holds a run already (result.json)" in outcome.err
    assert state() == before


def test_no_step_is_written_twice_and_the_last_value_is_that_of_the_last_epoch(train, here: Path):
    train(f"hydra.run.dir=run trainer.max_epochs=4 {QUICK} optimizer.lr=2")
    train(f"-m hydra.sweep.dir=sweep trainer.max_epochs=4 seed=0,1 {QUICK} optimizer.lr=2")
    for run in (here / "run", *(path.parent for path in (here / "sweep").glob("*/result.json"))):
        found = points(run)
        for tag in ("train/loss", "train/acc", "val/loss", "val/acc"):
            assert found[tag] == [0, 1, 2, 3], tag
        result = run_directory.read_result(run)
        assert found["val_best/val/loss"] == [result.epoch]


def test_the_data_may_have_moved_and_the_command_may_be_typed_elsewhere(train, here: Path, monkeypatch):
    rows = "\n".join(f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60))
    (here / "a.csv").write_text(f"u,v,y\n{rows}\n")
    assert train(f"hydra.run.dir=run trainer.max_epochs=1 data=csv data.path=a.csv data.target=y {QUICK}").code == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert train("resume=../run trainer.max_epochs=2").code == 0
    assert run_script("evaluate.py", ["../run", "--no-embedding"]).code == 0
    (here / "a.csv").rename(here / "moved.csv")
    monkeypatch.chdir(here)
    assert "a.csv" in train("resume=run trainer.max_epochs=3").line
    assert train("resume=run trainer.max_epochs=3 data.path=moved.csv").code == 0
    (here / "other.csv").write_text(f"u,v,y\n{rows}\n1,1,a\n")
    assert "was trained on other data" in train("resume=run trainer.max_epochs=4 data.path=other.csv").line


def test_a_hard_linked_copy_of_a_run_stays_as_it_was(train, here: Path, finished: Path):
    shutil.copytree(finished, here / "copy", copy_function=os.link)
    before = tree(here / "copy")
    assert train("resume=run trainer.max_epochs=3").code == 0
    assert tree(here / "copy") == before


@pytest.mark.parametrize("name", ["checkpoints", "figures"])
def test_nothing_is_written_through_a_link_inside_a_run(train, here: Path, finished: Path, name: str):
    (here / "theirs").mkdir()
    if (finished / name).exists():
        shutil.move(finished / name, here / "theirs" / name)
    else:
        (here / "theirs" / name).mkdir()
    (finished / name).symlink_to(here / "theirs" / name)
    before = tree(here / "theirs")
    assert train("resume=run trainer.max_epochs=3 tracking.figures=true").code in (1, 2)
    assert tree(here / "theirs") == before


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
    command = [
        sys.executable,
        str(SCRIPTS / "train.py"),
        "hydra.run.dir=run",
        "trainer.max_epochs=100000",
        *QUICK.split(),
    ]
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


def test_a_relative_path_of_data_is_found_after_hydra_has_changed_the_directory(train, here: Path):
    rows = "\n".join(f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60))
    (here / "a.csv").write_text(f"u,v,y\n{rows}\n")
    data = f"trainer.max_epochs=1 data=csv data.path=a.csv data.target=y {QUICK} hydra.job.chdir=true"
    assert train(f"hydra.run.dir=run {data}").code == 0
    assert train(f"-m seed=0,1 hydra.sweep.dir=sweep {data}").code == 0
    assert "2 done before" in train(f"-m seed=0,1 hydra.sweep.dir=sweep {data}").out


@pytest.mark.parametrize(
    "name", ["metrics.csv", "layers.csv", "checkpoints/last.ckpt", "result.json", "events", ".lock"]
)
def test_a_fifo_among_the_files_of_a_run_is_refused_at_once(train, here: Path, finished: Path, name: str):
    path = next(finished.glob("events*")) if name == "events" else finished / name
    path.unlink()
    os.mkfifo(path)
    outcome = train("resume=run trainer.max_epochs=3")
    assert outcome.code == 2
    assert "regular file" in outcome.line
