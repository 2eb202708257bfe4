"""A sweep that is started again: what is recognised, what is trained, what is refused, what is left alone."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome, run_script, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpexp import load_results
from mlpexp.runtime.errors import UserError
from mlpexp.store import directory_lock, file_names, run_directory, run_state, sweep_manifest
from mlpexp.store.run_state import State

QUICK = "trainer.max_epochs=1 tracking.diagnostics=false name=s"
SMALL = f"-m model.width=4,6 seed=1,2 {QUICK}"
RUNS = [f"width={width},max_epochs=1,seed={seed}" for width in (4, 6) for seed in (1, 2)]


@pytest.fixture(scope="session")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = run_script("train.py", SMALL.split())
    assert ended.code == 0, ended.err
    return place / "multirun"


@pytest.fixture
def sweep(_whole: Path, here: Path) -> Path:
    """The directory of a finished sweep of four runs, one's own to spoil."""
    shutil.copytree(_whole, here / "multirun")
    return here / "multirun/s"


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def times(sweep: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sweep.glob("*/result.json")}


def names(sweep: Path) -> list[str]:
    return [row["name"] for row in load_results(sweep)]


def test_the_same_command_again_trains_nothing_and_says_so(train, sweep: Path):
    before, table = times(sweep), (sweep / "results.csv").read_bytes()
    ended: Outcome = train(SMALL)
    assert (ended.code, ended.err) == (0, "")
    assert "4 runs: 4 done before" in ended.out
    assert (times(sweep), (sweep / "results.csv").read_bytes()) == (before, table)


@pytest.mark.parametrize("lost", [file_names.OVERRIDES, file_names.CONFIG, ".hydra/hydra.yaml", file_names.HYDRA])
def test_what_a_finished_run_has_lost_of_hydras_files_is_written_again(train, sweep: Path, lost: str):
    before, was = times(sweep), tree(sweep / RUNS[1])
    place = sweep / RUNS[1] / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    ended = train(SMALL)
    assert (ended.code, times(sweep)) == (0, before)
    now = tree(sweep / RUNS[1])
    assert now.keys() == was.keys()
    assert now | {".hydra/hydra.yaml": ""} == was | {
        ".hydra/hydra.yaml": ""
    }  # it names the directory, which was copied


def test_a_larger_grid_trains_only_what_is_new_and_a_smaller_one_deletes_nothing(train, sweep: Path):
    before = times(sweep)
    ended = train(f"-m seed=2,3,1 model.width=6,4 {QUICK}")  # in another order, too
    assert "6 runs: 4 done before, 2 new" in ended.out
    assert {name: time for name, time in times(sweep).items() if name in before} == before
    assert names(sweep) == [f"width={w},max_epochs=1,seed={s}" for s in (2, 3, 1) for w in (6, 4)]
    ended = train(f"-m seed=1 model.width=4 {QUICK}")
    assert "1 run: 1 done before" in ended.out
    assert names(sweep) == [RUNS[0]]
    assert len(times(sweep)) == 6


def test_a_named_sweep_grows_along_a_key_whose_value_is_given_alone(train, here: Path):
    command = "-m seed=1,2 trainer.max_epochs=1 tracking.diagnostics=false name=g"
    for words in ("model.activation=tanh optimizer=sgd", "model.activation=relu optimizer=sgd"):
        ended = train(f"{command} {words}")
        assert ended.code == 0, ended.err
    ended = train(f"{command} model.activation=relu optimizer=adam dry_run=true")
    assert ended.code == 0, ended.err
    ended = train(f"{command} model.activation=tanh,relu optimizer=sgd")
    assert "4 runs: 4 done before" in ended.out
    refused = train(f"{command} model.activation=tanh optimizer=sgd data=iris")
    assert refused.code == 2
    assert "another study" in refused.line


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{SMALL} optimizer.lr=0.5", "another study: optimizer.lr is 0.1 there and 0.5 here"),
        # a key that is younger than runs without it
        (f"{SMALL} model.parametrization=mup", "another study: model.parametrization is standard there and mup here"),
    ],
)
def test_another_study_is_refused_by_the_first_key_that_differs(train, sweep: Path, command: str, said: str):
    before = tree(sweep)
    ended = train(command)
    assert ended.code == 2
    assert said in ended.line
    assert "choose another name=" in ended.line
    assert tree(sweep) == before


