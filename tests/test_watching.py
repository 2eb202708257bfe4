"""A sweep can be watched while it trains: its results and its report grow."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from test_saved_states import stop_after

from mlpexp import load_results
from mlpexp.report import watch
from mlpexp.report.build_report import build
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.store import directory_lock, sweep_activity

GRID = "-m seed=0,1,2 trainer.max_epochs=2 model.width=6 data.batch_size=300 hydra.launcher.backend=process name=s"


def test_the_report_of_an_unfinished_sweep_says_how_much_is_missing(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda: Interrupted("stopped by SIGTERM", 143))
        assert train(f"{GRID} model.depth=1,2").code == 143
    watched = run_script("report.py", ["multirun/s", "--watch"]).out.splitlines()
    said = " ".join(" ".join(watched).split())
    assert "The sweep is not complete: 0 of 6 planned runs have ended, 6 are missing; the command" in said
    assert "No run has ended yet, so nothing can be compared." in said
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
