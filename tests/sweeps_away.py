"""Two sweeps held against each other, and a hand that kills workers in the middle of a stack."""

import csv
import hashlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from mlpexp.store import checkpoint_files
from mlpexp.store.file_names import WORKERS


def numbers(directory: Path) -> dict[str, Any]:
    """All that must not depend on where a sweep was trained: its table, every file's name, curves, weights."""
    with (directory / "results.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    found: dict[str, Any] = {"": rows}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = str(path.relative_to(directory))
        if path.name.startswith("events."):
            name = str(path.parent.relative_to(directory) / "events")
            found[name] = found.get(name, 0) + 1
        elif path.suffix == ".ckpt":
            weights = checkpoint_files.load(path)["state_dict"]
            found[name] = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest()
        else:
            found[name] = path.read_text() if path.name in ("metrics.csv", "train.log") else None
    return found


def at_work(directory: Path) -> list[int]:
    """Processes that are training a stack of the sweep in `directory`."""
    folder = str(directory.absolute() / WORKERS / "unit-")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(str(handle.readlink()).startswith(folder) for handle in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


class Killer:
    """Kills the first `times` workers that are seen at work."""

    def __init__(self, directory: Path, times: int = 1, timeout_s: float = 600) -> None:
        self.directory, self.times = directory, times
        self.killed: list[int] = []
        self._deadline = time.monotonic() + timeout_s
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._deadline = 0.0
        self._thread.join()

    def _kill(self) -> None:
        while len(self.killed) < self.times and time.monotonic() < self._deadline:
            for worker in at_work(self.directory):
                if worker not in self.killed and len(self.killed) < self.times:
                    time.sleep(0.1)  # into the middle of it
                    os.kill(worker, signal.SIGKILL)
                    self.killed.append(worker)
            time.sleep(0.01)
