"""A sweep can be watched while it trains: its results and its report grow, and the time that is left is estimated."""

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from test_saved_states import stop_after

from mlpexp import load_results
from mlpexp.config.schema import Config
from mlpexp.report import watch
from mlpexp.report.build_report import build
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import directory_lock, sweep_activity
from mlpexp.sweep.time_left import FILES_S, OF_HYDRA_FILES, SHOWN_AFTER_S, STACK_EPOCH_S, STACK_S, TimeLeft

GRID = "-m seed=0,1,2 trainer.max_epochs=2 model.width=6 data.batch_size=300 hydra.launcher.backend=process name=s"


@dataclass
class _Job:
    config: Config = field(default_factory=Config)


@dataclass
class _Unit:
    """What `TimeLeft` reads of a unit."""

    origin: int
    cost: float
    size: int
    alone: bool = False
    trained_share: float = 0.0

    @property
    def jobs(self) -> list[_Job]:
        return [_Job()] * self.size


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpexp.sweep.time_left.SHOWN_AFTER_S", 1e-9)


def expected(unit: _Unit) -> float:
    """Seconds that the training of a stack of the default configuration should take."""
    epochs = Config().trainer.max_epochs * (1 - unit.trained_share)
    return unit.cost + STACK_S + STACK_EPOCH_S * epochs


def time_left(units: list[_Unit], clock: _Clock, hydra_files_s: float | None = None) -> TimeLeft:
    return TimeLeft(units, hydra_files_s, clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [0, 5])
def test_the_time_left_follows_the_cost_of_the_units_and_not_the_number_of_runs(before: int) -> None:
    clock = _Clock()
    units = [_Unit(0, 1.0, 10), _Unit(10, 9.0, 10)]  # narrow networks first, then wide ones
    left = time_left(units, clock)
    assert left.seconds() is None
    clock.now += 30  # imports and kernels
    left.trained(0, before)
    assert left.seconds() is None
    clock.now += 2 * expected(units[0]) * (10 - before) / 10  # twice the estimate
    left.trained(0, 10)
    files = FILES_S["run"]
    assert left.seconds() == pytest.approx(2 * expected(units[1]) + 20 * files)
    clock.now += 3
    assert left.seconds() == pytest.approx(2 * expected(units[1]) + 20 * files - 3)
    for _ in range(10):
        left.written(0)
    left.trained(10, 10)
    for _ in range(10):
        left.written(10)
    assert left.seconds() == pytest.approx(0)


def test_writing_has_a_pace_of_its_own() -> None:
    clock = _Clock()
    units = [_Unit(0, 1.0, 10), _Unit(10, 1.0, 10)]
    left = time_left(units, clock, 1e-3)
    left.trained(0, 0)
    clock.now += expected(units[0])
    left.trained(0, 10)
    assert left.seconds() == pytest.approx(expected(units[1]) + 20 * OF_HYDRA_FILES * 1e-3)
    left.written(0)  # what comes before the first file, the test, is no writing
    for _ in range(9):
        clock.now += 0.5
        left.written(0)
    assert left.seconds() == pytest.approx(expected(units[1]) + 10 * 0.5)


@pytest.mark.parametrize("wide", [1, 9])
def test_files_that_another_process_has_written_count_as_writing(wide: int) -> None:
    clock = _Clock()
    units = [_Unit(0, 1.0, 10), _Unit(10, wide, 10)]
    left = time_left(units, clock)
    left.trained(0, 0)
    clock.now += expected(units[0])
    left.trained(0, 10)
    clock.now += 4.0  # for ten runs, of which all are reported then
    for _ in range(10):
        left.written(0)
    assert left.seconds() == pytest.approx(expected(units[1]) + 10 * 0.4)


def test_nothing_is_announced_before_there_are_seconds_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpexp.sweep.time_left.SHOWN_AFTER_S", SHOWN_AFTER_S)
    clock = _Clock()
    left = time_left([_Unit(0, 8.0, 10)], clock)
    left.trained(0, 0)
    clock.now += SHOWN_AFTER_S / 2
    left.trained(0, 1)
    assert left.seconds() is None
    clock.now += SHOWN_AFTER_S
    left.trained(0, 2)
    assert left.seconds() is not None


def test_units_that_are_trained_at_once_and_units_that_continue_count_as_such() -> None:
    clock = _Clock()
    units = [_Unit(0, 1.0, 4), _Unit(4, 1.0, 4), _Unit(8, 0.5, 4, trained_share=0.5)]
    left = time_left(units, clock)
    left.trained(0, 0)
    left.trained(4, 0)
    clock.now += expected(units[0])
    left.trained(0, 4)
    left.trained(4, 4)
    after = expected(units[2]) + 12 * FILES_S["run"]
    assert left.seconds() == pytest.approx(after / 2)  # as two went on at once
    left.trained(8, 2)  # nothing new: this half was there
    assert left.seconds() == pytest.approx(after / 2)