def spoil(sweep: Path, how: str) -> str:
    """Damage the first run; returns how it is counted."""
    run = sweep / RUNS[0]
    marker = run / file_names.RESULT
    match how:
        case "no marker":
            marker.unlink()
        case "empty marker":
            marker.write_text("")
        case "newer marker":
            content = json.loads(marker.read_text()) | {"schema_version": 99}
            marker.write_text(json.dumps(content))
        case "changed marker":
            marker.write_text(marker.read_text().replace('"epochs": 1', '"epochs": 2'))
        case "torn weights":
            weights = run / file_names.BEST
            weights.write_bytes(weights.read_bytes()[:-7])
        case "link for a file":
            (run / file_names.METRICS).rename(sweep.parent / "elsewhere.csv")
            (run / file_names.METRICS).symlink_to(sweep.parent / "elsewhere.csv")
        case "fifo for a marker":
            marker.unlink()
            os.mkfifo(marker)
        case "failed" | "interrupted":
            result = run_directory.read_result(run)
            run_directory.write_result(run, dataclasses.replace(result, status=how))
            return how
        case "marker of another run":
            shutil.copy(sweep / RUNS[1] / file_names.RESULT, marker)
    return "damaged"


@pytest.mark.parametrize(
    "how",
    [
        "no marker",
        "empty marker",
        "newer marker",
        "changed marker",
        "torn weights",
        "link for a file",
        "fifo for a marker",
        "failed",
        "interrupted",
        "marker of another run",
    ],
)
def test_what_has_no_valid_marker_is_not_done_and_is_set_aside_not_overwritten(sweep: Path, how: str):
    run, identity = sweep / RUNS[0], run_directory.read_result(sweep / RUNS[0]).identity
    assert run_state.inspect(run, identity).state is State.DONE
    counted = spoil(sweep, how)
    content = names_in(run)
    found = run_state.inspect(run, identity)
    assert found.state.value == counted
    place = run_state.set_aside(found, sweep / ".set_aside")
    assert place == sweep / ".set_aside" / f"{RUNS[0]}-0"
    assert names_in(place) == content
    assert run_state.inspect(run, identity).state is State.NEW


def test_a_torn_run_is_trained_again_to_the_same_numbers(train, sweep: Path):
    before, weights = times(sweep), (sweep / "results.csv").read_text()
    spoil(sweep, "torn weights")
    spoil(sweep, "no marker")
    ended = train(SMALL)
    assert "4 runs: 3 done before, 1 damaged (set aside, trained again)" in ended.out
    assert {name for name, time in times(sweep).items() if before[name] != time} == {RUNS[0]}
    strip = [row | {"seconds": 0} for row in load_results(sweep)]
    (sweep / "results.csv").write_text(weights)
    assert strip == [row | {"seconds": 0} for row in load_results(sweep)]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 99}', "[" * 100_000])
def test_a_damaged_manifest_is_refused_until_it_is_moved_away(train, sweep: Path, content: str):
    (sweep / file_names.MANIFEST).write_text(content)
    before = tree(sweep)
    ended = train(SMALL)
    assert ended.code == 2
    assert "sweep.json" in ended.line
    assert tree(sweep) == before


@pytest.mark.parametrize("name", ["..", "../x", "", "a/../../b", "/a", 3])
def test_a_manifest_leads_nowhere_else(here: Path, name: object):
    content = {"constants": {}, "varied": [], "runs": {"0" * 64: name}, "schema_version": 1}
    (here / "sweep.json").write_text(json.dumps(content | {"sha256": run_directory.seal(content)}))
    with pytest.raises(UserError, match="is damaged; move it away"):
        sweep_manifest.read(here)


def test_a_dry_run_tells_the_plan_and_touches_nothing(train, sweep: Path, here: Path):
    spoil(sweep, "no marker")
    before = tree(here)
    ended = train(f"-m model.width=4,6,8 seed=1,2 {QUICK} dry_run=true")
    assert (ended.code, ended.err) == (0, "")
    assert "6 runs: 3 done before, 1 damaged (set aside, trained again), 2 new" in ended.out
    assert "dry run: nothing was trained or written" in ended.out
    assert tree(here) == before
    ended = train(f"-m seed=1,2 {QUICK.replace('name=s', 'name=t')} dry_run=true")
    assert "2 runs: 1 configuration x 2 seeds, in 1 stack" in ended.out
    assert tree(here) == before


