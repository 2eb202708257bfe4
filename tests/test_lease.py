"""Never two writers: workers notice that their conductor has gone, and the next start waits for them."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlpexp.runtime.errors import UserError
from mlpexp.store import worker_session
from mlpexp.store.file_names import WORKERS
from mlpexp.store.worker_session import Gone, Session


def test_a_worker_may_write_while_its_sweep_is_conducted(tmp_path: Path) -> None:
    with worker_session.open_session(tmp_path) as session:
        with session.writing(0), session.writing(1):
            session.check()
        assert (tmp_path / WORKERS).is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Gone, match="has ended"):
        session.check()
    with pytest.raises(Gone), session.writing(0):
        pass


def test_a_worker_of_an_earlier_start_may_not_write(tmp_path: Path) -> None:
    with worker_session.open_session(tmp_path), pytest.raises(Gone, match="started again"):
        Session(tmp_path, "another").check()


def test_a_session_that_cannot_be_read_has_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker_session.open_session(tmp_path) as session:

        def broken(*arguments: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(worker_session.os, "open", broken)
        with pytest.raises(OSError, match="Input/output error"):
            session.check()
        with pytest.raises(OSError, match="Input/output error"), session.writing(0):
            pass
        monkeypatch.undo()


CONDUCT = """
import os, signal, sys
from pathlib import Path
from mlpexp.store import worker_session
with worker_session.open_session(Path(sys.argv[1])) as session:
    print(session.token, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_notices_that_its_conductor_was_killed(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", CONDUCT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -9
    session = Session(tmp_path, killed.stdout.strip())
    with pytest.raises(Gone, match="has gone"):
        session.check()
    worker_session.wait(tmp_path)  # the next start tidies up
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_waits_for_workers_that_still_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conducting = worker_session.open_session(tmp_path)
    session = conducting.__enter__()
    monkeypatch.setattr(worker_session, "LEAVING_S", 0.0)
    monkeypatch.setattr(worker_session, "WAIT_S", 0.2)
    with session.writing(0):
        conducting.__exit__(None, None, None)
        with pytest.raises(Gone):
            session.check()
        with pytest.raises(UserError, match="still write into"):
            worker_session.wait(tmp_path)
    worker_session.wait(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_workers_are_never_at_the_same_unit(tmp_path: Path) -> None:
    inside: list[str] = []
    begun, done = threading.Event(), threading.Event()
    with worker_session.open_session(tmp_path) as session:

        def second() -> None:
            begun.set()
            with session.writing(7):
                inside.append("second")
            done.set()

        with session.writing(7):
            thread = threading.Thread(target=second)
            thread.start()
            begun.wait(5)
            assert not done.wait(0.3)
            inside.append("first")
        thread.join(10)
    assert inside == ["first", "second"]


@pytest.mark.parametrize("place", [WORKERS, f"{WORKERS}/conductor", f"{WORKERS}/writers"])
def test_nothing_is_written_or_removed_through_a_link(place: str, tmp_path: Path) -> None:
    sweep, mine = tmp_path / "sweep", tmp_path / "mine"
    mine.mkdir()
    (mine / "unit-0").write_text("mine")
    (sweep / place).parent.mkdir(parents=True)
    (sweep / place).symlink_to(mine if place == WORKERS else mine / "unit-0")
    with pytest.raises(UserError, match="is a symbolic link"), worker_session.open_session(sweep):
        pass
    if place == WORKERS:
        with pytest.raises(UserError, match="is a symbolic link"):
            worker_session.wait(sweep)
    assert [path.name for path in mine.iterdir()] == ["unit-0"]
    assert (mine / "unit-0").read_text() == "mine"


def test_files_of_others_stay(tmp_path: Path) -> None:
    with worker_session.open_session(tmp_path) as session:
        (tmp_path / WORKERS / "notes.txt").write_text("somebody's")
        with session.writing(3) as note:
            note(done := worker_session.Progress(20.25, 12, 3.5))
            assert session.progress(3) == done
        session.forget(3)
        assert session.progress(3) is None
    assert [path.name for path in (tmp_path / WORKERS).iterdir()] == ["notes.txt"]
