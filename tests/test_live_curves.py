"""While a sweep trains, TensorBoard shows curves of its runs, until they are written; afterwards nothing is left."""

import json
import math
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_script
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from test_events import hparams_page
from test_saved_states import Killed, stop_after

from mlpexp import load_results
from mlpexp.store import run_directory
from mlpexp.store.file_names import UNDER_WAY
from mlpexp.tracking import live_curves
from mlpexp.tracking.live_curves import LiveCurves, clean, summary
from mlpexp.tracking.run_events import curve_titles

TIMES = [1e9 + second for second in range(100)]
GRID = "-m seed=range(12) model.width=4 data.batch_size=500 trainer.max_epochs=4 hydra.launcher.backend=process name=s "

Shown = dict[str, dict[str, dict[int, float]]]
"""by line and tag, the value at each step"""


def shown(directory: Path) -> Shown:
    """What TensorBoard has read of a directory; no point is there twice."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    lines: Shown = {}
    for line, plugins in multiplexer.Runs().items():
        for tag in (tag for tag in plugins["tensors"] if not tag.startswith("custom_scalars")):
            points = [(event.step, float(event.tensor_proto.float_val[0])) for event in multiplexer.Tensors(line, tag)]
            assert all(a < b for (a, _), (b, _) in pairwise(points)), (line, tag, points)
            lines.setdefault(line, {})[tag] = dict(points)
    return lines


def without_time(lines: Shown) -> Shown:
    return {line.partition("/")[2]: tags for line, tags in lines.items()}


def curves(directory: Path) -> LiveCurves:
    return LiveCurves(directory, "the runs")


def update(live: LiveCurves, histories: dict[str, list[dict[str, float]]]) -> None:
    live.update(histories, TIMES, curve_titles())


def history(seed: int, epochs: int) -> list[dict[str, float]]:
    generator = np.random.default_rng(seed)
    return [{"val/loss": generator.uniform(), "val/acc": generator.uniform()} for _ in range(epochs)]


def test_the_statistics_are_those_of_the_finite_values() -> None:
    values = [0.5, 3.25, math.nan, 1.0, 7.5, math.inf, 2.0, 0.125]
    rows = [{"val/loss": value, "val/acc": value, "mine/size": value} for value in values]
    rows[0]["rare/column"] = 4.0
    found, finite = summary(rows), [value for value in values if math.isfinite(value)]
    deciles = statistics.quantiles(finite, n=10, method="inclusive")
    for column in ("val/loss", "val/acc", "mine/size"):
        assert found["median"][column] == pytest.approx(statistics.median(finite))
        assert found["10 % quantile"][column] == pytest.approx(deciles[0])
        assert found["90 % quantile"][column] == pytest.approx(deciles[-1])
    assert found["best"] == {"val/loss": min(finite), "val/acc": max(finite)}  # others have no direction
    assert found["median"]["rare/column"] == 4
    assert summary([{"val/loss": math.nan}])["median"] == {}


def test_the_lines_of_many_runs_grow_and_follow_those_that_train(tmp_path: Path) -> None:
    live, histories = curves(tmp_path), {f"run {i}": history(i, 9) for i in range(20)}

    def check(part: dict[str, list[dict[str, float]]]) -> None:
        update(live, part)
        lines = without_time(shown(tmp_path))
        assert set(lines) == {f"{statistic}/the runs" for statistic in live_curves.STATISTICS}
        for epoch in range(max(map(len, part.values()))):
            values = [rows[epoch]["val/loss"] for rows in part.values() if len(rows) > epoch]
            assert lines["median/the runs"]["val/loss"][epoch] == pytest.approx(statistics.median(values))
            assert lines["best/the runs"]["val/loss"][epoch] == pytest.approx(min(values))
        assert len(lines["median/the runs"]["val/loss"]) == max(map(len, part.values()))

    check({name: rows[:2] for name, rows in histories.items()})
    check({name: rows[:3] for name, rows in histories.items()})
    check({name: rows[: 5 if number < 12 else 3] for number, (name, rows) in enumerate(histories.items())})
    check({name: rows[:5] for name, rows in histories.items()})  # the others have caught up
    check({name: rows[:5] for name, rows in [*histories.items()][:13]})  # seven have left
    check({name: rows[:4] for name, rows in [*histories.items()][1:12]})  # a stack that failed begins again
    live.close()
    assert shown(tmp_path) == {}


def test_few_runs_have_a_line_each(tmp_path: Path) -> None:
    live, histories = curves(tmp_path), {f"a/run {i}": history(i, 6) for i in range(11)}
    few = [*histories][3:9]
    for epochs in (1, 4, 6):
        update(live, {name: histories[name][:epochs] for name in few})
    lines = without_time(shown(tmp_path))
    assert set(lines) == set(few)
    for name in few:
        expected = [row["val/acc"] for row in histories[name]]
        assert [*lines[name]["val/acc"].values()] == pytest.approx(expected)
    update(live, histories)
    assert set(without_time(shown(tmp_path))) == {f"{statistic}/the runs" for statistic in live_curves.STATISTICS}
    update(live, {name: histories[name] for name in few[:2]})
    assert set(without_time(shown(tmp_path))) == set(few[:2])
    live.close()
    clean(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("runs", [3, 30])
def test_runs_of_a_lost_worker_are_shown_once(runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, next_one, other = curves(tmp_path), curves(tmp_path), LiveCurves(tmp_path, "others")
    histories = {f"lr=[{i}]": history(i, 3) for i in range(runs)}  # brackets are no pattern
    update(other, {f"lr=[{i}]x": history(i, 2) for i in range(runs)})
    monkeypatch.setattr(live_curves, "_TIME", "10.31.05")
    update(lost, histories)
    monkeypatch.setattr(live_curves, "_TIME", "10.31.09")
    update(next_one, {name: rows[:2] for name, rows in histories.items()})
    times = sorted(line.partition("/")[0] for line in shown(tmp_path))
    assert "10.31.05" not in times
    assert len(times) == 2 * min(runs, len(live_curves.STATISTICS))
    for live in (lost, next_one, other):
        live.close()
    assert shown(tmp_path) == {}


@pytest.mark.parametrize("runs", [3, 30])
def test_of_many_epochs_some_are_shown_among_them_the_last(runs: int, tmp_path: Path) -> None:
    live, epochs = curves(tmp_path), 10_000
    rows = [{"val/loss": 1 / (epoch + 1)} for epoch in range(epochs)]
    live.update({f"run {i}": rows for i in range(runs)}, range(epochs + 1), curve_titles())
    for tags in shown(tmp_path).values():
        assert len(tags["val/loss"]) <= live_curves.MAX_POINTS
        assert {0, epochs - 1} <= tags["val/loss"].keys()
        assert all(value == pytest.approx(1 / (epoch + 1)) for epoch, value in tags["val/loss"].items())
    live.close()


def test_what_is_not_a_line_stays_where_it_is(tmp_path: Path) -> None:
    live = curves(tmp_path / "lines")
    update(live, {f"run {i}": history(i, 2) for i in range(20)})
    [line, *_] = (tmp_path / "lines").glob("*/median/*")
    (line / "notes.txt").write_text("mine")
    (tmp_path / "lines" / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.live").write_text("mine")
    (tmp_path / "lines/10.10.10").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    live.close()
    clean(tmp_path / "lines")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == sorted([line / "notes.txt", tmp_path / "elsewhere/a.live"])
    assert (tmp_path / "lines/empty").is_dir()


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Shown]]:
    """Curves are brought up to date after each epoch; the list has what was shown before it was removed."""
    seen: list[Shown] = []
    close = LiveCurves.close

    def noted(self: LiveCurves) -> None:
        if lines := shown(self._directory):
            seen.append(without_time(lines))
        close(self)

    monkeypatch.setattr(live_curves, "EVERY_S", 0.0)
    monkeypatch.setattr(live_curves, "SHARE", 0)
    monkeypatch.setattr(LiveCurves, "close", noted)
    yield seen


def recorded(sweep: Path) -> dict[str, list[dict[str, float]]]:
    """The history of each run by its name, as its metrics.csv has it."""
    return {
        path.parent.name: run_directory.parse_metrics(path.read_text(), path) for path in sweep.glob("*/metrics.csv")
    }


def test_a_sweep_shows_its_stacks_until_they_are_written(
    removed: list[Shown], train: Callable[..., Any], here: Path
) -> None:
    assert train(GRID + "model.width=4,5 early_stopping.patience=1 early_stopping.min_delta=0.05").code == 0
    histories = recorded(here / "multirun/s")
    assert len(removed) == 2
    for width, lines in zip((4, 5), removed, strict=True):
        of_stack = {name: rows for name, rows in histories.items() if f"width={width}" in name}
        [first] = (name for name in of_stack if name.endswith("seed=0"))
        for column in ("train/loss", "train/acc", "val/loss", "val/acc"):
            best = max if column.endswith("acc") else min
            points = lines[f"best/12 runs from {first}"][column], lines[f"median/12 runs from {first}"][column]
            for epoch in range(max(map(len, of_stack.values()))):
                values = [rows[epoch][column] for rows in of_stack.values() if len(rows) > epoch]
                assert points[0][epoch] == pytest.approx(best(values))
                assert points[1][epoch] == pytest.approx(statistics.median(values))
    assert not (here / "multirun/s" / UNDER_WAY).exists()


@pytest.mark.parametrize(
    "more",
    [
        "record=table",
        "seed=range(3)",
        "halving.rungs=[1,2] halving.factor=2",
        "hydra.launcher.backend=fork hydra.launcher.workers=2 seed=range(30)",
        "stack.engine=torch optimizer=adam",
    ],
)
def test_every_kind_of_sweep_shows_its_runs(
    more: str, removed: list[Shown], train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = here / "seen.jsonl"  # worker processes have lists of their own
    close = LiveCurves.close

    def noted(self: LiveCurves) -> None:
        with log.open("a") as opened:
            opened.write(json.dumps({name: len(line._log.path.read_bytes()) for name, line in self._lines.items()}))
            opened.write("\n")
        close(self)

    monkeypatch.setattr(LiveCurves, "close", noted)
    keys = {word.partition("=")[0] for word in more.split()}
    words = [word for word in GRID.split() if word.partition("=")[0] not in keys]
    assert train(f"{' '.join(words)} {more}").code == 0
    seen = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [line for shown_lines in seen for line in shown_lines]
    if "range(3)" in more:
        assert sorted(lines) == sorted(row["name"] for row in load_results(here / "multirun/s"))
    elif "halving" in more:
        assert {len(shown_lines) for shown_lines in seen} == {3}  # 12, 6, and at the end 3 runs, which have lines each
    else:
        assert {line.partition("/")[0] for line in lines} == set(live_curves.STATISTICS)
    assert not (here / "multirun/s" / UNDER_WAY).exists()


def test_a_pruned_search_shows_its_trials(removed: list[Shown], train: Callable[..., Any], here: Path) -> None:
    words = (
        "-m name=s hydra/sweeper=optuna hydra.sweeper.n_trials=6 hydra.sweeper.pruner=median model.width=4 "
        "trainer.max_epochs=4 data.batch_size=500 hydra.launcher.backend=process "
        "'optimizer.lr=interval(0.01,1)'"
    )
    assert train(words).code == 0
    assert removed
    assert not (here / "multirun/s" / UNDER_WAY).exists()


@pytest.mark.parametrize("more", ["tracking.tensorboard=false", "tracker=none", "tracker=csv"])
def test_without_tensorboard_there_are_no_curves(
    more: str, removed: list[Shown], train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveCurves, "update", lambda *given: pytest.fail("curves were written"))
    assert train(f"{GRID} {more}").code == 0


def test_a_stack_that_ends_within_seconds_writes_none(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_curves, "EVERY_S", 60.0)
    monkeypatch.setattr(LiveCurves, "update", lambda *given: pytest.fail("curves were written"))
    assert train(GRID).code == 0


@pytest.fixture
def killed(removed: list[Shown], train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of which the process was killed in its third epoch; the state of its second is saved."""
    with monkeypatch.context() as patch:
        patch.setattr("mlpexp.training.train_stack.SAVE_SHARE", 0)
        patch.setattr(LiveCurves, "close", lambda self: [line._log.close() for line in self._lines.values()])
        patch.setattr("mlpexp.store.sweep_activity.remove_curves", lambda directory: None)
        stop_after(patch, 2, Killed)
        assert train(GRID + "stack.save_every_s=0.000001").code == 1
    assert len(shown(here / "multirun/s" / UNDER_WAY)) == len(live_curves.STATISTICS)
    return here / "multirun/s"


