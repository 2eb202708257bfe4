"""Sessions of worker processes: they ensure that two processes never write a run of a sweep at the same time.

The main process of a sweep holds a lock until it ends. Its workers, on this machine or on others that share
the file system, check whether it is still held, and by the same start of the sweep: a worker whose main process has
gone saves its state and stops, and the next start waits until the last such worker has stopped.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from mlpexp.runtime import portable
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, directory_lock
from mlpexp.store.file_names import WORKERS

CONDUCTOR, WRITERS, SUBMITIT = "conductor", "writers", "submitit"
WAIT_S = 60.0  # for workers of an earlier start
LEAVING_S = 3.0  # for workers of this start to finish their epoch and save
POLL_S = 0.1
_OURS = re.compile(rf"{CONDUCTOR}|{WRITERS}|unit-\d+")


class Progress(NamedTuple):
    """What a worker has done of a unit: runs trained (with shares of runs), runs written, seconds since it began."""

    trained: float
    written: int
    seconds: float


class Gone(Exception):
    """The main process of the worker's sweep has ended.

    Attributes:
        restarted: another start of the sweep is at work, so that this worker may write nothing more.
    """

    def __init__(self, message: str, *, restarted: bool = False) -> None:
        super().__init__(message)
        self.restarted = restarted


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a sweep, as its workers know it."""

    directory: Path
    token: str

    def check(self) -> None:
        """
        Raises:
            Gone: no main process holds this session any more.
            OSError: that cannot be read.
        """
        handle = self._opened(CONDUCTOR, os.O_RDONLY)
        try:
            if os.read(handle, 100).decode(errors="replace") != self.token:
                raise Gone(f"{self.directory}: the sweep was started again", restarted=True)
            if portable.lock(handle, shared=True) is not True:
                return  # the holder has not ended, or the file system has no locks
        finally:
            os.close(handle)
        raise Gone(f"{self.directory}: the main process of the sweep has gone")

    @contextmanager
    def writing(self, unit: int) -> Iterator[Callable[[Progress], None]]:
        """Give this process alone the right to write the directories of the unit, while the block runs.

        Returns:
            A function that records how much of the unit is done, for `progress`.

        Raises:
            Gone: no main process holds this session any more.
            OSError: the disk is full or broken.
        """
        writers = self._opened(WRITERS, os.O_RDWR)
        try:
            portable.lock(writers, shared=True, wait=True)
            self.check()
            progress = self._opened(f"unit-{unit}", os.O_RDWR | os.O_CREAT)
            try:
                # another worker, which the cluster gave up too early, may still work on it
                while portable.lock(progress) is False:
                    time.sleep(POLL_S)
                    self.check()
                yield lambda done: _write_progress(progress, done)
            finally:
                os.close(progress)
        finally:
            os.close(writers)

    def progress(self, unit: int) -> Progress | None:
        """How much of a unit its worker has reported as done; None where none has begun since `forget`."""
        try:
            handle = self._opened(f"unit-{unit}", os.O_RDONLY)
        except Gone:
            return None
        try:
            trained, written, seconds = os.read(handle, 100).split()
            return Progress(float(trained), int(written), float(seconds))
        except ValueError:
            return None
        finally:
            os.close(handle)

    def forget(self, unit: int) -> None:
        """Remove the progress of a lost worker; the file stays, since another may have it locked."""
        with suppress(FileNotFoundError):
            os.truncate(self._path(f"unit-{unit}"), 0)

    def dismiss(self) -> None:
        """Tell the workers that the sweep ends, and wait some seconds for those that still write."""
        _wait_for_writers(self.directory, LEAVING_S)

    def _opened(self, name: str, flags: int) -> int:
        try:
            return os.open(self._path(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            raise Gone(f"{self.directory}: the sweep has ended") from None

    def _path(self, name: str) -> Path:
        return self.directory / WORKERS / name


@contextmanager
def open_session(directory: Path) -> Iterator[Session]:
    """Open a session of workers in a sweep's directory, which this process has locked; close it after the block.

    Raises:
        UserError: the place of its files is taken by a link or a file.
    """
    folder = directory / WORKERS
    atomic_files.make_directory(folder)
    session = Session(directory, uuid4().hex)
    os.close(_create(folder / WRITERS))
    handle = _create(folder / CONDUCTOR)
    directory_lock.close_in_forks(handle)
    try:
        portable.lock(handle, wait=True)
        os.ftruncate(handle, 0)
        os.pwrite(handle, session.token.encode(), 0)
        yield session
    finally:
        directory_lock.release(handle)
        _wait_for_writers(directory, LEAVING_S)


def may_have_workers(directory: Path) -> bool:
    """Whether there may be workers, of this or an earlier start of the sweep."""
    return os.path.lexists(directory / WORKERS)


def wait(directory: Path) -> None:
    """Wait until no worker of an earlier start writes into `directory`.

    Raises:
        UserError: some still do.
    """
    if not _wait_for_writers(directory, WAIT_S):
        raise UserError(
            f"workers of an earlier start still write into {directory}; stop them, or try again when they have finished"
        )


def _wait_for_writers(directory: Path, wait_s: float) -> bool:
    """Wait for the end of all workers, then remove the session's files; False if they have not ended in time."""
    folder = directory / WORKERS
    atomic_files.refuse_link(folder)
    if not folder.is_dir():
        return True
    with suppress(FileNotFoundError):
        (folder / CONDUCTOR).unlink()  # from now on the workers notice
    with suppress(FileNotFoundError):
        handle = os.open(folder / WRITERS, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            deadline = time.monotonic() + wait_s
            while portable.lock(handle) is False:
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_S)
        finally:
            os.close(handle)
    for path in folder.iterdir():  # only files of this program
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not (folder / SUBMITIT).is_symlink():
        shutil.rmtree(folder / SUBMITIT, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
    return True


def _create(path: Path) -> int:
    atomic_files.refuse_link(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _write_progress(handle: int, done: Progress) -> None:
    os.pwrite(handle, f"{done.trained:<15.3f} {done.written:<15} {done.seconds:<15.3f}\n".encode(), 0)
