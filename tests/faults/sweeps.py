"""The sweeps that are disturbed, what an undisturbed one leaves, and whether a disturbed one has come to the same."""

import csv
import hashlib
import os
import zipfile
from collections import defaultdict
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

from forks import Ended

from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, run_directory, run_table, run_weights

QUICK = ["trainer.max_epochs=1", "tracking.diagnostics=false", "name=s"]
SMALL = ["-m", "model.width=4,6", "seed=1,2", *QUICK]
FORKED = [
    "-m",
    "model.width=4,6,8,10",
    "seed=range(6)",
    *QUICK,
    "hydra.launcher.backend=fork",
    "hydra.launcher.workers=2",
]
TABLE = [*SMALL, "record=table", "keep_weights=true", "tracking.tensorboard=false"]
FURTHER = [word.replace("max_epochs=1", "max_epochs=2") for word in SMALL]
# stacks that take a second or two and are saved all the time
SAVED = [
    "-m",
    "model.width=4,6",
    "seed=1,2",
    "optimizer.momentum=0.9",
    "early_stopping.patience=100",
    "trainer.max_epochs=300",
    "tracking.diagnostics=false",
    "name=s",
    "stack.save_every_s=0.01",
]
LARGE = ["-m", "model.width=4,6,8,10", "seed=range(50)", *QUICK]


class Broken(Exception):
    """Something was lost, trained twice, or differs."""

    @classmethod
    def by(cls, ended: Ended, before: str = "") -> "Broken":
        """A command that ended otherwise than it should."""
        return cls(f"{before}ended with {ended.code}: {ended.err}")


def picture(place: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """All that must come out the same, to the bit: the table without times, weights, metrics, names of files.

    Args:
        names: of the runs that count, where there may be others, not of the latest grid.
    """
    sweep = place / "multirun/s"
    found = {"results.csv": _table(sweep / "results.csv")}
    there = (path for path in sweep.iterdir() if path.is_dir() and path.name != ".set_aside")
    for directory in sorted(path for path in there if names is None or path.name in names):
        found[directory.name] = " ".join(sorted({_plain(path.relative_to(directory)) for path in directory.rglob("*")}))
        found[f"{directory.name}: metrics"] = (directory / file_names.METRICS).read_text()
        result = run_directory.read_result(directory)
        for name, noted in result.files.items():
            if run_directory.checksum((directory / name).read_bytes()) != noted:
                raise Broken(f"{directory.name}: {name} is not what its marker says")
        for name in (file_names.LAST, file_names.BEST):
            if (directory / name).exists():  # a run that diverged in its first epoch has no best one
                found[f"{directory.name}: {name}"] = _tensors((directory / name).read_bytes())
        if left := list(directory.rglob("*.partial")):
            raise Broken(f"left behind: {left[0]}")
    if (sweep / file_names.TABLE).exists():
        for name, files in run_table.read(sweep):
            found[f"{name}: metrics"] = files[file_names.METRICS]
            if kept := run_weights.checkpoint_of(sweep / name):
                found[f"{name}: {kept}"] = _tensors(run_weights.read(sweep / name / kept) or b"")
    if left := list(sweep.glob("*.partial")):
        raise Broken(f"left behind: {left[0]}")
    return found


def compare(found: dict[str, str], expected: dict[str, str]) -> None:
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            raise Broken(f"{key} differs: {str(found.get(key))[:200]!r} in place of {str(expected.get(key))[:200]!r}")


def finished(place: Path) -> dict[str, tuple[bytes, int]]:
    """The markers of runs that are done, which nothing may touch any more: content and time of writing."""
    found = {}
    for path in (place / "multirun/s").glob("*/result.json"):
        try:
            result = run_directory.read_result(path.parent)
        except UserError:
            continue
        if result.status in run_directory.FINAL and _is_whole(path.parent, result):
            found[path.parent.name] = path.read_bytes(), path.stat().st_mtime_ns
    return found


def untouched(place: Path, before: dict[str, tuple[bytes, int]]) -> None:
    now = finished(place)
    for name, marker in before.items():
        if now.get(name) != marker:
            raise Broken(f"{name} was done and has been trained again")


def one_writer(record: Path) -> None:
    """Whether, of all that `inject` has recorded, no two processes were at one run's directory at the same time."""
    writers: dict[str, list[str]] = defaultdict(list)
    for line in record.read_text().splitlines():
        pid, _, path = line.split("\t", 2)
        _, found, rest = path.partition("/multirun/s/")
        name = rest.partition("/")[0]
        if found and "=" in name and (not writers[name] or writers[name][-1] != pid):
            writers[name].append(pid)
    for name, pids in writers.items():
        if len(set(pids)) != len(pids):  # one came back after another one had begun
            raise Broken(f"{name} was written by several processes at once: {' '.join(pids)}")


def _is_whole(directory: Path, result: run_directory.Result) -> bool:
    return all(
        (directory / name).is_file() and run_directory.checksum((directory / name).read_bytes()) == noted
        for name, noted in result.files.items()
    )


def _tensors(checkpoint: bytes) -> str:
    """Digest of a checkpoint's tensors, weights and the optimizer's, in their order; its times differ each time."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(BytesIO(checkpoint)) as archive:  # ten times faster than torch.load
        for name in archive.namelist():
            if "/data/" in name:
                digest.update(name.rpartition("/")[2].encode() + archive.read(name))
    return digest.hexdigest()


def _table(path: Path) -> str:
    with path.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return "\n".join(str({key: value for key, value in row.items() if key != "seconds"}) for row in rows)


def _plain(path: Path) -> str:
    name = os.fspath(path)
    return "events" if name.startswith("events.out") else name