def test_after_a_crash_the_same_command_shows_every_epoch_once(
    killed: Path, removed: list[Shown], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = set(killed.glob(f"{UNDER_WAY}/*/*/*/*"))
    assert train(GRID + "stack.save_every_s=0.000001").code == 0
    [lines] = removed
    assert {epoch for tags in lines.values() for points in tags.values() for epoch in points} == {0, 1, 2, 3}
    assert len(lines) == len(live_curves.STATISTICS)
    assert earlier and not any(path.exists() for path in earlier)
    assert not (killed / UNDER_WAY).exists()


def test_what_a_killed_sweep_has_left_is_no_run_and_is_removed_by_housekeeping(killed: Path) -> None:
    before = load_results(killed)
    listed = run_script("sweep.py", [str(killed), "list"])
    assert listed.code == 0
    assert UNDER_WAY not in listed.out
    assert hparams_page(killed)[1] == []
    assert {row["name"] for row in before}.isdisjoint({UNDER_WAY})
    assert run_script("sweep.py", [str(killed), "rm", "--status", "failed", "--yes"]).code in (0, 2)
    assert load_results(killed) == before


@pytest.mark.parametrize("what", ["file", "link"])
def test_something_else_in_their_place_stays(
    what: str, removed: list[Shown], train: Callable[..., Any], here: Path
) -> None:
    place = here / "multirun/s" / UNDER_WAY
    assert train(GRID).code == 0
    if what == "file":
        place.write_text("mine")
    else:
        (here / "elsewhere").mkdir()
        place.symlink_to(here / "elsewhere", target_is_directory=True)
    ended = train(GRID + "seed=range(24)")
    if what == "file":
        assert ended.code == 0
        assert place.read_text() == "mine"
    else:
        assert (ended.code, "is a symbolic link" in ended.line) == (2, True)
        assert [*(here / "elsewhere").iterdir()] == []
