"""The directories of shorter runs whose files are overwritten by longer ones: nothing but their own files changes."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_saved_states import assert_same

from mlpexp.store import file_names, recycled_directory, run_state
from mlpexp.store.recycled_directory import RecycledDirectory
from mlpexp.store.run_directory import Result, checksums, write_result
from mlpexp.store.run_state import State, SurveyedRun

GRID = "-m seed=range(4) data=iris model.width=4 hydra.launcher.backend=process"
EVENTS = "events.out.tfevents.1.host.1.0"


@pytest.fixture
def shorter(here: Path) -> SurveyedRun:
    """A finished run in `here/sweep/short`."""
    place = here / "sweep/short"
    contents = {file_names.METRICS: "a" * 50, EVENTS: "events", file_names.LAST: "b" * 5, file_names.LOG: ""}
    contents |= {f"{file_names.HYDRA}/{name}": name for name in file_names.OF_HYDRA}
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)
    listed = [file_names.METRICS, EVENTS, file_names.LAST]
    numbers: dict[str, Any] = {"metrics": {}, "objective": 1.0, "seconds": {"fit": 1.0}, "versions": {}}
    result = Result(
        status="ok", monitor="val/loss", epoch=0, epochs=1, identity="i", data_digest="d", **numbers
    )  # fmt: skip
    write_result(place, replace(result, files=checksums(place, listed)))
    return SurveyedRun(str(place), State.SHORTER, replace(result, files=checksums(place, listed)))


def files_of(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


NEXT = {
    file_names.METRICS: b"shorter than before",
    file_names.BEST: b"a file that was not there",
    EVENTS.replace(".0", ".1"): b"events under another name, longer than before",
    f"{file_names.HYDRA}/config.yaml": b"config",
    file_names.RESULT: b"{}",
}


def test_a_recycled_directory_holds_what_the_next_run_has_written_and_nothing_else(
    shorter: SurveyedRun, here: Path
) -> None:
    inode = (shorter.directory / file_names.METRICS).stat().st_ino
    recycled = RecycledDirectory(here / "sweep")
    recycled.take(shorter, here / "sweep/.set_aside")
    assert not shorter.directory.exists()
    recycled.write_as(here / "sweep/next", NEXT)
    assert files_of(here / "sweep/next") == NEXT
    assert (here / "sweep/next" / file_names.METRICS).stat().st_ino == inode
    recycled.remove()
    assert [path.name for path in (here / "sweep").iterdir()] == ["next"]


def test_links_to_files_and_write_protected_files_keep_what_they_lead_to(shorter: SurveyedRun, here: Path) -> None:
    metrics, last = shorter.directory / file_names.METRICS, shorter.directory / file_names.LAST
    os.link(metrics, here / "copy")
    last.chmod(0o444)
    before = hashlib.sha256((here / "copy").read_bytes()).digest()
    recycled = RecycledDirectory(here / "sweep")
    recycled.take(shorter, here / "sweep/.set_aside")
    recycled.write_as(here / "sweep/next", NEXT)
    assert hashlib.sha256((here / "copy").read_bytes()).digest() == before
    assert files_of(here / "sweep/next") == NEXT


@pytest.mark.parametrize("strange", ["notes.txt", ".hydra/mine.yaml", "checkpoints/link"])
def test_a_directory_with_files_of_another_is_not_recycled(strange: str, shorter: SurveyedRun, here: Path) -> None:
    (here / "target").write_text("mine")
    if strange.endswith("link"):
        (shorter.directory / strange).symlink_to(here / "target")
    else:
        (shorter.directory / strange).write_text("mine")
    recycled = RecycledDirectory(here / "sweep")
    recycled.take(shorter, here / "sweep/.set_aside")
    assert not recycled
    assert (here / "sweep/.set_aside/short-0" / strange).read_text() == "mine"
    assert list((here / "sweep").iterdir()) == [here / "sweep/.set_aside"]


def test_what_a_killed_process_has_left_is_removed(shorter: SurveyedRun, here: Path) -> None:
    RecycledDirectory(here / "sweep").take(shorter, here / "sweep/.set_aside")
    assert (here / "sweep" / file_names.RECYCLED).is_dir()
    recycled_directory.clean(here / "sweep")
    recycled_directory.clean(here / "sweep")
    assert not list((here / "sweep").iterdir())


def test_a_sweep_that_is_trained_further_recycles_all_directories_but_the_first(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(f"{GRID} trainer.max_epochs=3 name=whole").code == 0
    assert train(f"{GRID} trainer.max_epochs=1 name=further").code == 0
    removed: list[str] = []
    monkeypatch.setattr(run_state, "remove_shorter", lambda found, shelf: removed.append(found.place))
    ended = train(f"{GRID} trainer.max_epochs=3 name=further")
    assert ended.code == 0, ended.err
    assert not removed
    assert_same(here / "multirun/further", here / "multirun/whole")
    for run in (here / "multirun/further").glob("*seed=*"):
        other = here / "multirun/whole" / run.name
        assert files_of(run).keys() - set(map(str, run.glob("events*"))) >= {file_names.RESULT, file_names.LOG}
        for name in file_names.OF_HYDRA:
            own = (run / file_names.HYDRA / name).read_text()
            assert own == (other / file_names.HYDRA / name).read_text().replace("whole", "further")


def test_an_error_of_one_run_leaves_its_message_in_a_directory_with_hydras_files(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(f"{GRID} trainer.max_epochs=1 name=s").code == 0

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("mlpexp.sweep.work_unit.train_stack", fail)
        assert train(f"{GRID} trainer.max_epochs=2 name=s").code == 1
    runs = sorted((here / "multirun/s").glob("*max_epochs=2*"))
    assert len(runs) == 4
    assert all((run / file_names.CONFIG).exists() and "broken" in (run / file_names.LOG).read_text() for run in runs)
    assert train(f"{GRID} trainer.max_epochs=2 name=s").code == 0
