"""Who may write into a sweep's directory when its runs are trained by other processes: never two writers.

The process that conducts the sweep holds a lock for as long as it lives. Its workers, on this machine or on others
that share the file system, look whether it is still held, and by the same start of the sweep: a worker whose
conductor has gone stops before it writes more, and the next start waits until the last such worker has stopped.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mlpexp.runtime import portable
from mlpexp.runtime.errors import UserError
from mlpexp.store import directory_lock

FOLDER = ".workers"
CONDUCTOR, WRITERS = "conductor", "writers"
WAIT_S, LEAVING_S = 60.0, 5.0
POLL_S = 0.1


class Gone(Exception):
    """The sweep that a worker works for has ended, or was started anew."""


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a sweep, as its workers know it."""

    directory: Path
    token: str

    def check(self) -> None:
        """
        Raises:
            Gone: nobody conducts this session any more.
        """
        handle = self._opened(CONDUCTOR, os.O_RDONLY)
        try:
            if os.read(handle, 100).decode(errors="replace") != self.token:
                raise Gone(f"{self.directory}: the sweep was started anew")
            if portable.lock(handle, shared=True) is not True:
                return  # the holder lives, or the file system has no locks
        finally:
            os.close(handle)
        raise Gone(f"{self.directory}: the process that conducts the sweep has gone")

    @contextmanager
    def writing(self, unit: int) -> Iterator[None]:
        """While it lasts, this process may write the directories of the unit, and no other does.

        Raises:
            Gone: nobody conducts this session any more.
        """
        writers = self._opened(WRITERS, os.O_RDWR)
        try:
            portable.lock(writers, shared=True, wait=True)
            self.check()
            own = os.open(self._path(f"unit-{unit}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # another worker may be at it, whom the cluster has given up too early
                while portable.lock(own) is False:
                    time.sleep(POLL_S)
                    self.check()
                yield
            finally:
                os.close(own)
        finally:
            os.close(writers)

    def _opened(self, name: str, flags: int) -> int:
        try:
            return os.open(self._path(name), flags | os.O_CLOEXEC)
        except OSError:
            raise Gone(f"{self.directory}: the sweep has ended") from None

    def _path(self, name: str) -> Path:
        return self.directory / FOLDER / name


@contextmanager
def conducting(directory: Path) -> Iterator[Session]:
    """A session of workers in a sweep's directory, which this process has locked; its traces go with it."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    (folder / WRITERS).touch()
    session = Session(directory, uuid4().hex)
    handle = os.open(folder / CONDUCTOR, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    directory_lock.keep(handle)
    try:
        portable.lock(handle, wait=True)
        os.ftruncate(handle, 0)
        os.pwrite(handle, session.token.encode(), 0)
        yield session
    finally:
        directory_lock.release(handle)
        _outlasted(directory, LEAVING_S)  # those of a cluster may be in the middle of an epoch


def is_going_on(directory: Path) -> bool:
    """Whether there may be workers, of whatever start of the sweep."""
    return (directory / FOLDER).exists()


def wait(directory: Path) -> None:
    """Wait until no worker of an earlier start writes into `directory` any more.

    Raises:
        UserError: some still do.
    """
    if not _outlasted(directory, WAIT_S):
        raise UserError(
            f"workers of an earlier start still write into {directory}; stop them, or try again when they have finished"
        )


def _outlasted(directory: Path, wait_s: float) -> bool:
    """Whether there are no workers any more; then no traces of them either."""
    folder = directory / FOLDER
    if not folder.is_dir():
        return True
    with suppress(FileNotFoundError):
        (folder / CONDUCTOR).unlink()  # from now on they notice
    with suppress(FileNotFoundError):
        handle = os.open(folder / WRITERS, os.O_RDWR | os.O_CLOEXEC)
        try:
            deadline = time.monotonic() + wait_s
            while portable.lock(handle) is False:
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_S)
        finally:
            os.close(handle)
    shutil.rmtree(folder, ignore_errors=True)
    return True