@pytest.mark.parametrize("command", ["dry_run=true", "-m seed=1,2 hydra/launcher=basic dry_run=true"])
def test_a_dry_run_of_what_is_no_sweep_of_ours_trains_nothing_either(train, here: Path, command: str):
    ended = train(command)
    assert ended.code == 2
    assert "dry_run=true shows the plan of a sweep" in ended.err
    assert not list(here.rglob("result.json"))


def test_a_directory_in_use_names_who_uses_it(train, sweep: Path):
    program = "from pathlib import Path; from mlpexp.store import directory_lock"
    program += f"; directory_lock.take(Path({str(sweep)!r}))"
    program += "; print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        ended = train(SMALL)
        assert ended.code == 2
        assert f"in use by pid {holder.pid} on {os.uname().nodename}" in ended.line
    finally:
        holder.kill()
        holder.communicate()
    assert train(SMALL).code == 0  # a killed holder holds nothing


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda place: place.write_text("mine"), "is a file"),
    "foreign": (lambda place: (place / "thesis").mkdir(parents=True), "is not empty and holds no sweep"),
    "a link": (lambda place: place.symlink_to("/tmp"), "is a symbolic link"),
    "a link to nothing": (lambda place: place.symlink_to("nowhere"), "is a symbolic link"),
    "a link for a lock": (
        lambda place: (place.mkdir(), (place / ".lock").symlink_to("/tmp/x"))[0],
        ".lock is a symbolic link",
    ),
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_sweep_is_not_put_where_it_does_not_belong(train, here: Path, kind: str):
    (here / "multirun").mkdir()
    make, said = PLACES[kind]
    make(here / "multirun/s")
    before = tree(here)
    ended = train(SMALL)
    assert ended.code == 2
    assert said in ended.line
    assert tree(here) == before


INSIDE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a run's directory is a link": (lambda sweep: _moved_and_linked(sweep / RUNS[0]), "is a symbolic link"),
    "a run's directory is a file": (lambda sweep: (_removed(sweep / RUNS[0]), (sweep / RUNS[0]).touch()), "is a file"),
    "the shelf is a link": (
        lambda sweep: (spoil(sweep, "no marker"), (sweep / ".set_aside").symlink_to("/tmp"))[0],
        ".set_aside is a symbolic link",
    ),
}


def _moved_and_linked(run: Path) -> None:
    run.rename(run.parent.parent / "elsewhere")
    run.symlink_to("../elsewhere")


def _removed(run: Path) -> None:
    shutil.rmtree(run)


@pytest.mark.parametrize("kind", INSIDE)
def test_nothing_inside_a_sweep_leads_out_of_it(train, sweep: Path, here: Path, kind: str):
    make, said = INSIDE[kind]
    make(sweep)
    before = tree(here)
    ended = train(SMALL)
    assert ended.code == 2
    assert said in ended.line
    assert tree(here) == before


@pytest.mark.parametrize("place", ["/dev/null/x", "x" * 300, "/proc/x"])
def test_a_place_that_cannot_be_is_refused_as_such(train, here: Path, place: str):
    ended = train(["-m", "seed=1,2", "trainer.max_epochs=1", f"hydra.sweep.dir={place}"])
    assert ended.code in (1, 2)
    assert len(ended.lines) == 1, ended.err
    assert tree(here) == {}


def test_a_place_without_the_right_to_write_is_refused(train, here: Path, monkeypatch):
    monkeypatch.setattr("mlpexp.store.directory_checks.os.access", lambda *_: False)
    ended = train(SMALL)
    assert ended.code == 2
    assert "cannot be written to" in ended.line
    assert tree(here) == {}


@pytest.mark.parametrize("name", ["../../up", "a\nb", "🦊 <script>", "x" * 400, "."])
def test_any_name_is_one_directory_below_multirun(train, here: Path, name: str):
    command = ["-m", "seed=1,2", "model.width=4", "trainer.max_epochs=1", f"name='{name}'"]
    ended = train(command)
    assert ended.code == 0, ended.err
    assert len(list((here / "multirun").glob("*/sweep.json"))) == 1
    assert [path.name for path in here.iterdir()] == ["multirun"]
    assert "2 runs: 2 done before" in train(command).out


