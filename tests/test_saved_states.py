"""A stack that was stopped in whatever way continues from its saved state, to the same bits, and leaves no trace."""

import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_script, tree
from sweeps_away import at_work, numbers
from test_stack import configured, differences, of

from mlpexp import load_results
from mlpexp.models import saved_states
from mlpexp.models.stack_module import StackModule
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import checkpoint_files, run_directory, stack_states
from mlpexp.store.file_names import STATES
from mlpexp.training import trainer_setup
from mlpexp.training.train_stack import EpochHooks, train_stack

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
# runs with and without momentum, of different lengths and ends, in one stack
GRID = (
    "-m seed=0,1 optimizer.momentum=0,0.9 trainer.max_epochs=5,9 optimizer.lr=0.05,8 early_stopping.patience=3 "
    "optimizer.schedule=cosine model.width=6 data.batch_size=300 hydra.launcher.backend=process "
)
ALWAYS = "stack.save_every_s=0.000001 "


class Killed(BaseException):
    """As good as kill -9: no part of a sweep handles it."""


@pytest.fixture(autouse=True)
def _saved_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; only where `ALWAYS` says so."""
    monkeypatch.setattr("mlpexp.training.train_stack.SAVE_SHARE", 0)


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int, error: Callable[[], BaseException]) -> None:
    """End the training by an exception in the middle of the epoch that follows so many."""
    ordinary = StackModule.training_step
    done = 0

    def step(self: StackModule, batch: Any, number: int) -> None:
        nonlocal done
        ordinary(self, batch, number)
        done += 1
        if done > epochs:
            raise error()

    monkeypatch.setattr(StackModule, "training_step", step)


def pictured(directory: Path) -> dict[str, Any]:
    """`numbers` with all of every checkpoint but the times."""
    found = {name: value for name, value in numbers(directory).items() if not name.startswith(".set_aside")}
    for path in directory.glob("*/checkpoints/*.ckpt"):
        loaded = checkpoint_files.load(path)
        for key in ("name", "stack"):
            loaded["hyper_parameters"]["config"].pop(key)
        found[str(path.relative_to(directory))] = loaded
    return found


def assert_same(mine: Path, theirs: Path) -> None:
    one, other = pictured(mine), pictured(theirs)
    assert one.keys() == other.keys()
    for name in one:
        assert differences(one[name], other[name]) == [], name


@pytest.mark.parametrize(
    "more",
    [
        "",
        "optimizer=adam optimizer.momentum=0",
        "tracking.diagnostics=true",
        "record=table",
        "halving.rungs=[2,4] halving.factor=2 trainer.max_epochs=7 early_stopping.patience=null",
    ],
)
@pytest.mark.parametrize("how", ["killed", "interrupted"])
@pytest.mark.thorough(sample=3)
def test_the_same_command_continues_a_stack_to_the_same_bits(
    more: str, how: str, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {word.partition("=")[0] for word in more.split()}
    grid = " ".join(word for word in GRID.split() if word.partition("=")[0] not in keys) + f" {more} "
    assert train(f"{grid} name=whole").code == 0
    with monkeypatch.context() as patch:
        if how == "killed":
            stop_after(patch, 3, Killed)
            assert train(f"{grid} {ALWAYS} name=stopped").code == 1
        else:
            stop_after(patch, 3, lambda: Interrupted("stopped by SIGTERM", 143))
            ended = train(f"{grid} {ALWAYS} name=stopped")
            assert ended.code == 143
            assert "more are saved with their epochs so far, the same command carries on" in ended.line
    gc.collect()
    stopped = here / "multirun/stopped"
    before = {identity: run.epochs for identity, run in stack_states.saved_runs(stopped).items()}
    assert max(before.values()) == 3
    (stopped / STATES / ".cut.state.1.partial").write_text("what a killed writer leaves")
    trained: list[int] = []
    monkeypatch.setattr(StackModule, "on_train_start", lambda self: trained.append(self.start))
    again = train(f"{grid} {ALWAYS} name=stopped")
    assert again.code == 0, again.err
    assert "under way before (continued from their last saved epoch)" in again.out
    assert trained and min(trained) > 0
    assert not (stopped / STATES).exists()
    assert not (stopped / ".set_aside").exists()
    if "record" in more:
        names = ("run", "name", "status", "val/loss", "test/loss", "epoch", "epochs")
        tables = [[{n: row[n] for n in names} for row in load_results(d)] for d in (stopped, here / "multirun/whole")]
        assert tables[0] == tables[1]
    else:
        assert_same(stopped, here / "multirun/whole")


def test_progress_is_visible_in_the_files_while_a_stack_trains(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[dict[str, Any]], list[list[str]]]] = []
    ordinary = StackModule.training_step

    def step(self: StackModule, batch: Any, number: int) -> None:
        ordinary(self, batch, number)
        if self.current_epoch == 4:
            rows = load_results(here / "multirun/s")
            seen.append(
                (rows, [(here / "multirun/s" / row["name"] / "metrics.csv").read_text().split() for row in rows])
            )

    monkeypatch.setattr("mlpexp.sweep.executor.TABLE_SHARE", 0)
    monkeypatch.setattr(StackModule, "training_step", step)
    assert train("-m seed=0,1 trainer.max_epochs=6 hydra.launcher.backend=process name=s " + ALWAYS).code == 0
    [(rows, curves)] = seen
    assert [(row["status"], row["epochs"]) for row in rows] == [("running", 3)] * 2
    for row, lines in zip(rows, curves, strict=True):
        assert len(lines) == 1 + 4  # saved after the fourth epoch, which the table has not seen yet
        assert lines[row["epochs"]].split(",")[3] == repr(row["val/loss"])
    assert {row["status"] for row in load_results(here / "multirun/s")} == {"ok"}


def test_a_signal_during_a_short_epoch_loses_nothing(here: Path) -> None:
    words = (
        "-m seed=range(4) model.width=8 trainer.max_epochs=30000 hydra.launcher.backend=process name=s "
        "stack.save_every_s=1"
    )
    process = subprocess.Popen([sys.executable, TRAIN, *words.split()], stderr=subprocess.PIPE, text=True)
    sweep, deadline = here / "multirun/s", time.monotonic() + 120
    while not list(sweep.glob(".stacks/*.state")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    before = stack_states.saved_runs(sweep)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "0 of 4 runs are done and kept, 4 more are saved with their epochs so far" in said
    saved = stack_states.saved_runs(sweep)
    assert len(saved) == 4
    assert all(saved[identity].epochs > run.epochs for identity, run in before.items())
    assert {row["epochs"] for row in load_results(sweep)} == {run.epochs for run in saved.values()}


def test_a_slow_first_epoch_does_not_keep_signals_from_waiting_for_later_short_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    deferred: list[bool] = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signals, "deferred", lambda: nullcontext(deferred.append(True)))
    module = StackModule.__new__(StackModule)
    monkeypatch.setattr(StackModule, "progress", 0.0)
    monkeypatch.setattr(StackModule, "training_runs", 0, raising=False)
    hooks = EpochHooks(save=lambda module: None)
    waits = []
    for seconds in (10.0, 0.1, 0.1, 0.1, 0.1):
        deferred.clear()
        hooks.on_train_epoch_start(None, module)
        waits.append(bool(deferred))
        now[0] += seconds
        hooks.on_train_epoch_end(None, module)
    assert waits == [False, False, False, False, True]


@pytest.mark.parametrize("backend", ["fork", pytest.param("loky", marks=pytest.mark.thorough)])
def test_workers_save_before_they_stop_with_their_sweep(backend: str, here: Path, train: Callable[..., Any]) -> None:
    words = "-m model.width=8,9 trainer.max_epochs=60 data.batch_size=8 name=s hydra.launcher.workers=2"
    words += " stack.engine=torch"  # the compiled engine would be done before it can be stopped
    with (here / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, TRAIN, *words.split(), f"hydra.launcher.backend={backend}"], stderr=log, stdout=log
        )
    units = here / "multirun/s/.workers"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        noted = [float((path.read_text().split() or [0])[0]) for path in units.glob("unit-*")] if units.is_dir() else []
        if len(noted) == 2 and min(noted) > 0:
            break
        assert process.poll() is None, (here / "log").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)  # the main process only
    process.wait()
    deadline = time.monotonic() + 60
    while len(saved := stack_states.saved_runs(here / "multirun/s")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(saved) == 2, (here / "log").read_text()
    while at_work(here / "multirun/s") and time.monotonic() < deadline:
        time.sleep(0.05)
    again = train(f"{words} hydra.launcher.backend={backend}")
    assert again.code == 0, again.err
    assert "2 runs: 2 under way before" in again.out
    assert train(f"{words} name=whole hydra.launcher.backend=process hydra.launcher.workers=null").code == 0
    assert_same(here / "multirun/s", here / "multirun/whole")


# ---------------------------------------------------------------- files


def state() -> tuple[dict[str, Any], TrainingState]:
    cfg = configured({"trainer.max_epochs": 2})
    with trainer_setup.quiet():
        module = train_stack([cfg, cfg], [of(cfg)] * 2, EpochHooks())
    return {"one": (cfg, of(cfg))}, module.state(0)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    wanted, written = state()
    saved_states.save(tmp_path, {"one": written})
    read = saved_states.load(tmp_path, wanted)["one"]
    assert read.record.history == written.record.history
    assert vars(read.record.progress) == vars(written.record.progress)
    assert read.wall_times == written.wall_times
    for mine, theirs in ((read.best, written.best), (read.last, written.last)):
        assert differences(vars(mine), vars(theirs)) == []
    assert saved_states.load(tmp_path, {"two": wanted["one"]}) == {}
    stack_states.remove(tmp_path, ["two"])
    assert saved_states.load(tmp_path, wanted)
    stack_states.remove(tmp_path, ["one", "two"])
    assert list(tmp_path.iterdir()) == []


def test_states_of_runs_that_are_done_are_removed_by_the_same_command(train: Callable[..., Any], here: Path) -> None:
    """A sweep that is stopped after a worker has written its runs, and before the main process has noted that."""
    command = "-m seed=1,2 trainer.max_epochs=1 name=s"
    assert train(command).code == 0
    sweep = here / "multirun/s"
    done = [run_directory.read_result(marker.parent).identity for marker in sweep.glob("*/result.json")]
    _, written = state()
    saved_states.save(sweep, dict.fromkeys(done, written))
    (sweep / STATES / ".cut.state.1.partial").write_text("what a killed writer leaves")
    assert "2 done before" in train(command).out
    assert not (sweep / STATES).exists()


def test_the_later_of_two_states_counts(tmp_path: Path) -> None:
    wanted, later = state()
    earlier = TrainingState(
        record=later.record.copy(), best=later.best, last=later.best, wall_times=later.wall_times[:2]
    )
    del earlier.record.history[1:]
    saved_states.save(tmp_path, {"one": later})
    saved_states.save(tmp_path, {"one": earlier, "two": earlier})
    assert len(list((tmp_path / STATES).iterdir())) == 2
    assert len(saved_states.load(tmp_path, wanted)["one"].record.history) == 2
    assert stack_states.saved_runs(tmp_path)["one"].epochs == 2


def sealed(sweep: Path, plain: Any) -> None:
    archive = checkpoint_files.to_bytes({"state_dict": {"one": plain}})
    stack_states.write(sweep, {"one": (2, {"val/loss": 1.0})}, archive)


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no history": lambda plain: plain.pop("history"),
    "another shape": lambda plain: plain["last"]["parameters"].update(
        {"layers.0.weight": plain["last"]["parameters"]["layers.0.weight"].mT.contiguous()}
    ),
    "another type": lambda plain: plain["best"].update(
        parameters={name: tensor.double() for name, tensor in plain["best"]["parameters"].items()}
    ),
    "no tensor": lambda plain: plain["last"]["parameters"].update({"layers.0.weight": 1}),
    "a view of one number": lambda plain: plain["last"].update(
        parameters={name: torch.zeros(1).expand(t.shape) for name, t in plain["last"]["parameters"].items()}
    ),
    "too many epochs": lambda plain: plain.update(
        history=plain["history"].repeat(5, 1), wall_times=torch.zeros(11, dtype=torch.float64)
    ),
    "other metrics": lambda plain: plain.update(metrics=["a", "b", "c", "d"]),
    "text": lambda plain: plain.update(seconds="many"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_resealed_state_of_another_structure_is_not_believed(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, good = state()
    plain = saved_states._plain(good)
    sealed(tmp_path, plain)
    assert saved_states.load(tmp_path, wanted)
    DAMAGE[what](plain)
    sealed(tmp_path, plain)
    assert saved_states.load(tmp_path, wanted) == {}
    assert "is damaged" in caplog.text and "train from their beginning" in caplog.text


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


FEW = f"-m seed=0,1 trainer.max_epochs=3 model.width=4 hydra.launcher.backend=process {ALWAYS}"


@pytest.fixture(scope="module")
def whole_and_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps by the same command, `s` killed in its second epoch."""
    place = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlpexp.training.train_stack.SAVE_SHARE", 0)
        patch.chdir(place)
        assert run_script("train.py", f"{FEW} name=whole".split()).code == 0
        stop_after(patch, 1, Killed)
        assert run_script("train.py", f"{FEW} name=s".split()).code == 1
    return place / "multirun"


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "code", "header"])
def test_a_damaged_state_costs_time_only(
    spoil: str, whole_and_stopped: Path, train: Callable[..., Any], here: Path
) -> None:
    shutil.copytree(whole_and_stopped, here / "multirun")
    [path] = (here / "multirun/s" / STATES).iterdir()
    content = path.read_bytes()
    if spoil == "code":
        identities = stack_states.saved_runs(here / "multirun/s")
        history = {one: (1, {"val/loss": 1.0}) for one in identities}
        stack_states.write(here / "multirun/s", history, pickle.dumps(Payload()))
    elif spoil == "header":
        path.write_bytes(content.replace(b'"epochs": 1', b'"epochs": 2', 1))
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flip": flipped, "cut": content[:middle], "empty": b""}[spoil])
    again = train(f"{FEW} name=s")
    assert again.code == 0, again.err
    assert not (here / "executed").exists()
    assert_same(here / "multirun/s", here / "multirun/whole")


