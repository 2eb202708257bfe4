"""Trackers: every finished run has one record, whatever was killed, grown, trained further or out of reach before."""

import csv
import io
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlpexp.store import file_names, run_directory
from mlpexp.tracking.curves_file import STATUS
from mlpexp.tracking.trackers import TRACKERS, Entry, Group, TrackedRun
from mlpexp.training import run_tracking

SMALL = "data=iris model.width=4 trainer.max_epochs=2 tracking.figures=false tracking.diagnostics=false"
SWEEP = f"-m name=s {SMALL} "
THERE = Path("multirun/s")


class Memory:
    """A tracker that keeps what it is told, by the group's key."""

    kept: ClassVar[dict[str, dict[str, TrackedRun]]] = {}
    fails: ClassVar[bool] = False

    def __init__(self, group: Group) -> None:
        self.runs = self.kept.setdefault(group.key, {})

    def known(self) -> Container[str]:
        return self.runs

    def record(self, runs: Sequence[TrackedRun]) -> None:
        if self.fails:
            raise ConnectionError("no answer")
        for run in runs:
            for earlier in run.earlier:
                self.runs.pop(earlier, None)
            self.runs[run.identity] = run

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """The registry with one more tracker, which the runs of this test are recorded in."""
    monkeypatch.setattr(Memory, "kept", {})
    TRACKERS.register("memory", Entry(maker=Memory))
    yield
    TRACKERS.remove("memory")


def recorded() -> dict[str, TrackedRun]:
    """Of the one group, by the runs' names."""
    [runs] = Memory.kept.values()
    assert len({run.name for run in runs.values()}) == len(runs)
    return {run.name: run for run in runs.values()}


def curves(directory: Path = THERE) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((directory / "curves.csv").read_text())))


@pytest.mark.parametrize("record", ["run", "table"])
def test_runs_of_stacks_are_recorded_with_the_numbers_of_their_files(train, record):
    grid = f"{SWEEP} seed=0,1 model.activation=tanh,relu record={record}"
    assert train(f"{grid} tracker=memory").code == 0
    assert len(recorded()) == 4
    assert train(f"{grid.replace('name=s', 'name=other')} record=run").code == 0
    for directory in Path("multirun/other").glob("*seed*"):
        text, result = (directory / file_names.METRICS).read_text(), run_directory.read_result(directory)
        run = recorded()[directory.name]
        assert run.history == run_directory.parse_metrics(text, directory)
        assert (run.identity, run.status, run.final) == (result.identity, result.status, result.metrics)
        assert run.params["seed"] == int(directory.name[-1])
        assert run.params["model.activation"] in directory.name or "activation" not in directory.name
        assert len(run.epoch_ends) == 2
        assert run.started < run.epoch_ends[0] < run.epoch_ends[1] <= run.ended
        assert set(run.files) == (set(run_tracking.ARTIFACTS) if record == "run" else set())


def test_a_sweep_that_grows_or_is_trained_further_has_one_record_for_each_training(train):
    assert train(f"{SWEEP} seed=0,1 tracker=[memory,csv]").code == 0
    assert train(f"{SWEEP} seed=0,1,2 tracker=[memory,csv]").code == 0
    before = recorded()
    assert len(before) == 3
    assert train(f"{SWEEP} seed=0,1,2 tracker=[memory,csv] trainer.max_epochs=3").code == 0
    assert [len(run.history) for run in recorded().values()] == [3, 3, 3]
    assert not {run.identity for run in recorded().values()} & {run.identity for run in before.values()}
    assert Counter(row["epoch"] for row in curves() if row["metric"] == "val/loss") == {"0": 3, "1": 3, "2": 3}


def test_a_sweep_that_was_trained_without_a_tracker_is_recorded_by_the_same_command(train):
    assert train(f"{SWEEP} seed=0,1").code == 0
    assert train(f"{SWEEP} seed=0,1 tracker=memory").code == 0
    assert len(recorded()) == 2
    THERE.rename("multirun/moved")
    assert train(f"{SWEEP} name=moved seed=0,1,2 tracker=memory").code == 0
    assert len(recorded()) == 3


def test_a_tracker_that_fails_is_one_line_and_the_next_start_records_what_is_missing(train, monkeypatch):
    monkeypatch.setattr(Memory, "fails", True)
    ended = train(f"{SWEEP} seed=0,1 model.width=4,5 tracker=[memory,csv]")
    assert ended.code == 0
    assert "tracker=memory does not record runs now: ConnectionError: no answer" in ended.line
    assert "the same command records them" in ended.line
    assert len({row["run"] for row in curves()}) == 4
    monkeypatch.setattr(Memory, "fails", False)
    assert train(f"{SWEEP} seed=0,1 model.width=4,5 tracker=[memory,csv]").code == 0
    assert len(recorded()) == 4


