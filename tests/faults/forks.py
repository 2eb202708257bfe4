"""The real command, started in a fork of this process, which has imported everything heavy once.

A cold start takes seconds; a fork takes none. What the child does from its first line on is what
`python scripts/train.py` does.
"""

import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inject import Fault

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


def warm_up() -> None:
    """Import what a sweep imports; nothing is computed, so that no thread exists to be lost in a fork."""
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401

    import mlpexp.job
    import mlpexp.sweep.conduct  # noqa: F401


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative the signal that killed it."""

    code: int
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


class Child:
    """A running command."""

    def __init__(self, place: Path, words: Sequence[str], fault: Fault | None = None, count: Path | None = None):
        self._err = tempfile.TemporaryFile()  # noqa: SIM115  # closed once its end is read
        self._started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(place, words, fault, count)

    def _become(self, place: Path, words: Sequence[str], fault: Fault | None, count: Path | None) -> None:
        code = 70
        try:
            os.chdir(place)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            os.dup2(self._err.fileno(), 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            sys.argv = ["scripts/train.py", *words]
            if count is not None:
                handle = os.open(count, os.O_WRONLY | os.O_CREAT)
                pwrite = os.pwrite
                (fault or Fault()).install(lambda number: pwrite(handle, f"{number:9d}".encode(), 0) and None)
            elif fault is not None:
                fault.install()
            try:
                runpy.run_path(str(SCRIPT), run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException as error:  # nothing may come out of the child but its code
                sys.stderr.write(f"LEAKED {error!r}\n")
            sys.stderr.flush()
        finally:
            os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

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
        return Ended(code, err, time.monotonic() - self._started)


def run(place: Path, words: Sequence[str], fault: Fault | None = None, count: Path | None = None) -> Ended:
    return Child(place, words, fault, count).ended()