def test_the_basic_launcher_carries_on_too(train, here: Path):
    command = f"-m model.width=4,6 seed=1 {QUICK} hydra/launcher=basic tracking.figures=false"
    assert train(command).code == 0
    before = times(here / "multirun/s")
    assert list(before) == [RUNS[0], RUNS[2]]
    (here / "multirun/s" / RUNS[2] / file_names.RESULT).unlink()
    assert train(command).code == 0
    after = times(here / "multirun/s")
    assert {name for name in before if before[name] != after[name]} == {RUNS[2]}
    assert (here / "multirun/s/.set_aside" / f"{RUNS[2]}-0" / file_names.METRICS).exists()


MARKER = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@MARKER
@given(st.data())
def test_a_mutated_marker_is_rejected_or_means_the_same(sweep: Path, data: st.DataObject):
    run = sweep / RUNS[0]
    path = sweep.parent / "copy" / file_names.RESULT
    path.parent.mkdir(exist_ok=True)
    content, meaning = (run / file_names.RESULT).read_bytes(), run_directory.read_result(run)
    start = data.draw(st.integers(0, len(content) - 1))
    stop = data.draw(st.integers(start, min(len(content), start + 5)))
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=4)) + content[stop:])
    try:
        found = run_directory.read_result(path.parent)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found == meaning


def test_a_lock_is_given_back(here: Path):
    with directory_lock.hold(here):
        pass
    with directory_lock.hold(here):
        pass


def results(sweep: Path) -> dict[str, int]:
    """The modification time of each run's marker by the run's identity."""
    return {run_directory.read_result(p.parent).identity: p.stat().st_mtime_ns for p in sweep.rglob("result.json")}


@pytest.mark.parametrize(
    "grids",
    [
        ("model.width=4,6 seed=1,2", "model.width=4,6 seed=1,2,3", "model.width=4,6 seed=0,1,2,3"),
        ("seed=1,2,3", "seed=3", "seed=5,1,2,3"),
        ("seed=1,2", "seed=3,4", "seed=1,2,3,4"),
    ],
    ids=["grown", "shrunk, then grown in front", "other seeds"],
)
@pytest.mark.parametrize("subdir", ["${hydra.job.num}", "run ${hydra.job.num}/it"])
@pytest.mark.parametrize("record", ["run", "table"])
@pytest.mark.thorough(sample=3)
def test_a_finished_run_is_kept_where_names_shift_with_the_grid(train, here: Path, grids, subdir: str, record: str):
    sweep, before, known = here / "multirun/s", {}, set()
    for grid in grids:
        command = ["-m", *grid.split(), *QUICK.split(), "tracking.tensorboard=false", f"record={record}"]
        ended = train([*command, f"hydra.sweep.subdir={subdir}"])
        assert ended.code == 0, ended.err
        rows = load_results(sweep)
        assert len({row["name"] for row in rows}) == len(rows)
        if record == "run":
            now = results(sweep)
            assert {identity: now.get(identity) for identity in before} == before
            before = now
            for row in rows:
                config = (sweep / str(row["name"]) / ".hydra/config.yaml").read_text()
                assert f"\nseed: {row['seed']}\n" in f"\n{config}" if "seed" in row else True
        else:
            lines = (sweep / "runs.jsonl").read_text().splitlines()
            identities = [json.loads(json.loads(line[65:])["files"]["result.json"])["identity"] for line in lines]
            assert len(set(identities)) == len(identities)
            assert known <= set(identities)
            known = set(identities)
    assert not (sweep / ".set_aside").exists()


def test_a_finished_run_is_not_set_aside_for_another_seed_under_its_name(train, here: Path):
    for seed in (1, 2):
        command = ["-m", "model.width=4,6", f"seed={seed}", *QUICK.split(), "hydra.sweep.subdir=w${model.width}"]
        assert train(command).code == 0
    found = [run_directory.read_result(path.parent) for path in (here / "multirun/s").glob("*/result.json")]
    assert len({result.identity for result in found}) == len(found) == 4
    assert not (here / "multirun/s/.set_aside").exists()


