"""A sweep with a larger `trainer.max_epochs` continues its runs, to the bits of one that was as long at once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from test_saved_states import ALWAYS, Killed, assert_same, stop_after

from mlpexp import load_results
from mlpexp.models.stack_module import StackModule
from mlpexp.store import file_names, run_directory

GRID = "-m seed=0,1 model.width=6 data.batch_size=300 hydra.launcher.backend=process"


@pytest.fixture(autouse=True)
def _saved_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; only where `ALWAYS` says so."""
    monkeypatch.setattr("mlpexp.training.train_stack.SAVE_SHARE", 0)


def run_of(sweep: Path, seed: int) -> Path:
    """The only directory of a run with this seed."""
    (found,) = sweep.glob(f"*seed={seed}")
    return found


def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs at which stacks start from now on."""
    found: list[int] = []
    monkeypatch.setattr(StackModule, "on_train_start", lambda self: found.append(self.start))
    return found


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ("", 2),
        ("stack.engine=torch optimizer.momentum=0,0.9 optimizer.lr=0.05,8", 2),
        ("optimizer=adam optimizer.momentum=0 tracking.diagnostics=true", 2),
        ("early_stopping.patience=1 early_stopping.min_delta=0.2", None),
        ("ema.decay=null,0.9", 2),
        ("swa.start=0,1", 2),
        ("prune.fraction=0.5 prune.every=1 prune.rounds=1", 2),
        ("data.label_noise=0.2 model.dropout=0.1 optimizer.schedule=step optimizer.step_epochs=1", 2),
        ("optimizer.schedule=plateau optimizer.patience=0 tracking.test_hits=true model.norm=batch", 2),
        ("optimizer=muon optimizer.lr=0.02 model.depth=2", 2),
        ("model.variant=backprop", None),
        ("+trainer.precision=64 optimizer.lr=0.1", None),
        ("+trainer.max_steps=9", None),
        ("+trainer.max_steps=14", None),
        ("optimizer=lbfgs optimizer.momentum=0 early_stopping.patience=3", None),
        ("model.variant=autograd optimizer.lr=0.5 early_stopping.patience=1 early_stopping.min_delta=0.2", None),
    ],
)
def test_runs_that_are_trained_further_equal_those_of_a_longer_sweep(
    settings: str, start: int | None, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(f"{GRID} {settings} trainer.max_epochs=4 name=whole").code == 0
    assert train(f"{GRID} {settings} trainer.max_epochs=2 name=further").code == 0
    started = starts(monkeypatch)
    ended = train(f"{GRID} {settings} trainer.max_epochs=4 name=further")
    assert ended.code == 0, ended.err
    assert "trained for fewer epochs before (trained further)" in ended.out
    assert start is None or set(started) == {start}
    assert_same(here / "multirun/further", here / "multirun/whole")
    assert not (here / "multirun/further/.set_aside").exists()
    again = train(f"{GRID} {settings} trainer.max_epochs=4 name=further")
    assert "done before" in again.out and "trained further" not in again.out


@pytest.mark.parametrize("saves", ["", ALWAYS])
def test_a_crash_while_runs_are_trained_further_loses_nothing(
    saves: str, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = here / "multirun/further"
    assert train(f"{GRID} trainer.max_epochs=5 name=whole").code == 0
    assert train(f"{GRID} trainer.max_epochs=2 name=further").code == 0
    shorter = {path: path.read_bytes() for path in directory.glob("*/*") if path.is_file()}
    with monkeypatch.context() as patch:
        stop_after(patch, 1, Killed)
        assert train(f"{GRID} {saves} trainer.max_epochs=5 name=further").code == 1
    assert all(path.read_bytes() == content for path, content in shorter.items())
    assert [row["epochs"] for row in load_results(directory)] == [2, 2]
    started = starts(monkeypatch)
    ended = train(f"{GRID} {saves} trainer.max_epochs=5 name=further")
    assert ended.code == 0, ended.err
    assert started == ([3] if saves else [2])
    assert_same(directory, here / "multirun/whole")


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("settings", "start"),
    [("", 3), ("stack.engine=torch optimizer=adam optimizer.momentum=0", 3), ("record=table", 3)],
)
def test_a_sweep_that_was_stopped_goes_on_with_more_epochs_from_its_saved_state(
    settings: str, start: int, named: bool, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [*GRID.split(), *settings.split(), *(() if named else ["hydra.sweep.subdir=run-${seed}"])]
    assert train([*grid, "trainer.max_epochs=6", "name=whole"]).code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3, Killed)
        assert train([*grid, ALWAYS.strip(), "trainer.max_epochs=4", "name=s"]).code == 1
    started = starts(monkeypatch)
    ended = train([*grid, "trainer.max_epochs=6", "name=s"])
    assert ended.code == 0, ended.err
    assert "2 under way before (continued from their last saved epoch)" in ended.out
    assert started == [start]
    assert_same(here / "multirun/s", here / "multirun/whole")
    assert not (here / "multirun/s" / file_names.STATES).exists()
    names = {path.name for path in (here / "multirun/whole").iterdir()}
    assert {path.name for path in (here / "multirun/s").iterdir()} == names
    assert "2 runs: 2 done before" in train([*grid, "trainer.max_epochs=6", "name=s"]).out


def test_a_sweep_that_was_stopped_before_anything_was_saved_leaves_no_directories_of_fewer_epochs(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 0, Killed)
        assert train(f"{GRID} trainer.max_epochs=2 name=s").code == 1
    assert train(f"{GRID} trainer.max_epochs=3 name=s").code == 0
    assert not list((here / "multirun/s").glob("*max_epochs=2*"))
    assert [row["epochs"] for row in load_results(here / "multirun/s")] == [3, 3]


def test_states_of_fewer_epochs_are_gone_when_the_longer_training_has_ended(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = here / "multirun/further" / file_names.STATES
    with monkeypatch.context() as patch:
        stop_after(patch, 1, Killed)
        assert train(f"{GRID} {ALWAYS} trainer.max_epochs=4 name=further").code == 1
    assert states.exists()
    assert train(f"{GRID} trainer.max_epochs=5 name=further").code == 0
    assert not states.exists()


def test_a_table_says_that_longer_runs_are_trained_from_their_beginning(train: Callable[..., Any], here: Path) -> None:
    assert train(f"{GRID} record=table trainer.max_epochs=1 name=further").code == 0
    ended = train(f"{GRID} record=table trainer.max_epochs=2 name=further")
    assert "2 runs: 2 new (2 of them from their beginning: a table keeps no states" in " ".join(ended.out.split())
    assert [row["epochs"] for row in load_results(here / "multirun/further")] == [2, 2]


def test_directories_of_shorter_runs_are_removed_when_the_longer_ones_are_in_a_table(
    train: Callable[..., Any], here: Path
) -> None:
    assert train(f"{GRID} trainer.max_epochs=1 name=further").code == 0
    assert train(f"{GRID} record=table trainer.max_epochs=2 name=further").code == 0
    assert not [path for path in (here / "multirun/further").iterdir() if path.is_dir()]
    assert [row["epochs"] for row in load_results(here / "multirun/further")] == [2, 2]


@pytest.mark.parametrize("named", [True, False])
def test_runs_that_were_in_a_table_say_that_they_are_trained_from_their_beginning(
    named: bool, train: Callable[..., Any], here: Path
) -> None:
    grid = [*GRID.split(), *(() if named else ["hydra.sweep.subdir=run-${seed}"])]
    assert train([*grid, "trainer.max_epochs=3", "name=whole"]).code == 0
    assert train([*grid, "trainer.max_epochs=1", "name=further"]).code == 0
    for action in ("compact", "restore"):
        assert run_script("sweep.py", ["multirun/further", action, "--yes"]).code == 0
    ended = train([*grid, "trainer.max_epochs=3", "name=further"])
    assert "2 runs: 2 new (2 of them from their beginning: a table keeps no states" in " ".join(ended.out.split())
    assert (ended.code, "WARNING" in ended.err) == (0, False)
    assert_same(here / "multirun/further", here / "multirun/whole")
    assert not (here / "multirun/further/.set_aside").exists()
    assert len(list((here / "multirun/further").glob(f"*/{file_names.RESULT}"))) == 2


def test_a_crash_between_a_longer_run_and_the_removal_of_the_shorter_one_leaves_nothing(
    train: Callable[..., Any], here: Path
) -> None:
    directory = here / "multirun/further"
    assert train(f"{GRID} trainer.max_epochs=2 name=further").code == 0
    shorter = run_of(directory, 1)
    shutil.copytree(shorter, here / "kept")
    (here / "kept/notes.txt").write_text("mine")
    assert train(f"{GRID} trainer.max_epochs=3 name=further").code == 0
    (here / "kept").rename(shorter)
    ended = train(f"{GRID} trainer.max_epochs=3 name=further")
    assert "2 runs: 2 done before" in ended.out
    assert not shorter.exists()
    assert [path.name for path in (directory / ".set_aside").rglob("*") if path.is_file()] == ["notes.txt"]
    shorter.mkdir()  # of which a crash has left no more
    train(f"{GRID} trainer.max_epochs=3 name=further")
    assert not shorter.exists()


def test_a_damaged_shorter_run_is_set_aside_and_trained_from_its_beginning(
    train: Callable[..., Any], here: Path
) -> None:
    assert train(f"{GRID} trainer.max_epochs=3 name=whole").code == 0
    assert train(f"{GRID} trainer.max_epochs=2 name=further").code == 0
    shorter = run_of(here / "multirun/further", 0)
    weights = shorter / file_names.LAST
    weights.write_bytes(weights.read_bytes()[:-100] + bytes(100))
    assert train(f"{GRID} trainer.max_epochs=3 name=further").code == 0
    assert (here / "multirun/further/.set_aside" / f"{shorter.name}-0" / file_names.LAST).exists()
    shutil.rmtree(here / "multirun/further/.set_aside")
    assert_same(here / "multirun/further", here / "multirun/whole")


def test_runs_keep_their_names_where_the_number_of_epochs_is_not_in_them(train: Callable[..., Any], here: Path) -> None:
    grid = [*GRID.split(), "hydra.sweep.subdir=run-${seed}"]
    assert train([*grid, "trainer.max_epochs=3", "name=whole"]).code == 0
    assert train([*grid, "trainer.max_epochs=2", "name=further"]).code == 0
    ended = train([*grid, "trainer.max_epochs=3", "name=further"])
    assert ended.code == 0, ended.err
    assert "2 trained for fewer epochs before" in ended.out
    assert_same(here / "multirun/further", here / "multirun/whole")


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("optimizer.schedule=cosine", "optimizer.schedule=cosine divides a rate over all epochs"),
        ("optimizer.schedule=constant,one_cycle", "optimizer.schedule=one_cycle divides a rate over all epochs"),
        ("prune.fraction=0.5", "prune.fraction=0.5 without prune.every prunes at equal parts"),
        ("halving.rungs=[1]", "halving.rungs compares all runs"),
    ],
)
def test_a_training_whose_beginning_depends_on_its_length_is_refused(
    settings: str, reason: str, train: Callable[..., Any], here: Path
) -> None:
    assert train(f"{GRID} {settings} trainer.max_epochs=2 name=s").code == 0
    ended = train(f"{GRID} {settings} trainer.max_epochs=3 name=s")
    assert ended.code == 2
    assert reason in ended.line and "choose another name=" in ended.line
    assert {row["epochs"] for row in load_results(here / "multirun/s")} <= {1, 2}


def test_fewer_epochs_and_a_swept_number_of_epochs_are_not_a_longer_training(
    train: Callable[..., Any], here: Path
) -> None:
    assert train(f"{GRID} trainer.max_epochs=2 name=s").code == 0
    ended = train(f"{GRID} trainer.max_epochs=1 name=s")
    assert (ended.code, "trainer.max_epochs is 2 there and 1 here" in ended.line) == (2, True)
    ended = train(f"{GRID} trainer.max_epochs=2,3 name=s")
    assert "4 runs: 2 done before, 2 new" in ended.out
    assert sorted(row["epochs"] for row in load_results(here / "multirun/s")) == [2, 2, 3, 3]


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize(("before", "named"), [(None, True), (1, False)])
def test_a_number_of_epochs_with_which_no_run_has_ended_does_not_bind_the_sweep(
    before: int | None, named: bool, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [*GRID.split(), *(() if named else ["hydra.sweep.subdir=run-${seed}"])]
    for name, epochs in (("two", 2), ("six", 6)):
        assert train([*grid, f"trainer.max_epochs={epochs}", f"name={name}"]).code == 0
    if before:
        assert train([*grid, f"trainer.max_epochs={before}", "name=s"]).code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 1, Killed)
        assert train([*grid, ALWAYS.strip(), "trainer.max_epochs=6", "name=s"]).code == 1
    planned = train([*grid, "trainer.max_epochs=2", "name=s", "dry_run=true"])
    assert planned.code == 0, planned.err
    assert "begun with more epochs, of which none had ended" in planned.out
    ended = train([*grid, "trainer.max_epochs=2", "name=s"])
    assert ended.code == 0, ended.err
    assert not (here / "multirun/s" / file_names.STATES).exists()
    assert_same(here / "multirun/s", here / "multirun/two")
    assert "2 runs: 2 done before" in train([*grid, "trainer.max_epochs=2", "name=s"]).out
    assert train([*grid, "trainer.max_epochs=6", "name=s"]).code == 0
    assert_same(here / "multirun/s", here / "multirun/six")
    assert train([*grid, "trainer.max_epochs=2", "name=s"]).code == 2


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("epochs", [3, 4, 6])
def test_runs_that_were_extended_one_by_one_are_recognised(epochs: int, train: Callable[..., Any], here: Path) -> None:
    directory = here / "multirun/s"
    grid = f"{GRID} stack.engine=torch name=s"
    assert train(f"{grid} trainer.max_epochs=2").code == 0
    resumed = run_of(directory, 1)
    assert train([f'resume="{resumed}"', "trainer.max_epochs=4"]).code == 0
    before = (resumed / file_names.RESULT).read_bytes()
    same = train(f"{grid} trainer.max_epochs=2")
    assert "2 runs: 2 done before" in same.out
    assert [row["epochs"] for row in load_results(directory)] == [2, 4]
    ended = train(f"{grid} trainer.max_epochs={epochs}")
    assert ended.code == 0, ended.err
    assert [row["epochs"] for row in load_results(directory)] == [epochs, max(4, epochs)]
    if epochs <= 4:
        assert "2 runs: 1 done before, 1 trained for fewer epochs" in ended.out
        assert (resumed / file_names.RESULT).read_bytes() == before
    else:
        assert not resumed.exists()
        assert train(f"{GRID} stack.engine=torch name=whole trainer.max_epochs={epochs}").code == 0
        run = run_of(directory, 1)
        whole = run_directory.read_result(here / "multirun/whole" / run.name)
        assert run_directory.read_result(run).metrics == whole.metrics
