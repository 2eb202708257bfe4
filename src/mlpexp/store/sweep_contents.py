"""The runs in a sweep's directory with status and size: in directories, in the table, or set aside."""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.store import atomic_files, file_names, run_directory, run_table, sweep_manifest
from mlpexp.store.owned_directory import files_of
from mlpexp.store.results_table import load_results
from mlpexp.store.run_directory import FINAL, Result

# beside those that a run's marker lists
KNOWN = (*file_names.UNLISTED, *file_names.TABLES, file_names.LAST, file_names.BEST, file_names.WEIGHTS_BY_EPOCH)
ENDED = (*FINAL, "failed")
DERIVED = ("evaluation",)  # directories of files that can be made again, see `owned_directory`


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run in a sweep's directory.

    Attributes:
        name: its directory, relative to the sweep's, or its name in the table.
        status: as in `results.csv`; `damaged` where a file differs in size from what the marker says, `unfinished`
            where there is no marker.
        ours: the files of its directory that mlpexp has written, with their sizes in bytes.
        foreign: all other files there, which stay where they are.
        is_aside: it was set aside, and another run has its place.
    """

    name: str
    status: str
    directory: Path | None = None
    result: Result | None = None
    ours: dict[Path, int] = field(default_factory=dict)
    foreign: list[Path] = field(default_factory=list)
    in_table: bool = False
    is_aside: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Identity and name; both empty where there is no marker."""
        return (self.result.identity, self.name) if self.result is not None else ("", "")

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(self.ours.values())


def runs(sweep: Path) -> list[StoredRun]:
    """All runs: in the order of `results.csv`, then those that it does not list, then those that were set aside.

    Raises:
        UserError: there is no sweep.
    """
    if not _is_sweep(sweep):
        inside = [path for path in sorted(sweep.iterdir()) if _is_sweep(path)] if sweep.is_dir() else []
        advice = f"give one of the {len(inside)} in it" if len(inside) > 1 else "give one"
        example = inside[0] if inside else "multirun/NAME"
        raise UserError(f"{sweep} is not the directory of a sweep; {advice}, e.g. {example}")
    manifest = sweep_manifest.read(sweep)
    names = dict.fromkeys(_listed(sweep))
    names |= dict.fromkeys(manifest.runs.values() if manifest else ())
    names |= dict.fromkeys(run_directory.names_with_marker(sweep))
    stored = [_in_directory(sweep, name) for name in names if is_real(sweep, name)]
    for results in run_table.results(sweep).values():
        for name, result in results.items():
            stored.append(StoredRun(name=name, status=result.status, result=result, in_table=True))
    aside = sweep / file_names.SET_ASIDE
    for path in sorted(aside.iterdir()) if _is_directory(aside) else ():
        if is_real(sweep, name := path.relative_to(sweep).as_posix()):
            stored.append(_in_directory(sweep, name, is_aside=True))
    place = {name: number for number, name in enumerate(names)}
    return sorted(stored, key=lambda run: (run.is_aside, place.get(run.name, len(place))))


def _is_sweep(directory: Path) -> bool:
    """Whether it holds a sweep, which may have just begun, and not a single run."""
    names = (*file_names.OF_A_SWEEP - {file_names.LOCK}, file_names.TABLE)
    has_begun = (directory / file_names.LOCK).is_file() and not (directory / file_names.HYDRA).is_dir()
    return directory.is_dir() and (has_begun or any((directory / name).is_file() for name in names))


def num_missing(sweep: Path, stored: Sequence[StoredRun]) -> int:
    """How many planned runs have not ended: they have no directory, were interrupted, or are damaged.

    Args:
        stored: the runs that are there, see `runs`.
    """
    manifest = sweep_manifest.read(sweep)
    ended = {run.name for run in stored if not run.is_aside and run.status in ENDED}
    return len(set(manifest.runs.values()) - ended) if manifest else 0


def is_real(sweep: Path, name: str) -> bool:
    """Whether a run's directory is below the sweep's without a symbolic link on the way."""
    path = sweep / name
    return all(
        _is_directory(place) for place in [path, *path.parents] if place != sweep and place.is_relative_to(sweep)
    )


def _listed(sweep: Path) -> list[str]:
    """The names in `results.csv`; empty if it is missing or damaged."""
    try:
        names = [str(row.get("name")) for row in load_results(sweep)]
    except (UserError, ValueError, TypeError, AttributeError):
        return []
    return [name for name in names if run_directory.is_relative(name)]


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a directory; links are not followed."""
    return sum(size for _, size in _files(path)) if _is_directory(path) else path.lstat().st_size


def _in_directory(sweep: Path, name: str, *, is_aside: bool = False) -> StoredRun:
    directory = sweep / name
    result: Result | None = None
    try:
        result = run_directory.read_result(directory)
        status: str = result.status
    except (DamagedFile, NotRegularFile):
        status = "damaged"
    except UserError:  # none
        status = "unfinished"
    sizes = dict(_files(directory))
    if result is not None and any(sizes.get(directory / name) != file["size"] for name, file in result.files.items()):
        status = "damaged"
    listed = {directory / file for file in (*KNOWN, *(result.files if result else ()))}
    for derived in DERIVED:
        listed |= files_of(directory / derived, derived)
    ours = {path: size for path, size in sizes.items() if path in listed or _is_ours(path, directory)}
    return StoredRun(
        name=name,
        status=status,
        directory=directory,
        result=result,
        ours=ours,
        foreign=sorted(sizes.keys() - ours.keys()),
        is_aside=is_aside,
    )


def _is_ours(path: Path, directory: Path) -> bool:
    """Whether it is an event file or a temporary file, whose names vary."""
    if path.parent == directory and fnmatch.fnmatch(path.name, file_names.EVENTS):
        return True
    return path.name.startswith(".") and path.name.endswith(atomic_files.SUFFIX)


def _files(directory: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a directory with its size; a link counts as a file."""
    for folder, folders, names in os.walk(directory, followlinks=False):
        place = Path(folder)
        for name in [*names, *(name for name in folders if (place / name).is_symlink())]:
            yield place / name, (place / name).lstat().st_size


def _is_directory(path: Path) -> bool:
    """Whether it is a directory, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