def test_a_run_is_found_in_the_table_and_in_a_directory_whatever_is_recorded_now(train, here: Path):
    grid = f"-m model.width=4 seed=1,2 {QUICK} tracking.tensorboard=false"
    for i, more in enumerate(["record=table", "record=run", "record=table seed=1,2,3", "record=run seed=1,2,3,4"]):
        ended = train(f"{grid} {more}")
        assert ended.code == 0, ended.err
        assert i == 0 or f"{(0, 2, 2, 3)[i]} done before" in ended.out
    assert len(load_results(here / "multirun/s")) == 4
    assert len(list((here / "multirun/s").glob("*/result.json"))) == 1


@pytest.mark.parametrize("what", ["result.json", "metrics.csv", "checkpoints/best.ckpt", "sweep.json"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_cannot_be_read_is_an_error_and_nothing_is_trained_again(train, sweep: Path, monkeypatch, what, number):
    real = os.open

    def refuse(path: object, flags: int, *rest: object, **settings: object) -> int:
        if str(path).endswith(what) and not flags & os.O_WRONLY:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest, **settings)  # type: ignore[call-overload]

    before = tree(sweep)
    monkeypatch.setattr(os, "open", refuse)
    ended = train(SMALL)
    monkeypatch.setattr(os, "open", real)
    assert ended.code == (1 if number == errno.EIO else 2)
    assert what in ended.line
    assert tree(sweep) == before


def test_a_link_that_a_person_has_put_into_a_finished_run_does_not_make_it_torn(train, sweep: Path):
    (sweep / RUNS[0] / "weights").symlink_to("checkpoints/best.ckpt")
    before = times(sweep)
    assert "4 done before" in train(SMALL).out
    assert times(sweep) == before


def test_a_hard_linked_snapshot_keeps_its_content(train, here: Path):
    grid = f"-m model.width=4 seed=1,2 {QUICK} tracking.tensorboard=false record=table"
    assert train(grid).code == 0
    shutil.copytree(here / "multirun/s", here / "copy", copy_function=os.link)
    before = tree(here / "copy")
    assert before.keys() >= {"sweep.json", "runs.jsonl", "results.csv", ".lock"}
    assert train(f"{grid} seed=1,2,3").code == 0
    assert tree(here / "copy") == before


def test_runs_of_another_machine_or_version_are_named_in_one_line(train, here: Path):
    grid = f"-m model.width=4 {QUICK} tracking.tensorboard=false"
    assert train(f"{grid} seed=0,1").code == 0
    assert train(f"{grid} seed=0,1,2").err == ""
    for run in (here / "multirun/s").glob("*seed=[01]"):
        result = run_directory.read_result(run)
        assert result.environment["threads"] == 1
        assert result.environment["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
        environment = result.environment | {"cpu_capability": "NONE", "threads": 7}
        other = dataclasses.replace(result, environment=environment, versions=result.versions | {"torch": "1.0"})
        run_directory.write_result(run, other)
    ended = train(f"{grid} seed=0,1,2,3")
    assert ended.code == 0
    for part in ("2 with torch 1.0 (now", "2 with cpu_capability NONE (now", "2 with threads 7 (now 1)"):
        assert part in ended.err + ended.out
    assert len(ended.lines) <= 1


RACE = (
    "-m model.width=4 seed=range(6) trainer.max_epochs=4 halving.rungs=[1,2] halving.factor=2 name=s "
    "tracking.tensorboard=false"
)


@pytest.fixture(scope="module")
def _race(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("race")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = run_script("train.py", RACE.split())
    assert ended.code == 0, ended.err
    return place / "multirun"


@pytest.mark.parametrize("more", ["record=table", "optimizer.momentum=0.0", "++model.activation=tanh"])
def test_halving_carries_on_when_the_command_is_spelled_otherwise(train, _race: Path, here: Path, more: str):
    shutil.copytree(_race, here / "multirun")
    before = {row["name"]: row["status"] for row in load_results(here / "multirun/s")}
    ended = train(f"{RACE} {more}")
    assert ended.code == 0, ended.err
    assert "6 done before" in ended.out
    assert {row["name"]: row["status"] for row in load_results(here / "multirun/s")} == before
    ended = train(f"{RACE} {more} seed=range(9)")
    assert ended.code == 0, ended.err