def test_links_and_fifos_in_place_of_states_are_refused_in_one_line(train: Callable[..., Any], here: Path) -> None:
    words = "-m seed=0,1 trainer.max_epochs=1 model.width=4 hydra.launcher.backend=process name=s"
    assert train(words).code == 0
    (here / "mine").mkdir()
    (here / "mine/a.state").write_text("mine")
    before = tree(here / "mine")
    folder = here / "multirun/s" / STATES
    gc.collect()
    folder.symlink_to(here / "mine")
    refused = train(words + " seed=2")
    assert refused.code == 2
    assert f"{folder} is a symbolic link" in refused.line
    folder.unlink()
    folder.mkdir()
    os.mkfifo(folder / "a.state")
    gc.collect()
    refused = train(words + " seed=2")
    assert refused.code == 2
    assert "is a FIFO" in refused.line
    assert tree(here / "mine") == before


def test_what_is_saved_of_other_runs_stays(tmp_path: Path) -> None:
    _, one = state()
    saved_states.save(tmp_path, {"one": one, "two": one})
    (tmp_path / STATES / "notes.txt").write_text("somebody's")
    stack_states.remove(tmp_path, ["one"])
    assert stack_states.saved_runs(tmp_path).keys() == {"one", "two"}
    stack_states.remove(tmp_path, ["one", "two"])
    assert [path.name for path in (tmp_path / STATES).iterdir()] == ["notes.txt"]


def test_an_unreadable_state_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, one = state()
    saved_states.save(tmp_path, {"one": one})
    ordinary = os.open

    def refuse(path: Any, *more: Any, **options: Any) -> int:
        if str(path).endswith(".state"):
            raise PermissionError(13, "Permission denied")
        return ordinary(path, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="cannot be read"):
        stack_states.saved_runs(tmp_path)