def test_progress_under_a_name_of_the_whole_sweep_counts_all_units() -> None:
    clock = _Clock()
    units = [_Unit(0, 1.0, 4), _Unit(4, 1.0, 4)]
    left = time_left(units, clock)
    left.trained(-1, 0.0)
    clock.now += 10
    left.trained(-1, 4.0)
    assert left.seconds() == pytest.approx(10 + 8 * FILES_S["run"])


def test_the_report_of_an_unfinished_sweep_says_how_much_is_missing(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda: Interrupted("stopped by SIGTERM", 143))
        assert train(f"{GRID} model.depth=1,2").code == 143
    watched = run_script("report.py", ["multirun/s", "--watch"]).out.splitlines()
    said = " ".join(" ".join(watched).split())
    assert "The sweep is not complete: 0 of 6 planned runs have ended, 6 are missing" in said
    [line] = [line for line in watched if line.startswith("no process trains multirun/s now, and 6 planned runs are")]
    assert line in run_script("sweep.py", ["multirun/s", "show"]).out.splitlines()
    with directory_lock.hold(here / "multirun/s"):
        shown = run_script("sweep.py", ["multirun/s", "show"]).out.splitlines()
        assert {"a process trains it now", "6 planned runs are missing so far"} < {*shown}
    command = shlex.split(line.partition("this command continues it: ")[2])
    assert Path(command[1]).name == "train.py"
    assert train(command[2:]).code == 0
    said = run_script("report.py", ["multirun/s", "--watch"]).out + run_script("sweep.py", ["multirun/s", "show"]).out
    assert not re.search("no process|not complete|missing", said)
    shutil.copy(here / "multirun/s/results.csv", here / "whole.csv")
    lines = (here / "whole.csv").read_text().splitlines(keepends=True)
    (here / "multirun/s/results.csv").write_text("".join(lines[:3]))
    for row in load_results(here / "whole.csv")[2:]:
        shutil.rmtree(here / "multirun/s" / row["name"])
    said = " ".join(run_script("report.py", ["multirun/s"]).out.split())
    assert "2 of 6 planned runs have ended, 4 are missing" in said
    assert 'http-equiv="refresh"' not in (here / "multirun/s/report/index.html").read_text()


@pytest.mark.parametrize(
    "grid",
    [
        ["zip(model.width=[4,8],optimizer.lr=[0.1,0.05])", "seed=range(3)", "skip=model.width>4 and seed>1", "limit=4"],
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "model.width=choice(4,8)"],
    ],
)
def test_the_command_that_continues_a_sweep_is_the_one_that_started_it(
    grid: list[str], train: Callable[..., Any], here: Path
) -> None:
    words = ["-m", *grid, "trainer.max_epochs=1", "data.batch_size=500"]
    with directory_lock.released():
        assert train(words).code == 0
    [multirun] = here.rglob("multirun.yaml")
    command = sweep_activity.continuing_command(multirun.parent)
    assert command is not None
    results = (multirun.parent / "results.csv").read_text()
    again = train(shlex.split(command)[2:])
    assert again.code == 0, again.err
    assert (multirun.parent / "results.csv").read_text() == results  # nothing was trained again
    assert [*here.rglob("multirun.yaml")] == [multirun]


def test_a_watched_report_is_made_again_when_results_have_grown_and_ends_when_the_sweep_does(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = here / "multirun/s"
    assert train(GRID).code == 0
    whole = (sweep / "results.csv").read_text()
    names = [row["name"] for row in load_results(sweep)]
    shutil.move(sweep / names[2], here / "later")
    monkeypatch.setattr(watch, "MIN_WAIT_RATIO", 0)
    monkeypatch.setattr(watch, "MIN_WAIT_S", 0)
    waits: list[float] = []
    sweeping = directory_lock.take(sweep)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 6:
            directory_lock.release(sweeping)
        if len(waits) == 1:
            (sweep / "results.csv").write_text("".join(whole.splitlines(keepends=True)[:3]))
        elif len(waits) == 4:
            shutil.move(here / "later", sweep / names[2])
            (sweep / "results.csv").write_text(whole)

    (sweep / "results.csv").unlink()
    for name in names[:2]:
        shutil.move(sweep / name, here / name)
    found = []
    for written in watch.watch([sweep], lambda: build([sweep], refresh_s=15), sleep=sleep):
        page = written.page.read_text()
        found.append((written.missing, 'http-equiv="refresh" content="15"' in page))
        for name in names[:2]:
            if (here / name).exists():
                shutil.move(here / name, sweep / name)
    assert found == [(1, True), (0, False)]
    assert waits == [watch.POLL_S] * 6  # nothing had changed


def test_what_is_no_sweep_is_not_waited_for(here: Path) -> None:
    ended = run_script("report.py", ["nowhere", "--watch"])
    assert (ended.code, "nowhere does not exist" in ended.err) == (2, True)
    (here / "empty").mkdir()
    with pytest.raises(UserError, match="holds no"):
        next(watch.watch([here / "empty"], lambda: build([here / "empty"])))