def test_a_crash_between_training_and_tracking_loses_and_repeats_nothing(train, monkeypatch):
    grid = f"{SWEEP} seed=0,1 model.width=4,5 tracker=[memory,csv] hydra.launcher.backend=process"

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "record", die)
        ended = train(grid)
        assert ended.code == 130
    assert not any(Memory.kept.values())
    assert train(grid).code == 0
    assert len(recorded()) == 4
    assert Counter(row["run"] for row in curves() if row["metric"] == STATUS) == Counter(list(recorded()))


def test_rows_that_a_crash_has_truncated_are_written_again(train):
    assert train(f"{SWEEP} seed=0,1 tracker=csv").code == 0
    whole = curves()
    path = THERE / "curves.csv"
    path.write_text(path.read_text()[:-30])
    assert train(f"{SWEEP} seed=0,1 tracker=csv").code == 0
    assert sorted(curves(), key=str) == sorted(whole, key=str)


def test_the_table_of_curves_is_not_written_through_a_link(train, here):
    (here / "mine.csv").write_text("mine")
    assert train(f"{SWEEP} seed=0").code == 0
    (THERE / "curves.csv").symlink_to(here / "mine.csv")
    ended = train(f"{SWEEP} seed=0 tracker=csv")
    assert ended.code == 0
    assert "is a symbolic link; nothing is written through it" in ended.line
    assert (here / "mine.csv").read_text() == "mine"


def test_what_trains_alone_in_a_sweep_is_recorded_with_it(train):
    assert train(f"{SWEEP} seed=0 model.variant=torch_nn,backprop tracker=memory").code == 0
    assert len(recorded()) == 2


@pytest.mark.parametrize("launcher", ["hydra/launcher=basic"])
def test_another_launchers_sweep_is_one_group(train, launcher):
    assert train(f"{SWEEP} seed=0,1 tracker=memory {launcher}").code == 0
    assert len(recorded()) == 2


def test_a_run_alone_is_recorded_and_stays_one_when_it_is_trained_further(train):
    assert train(f"{SMALL} hydra.run.dir=run tracker=memory").code == 0
    assert [(name, len(run.history)) for name, run in recorded().items()] == [("run", 2)]
    assert train("resume=run trainer.max_epochs=3").code == 0
    assert len(recorded()["run"].history) == 3


def test_a_run_of_a_tracked_sweep_that_is_trained_further_alone_keeps_its_record(train):
    assert train(f"{SWEEP} seed=0,1 tracker=memory").code == 0
    [first, _] = sorted(recorded())
    assert train([f'resume="{THERE / first}"', "trainer.max_epochs=3"]).code == 0
    assert sorted(len(run.history) for run in recorded().values()) == [2, 3]


def test_diverged_runs_are_recorded_and_failed_ones_are_not(train):
    boom = "+callbacks.boom._target_=test_trackers.Boom"
    assert train(f"{SWEEP} seed=0 optimizer.lr=0.1,1e38 model.activation=relu tracker=memory").code == 0
    assert sorted(run.status for run in recorded().values()) == ["diverged", "ok"]
    assert train(f"-m name=failing {SMALL} seed=0 tracker=memory {boom}").code == 1
    assert sum(len(runs) for runs in Memory.kept.values()) == 2


class Boom:
    """No callback of Lightning's."""


@pytest.mark.parametrize("name", ["csv", "none", "memory"])
def test_event_files_are_written_where_tensorboard_is_named(train, name):
    assert train(f"{SWEEP} seed=0 tracker={name}").code == 0
    assert not list(THERE.glob("*/events*"))
    if name != "none":
        assert train(f"-m name=both {SMALL} seed=0 tracker=[tensorboard,{name}]").code == 0
        assert len(list(Path("multirun/both").glob("*/events*"))) == 1


def test_a_tracker_changes_neither_the_identity_nor_the_bits_of_a_run(train):
    assert train(f"{SWEEP} seed=0").code == 0
    assert train(f"-m name=other {SMALL} seed=0 tracker=csv").code == 0
    results = [run_directory.read_result(next(Path(f"multirun/{name}").glob("*seed=0"))) for name in ("s", "other")]
    assert results[0].identity == results[1].identity
    assert results[0].metrics == results[1].metrics


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tracker=mlflwo", "unknown tracker 'mlflwo'; choose one of"),
        ("-m seed=0 tracker=csv,wandb", "all runs of a sweep have the same trackers; several are a list: 'tracker=["),
        ("tracker=[none,csv]", "names none beside others"),
    ],
)
def test_trackers_that_are_not_possible_are_refused_in_one_line(train, monkeypatch, words, said):
    monkeypatch.setattr("mlpexp.tracking.trackers.find_spec", lambda name: object())
    assert said in train(words).line


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_library_that_is_missing_is_named_before_anything_is_written(train, here, monkeypatch, name):
    monkeypatch.setattr("mlpexp.tracking.trackers.find_spec", lambda name: None)
    ended = train(f"{SWEEP} seed=0 tracker={name}")
    assert ended.code == 2
    assert f"install it with: pip install 'mlpexp[{name}]'" in ended.line
    assert not list(here.iterdir())
