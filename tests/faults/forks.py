"""The real command, started in a fork of this process, which has imported everything heavy once.

A cold start takes seconds; a fork takes none. What the child does from its first line on is what
`python scripts/train.py` does.
"""

import atexit
import gc
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from inject import Fault, Told

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))  # as Python does when it runs it
sys.path.append(str(Path(__file__).parents[1]))
OTHERS = (
    "multiprocessing.resource_tracker",  # what loky's import would start later
    *("sklearn.datasets", "sklearn.model_selection", "tensorboard.compat.proto.event_pb2"),
)
_until_the_end = ExitStack()


def warm_up() -> None:
    """Import what a sweep imports; nothing is computed, so that no thread exists to be lost in a fork."""
    import compositions
    import numba

    import mlpexp

    for module in pkgutil.walk_packages(mlpexp.__path__, "mlpexp."):
        import_module(module.name)
    for name in OTHERS:
        import_module(name)
    numba.njit(lambda number: number)(1)  # numba imports the rest of itself to compile the first function
    _until_the_end.enter_context(compositions.remembered(_Folder()))
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page


class _Folder(MutableMapping[bytes, bytes]):
    """A memory of processes that are killed at any moment: one file for each key."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="compositions-"))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._open, self._replace = open, os.replace  # before `inject` counts

    def __getitem__(self, key: bytes) -> bytes:
        try:
            return self._place(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        temporary = self._place(key).with_suffix(f".{os.getpid()}")
        with self._open(temporary, "wb") as file:
            file.write(value)
        self._replace(temporary, self._place(key))

    def __delitem__(self, key: bytes) -> None:
        self._place(key).unlink()

    def __iter__(self) -> Iterator[bytes]:
        return (bytes.fromhex(path.name) for path in self._folder.iterdir() if not path.suffix)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _place(self, key: bytes) -> Path:
        return self._folder / key.hex()


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative the signal that killed it."""

    code: int
    err: str
    seconds: float
    operations: int
    """on files"""
    hits: int
    """operations that a fault has hit"""
    hit: str
    """the first of them"""

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


class Child:
    """A running command, in a session of its own."""

    def __init__(
        self,
        place: Path,
        words: Sequence[str],
        fault: Fault | None = None,
        record: Path | None = None,
        out: dict[int, int | None] | None = None,
        encoding: str | None = None,
        script: str = "train.py",
    ) -> None:
        """
        Args:
            record: see `Fault.install`.
            out: what standard output (1) and error (2) are in place of nothing and a file; None: closed.
            encoding: of standard output and error.
            script: the name of the command.
        """
        self._encoding, self._script = encoding, script
        self._err = tempfile.TemporaryFile()  # noqa: SIM115  # closed once its end is read
        self._started = time.monotonic()
        self.told = Told()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child that is not yet the command has no answer
        self.pid = os.fork()
        if self.pid == 0:
            self._become(place, words, fault or Fault(), record, out or {})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _become(
        self, place: Path, words: Sequence[str], fault: Fault, record: Path | None, out: dict[int, int | None]
    ) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(place)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            for number, handle in ({1: nothing, 2: self._err.fileno()} | out).items():
                if handle is None:
                    os.close(number)
                else:
                    os.dup2(handle, number)
            sys.stdout, sys.stderr = (  # type: ignore[assignment]
                None if out.get(number, 0) is None else os.fdopen(number, "w", encoding=self._encoding, closefd=False)
                for number in (1, 2)
            )
            sys.argv = [f"scripts/{self._script}", *words]
            gc.callbacks.clear()  # hypothesis's, in which a signal's exception would be lost
            self._note_arming()
            fault.install(self.told, record)
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                runpy.run_path(str(SCRIPTS / self._script), run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException as error:  # nothing may come out of the child but its code
                if isinstance(error, KeyboardInterrupt) and not self.told.armed:
                    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as Python ends before the script has handlers
                    os.kill(os.getpid(), signal.SIGINT)
                sys.stderr.write(f"LEAKED {error!r}\n")
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _note_arming(self) -> None:
        real = signal.signal

        def noted(number: int, handler: Any) -> Any:
            before = real(number, handler)
            if number == signal.SIGTERM and callable(handler):
                self.told.armed = 1
            return before

        signal.signal = noted  # type: ignore[assignment]

    @property
    def is_armed(self) -> bool:
        """Whether signals have handlers, so that none may simply kill it."""
        return bool(self.told.armed)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def kill_group(self, number: int) -> None:
        """Send a signal to it and all its workers, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def workers(self) -> list[int]:
        """Processes of its session beside itself, alive."""
        found = []
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit() or int(entry.name) == self.pid:
                continue
            with suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    def wait_until(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds of its start; leaves it to `ended`."""
        while time.monotonic() < self._started + seconds:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            time.sleep(0.002)
        return False

    def ended(self, limit: float = 120.0) -> Ended:
        if not self.wait_until(limit):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._err.seek(0)
        err = self._err.read().decode(errors="replace")
        self._err.close()
        seconds = time.monotonic() - self._started
        return Ended(code, err, seconds, self.told.operations, self.told.hits, self.told.hit)


def run(
    place: Path,
    words: Sequence[str],
    fault: Fault | None = None,
    record: Path | None = None,
    script: str = "train.py",
) -> Ended:
    return Child(place, words, fault, record, script=script).ended()
