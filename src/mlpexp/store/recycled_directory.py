"""The directory of a shorter run, which is reused for the files of the next run.

Making and removing a dozen small files takes the system longer than training a small network for some epochs. So a
sweep that is trained further moves the directory of a shorter run out of the way once the longer run is written,
overwrites its files with those of the next run, and renames it: every run is whole at each moment.
"""

import os
import shutil
import stat
from collections.abc import Mapping, Set
from contextlib import suppress
from itertools import count
from pathlib import Path

from mlpexp.store import atomic_files, file_names, run_state
from mlpexp.store.run_state import SurveyedRun

_numbers = count()


class RecycledDirectory:
    """At most one directory, below `file_names.RECYCLED` of a sweep."""

    def __init__(self, sweep: Path) -> None:
        self._folder, self._is_made = sweep / file_names.RECYCLED, False
        self._place = ""
        self._files: set[str] = set()  # there, relative to it

    def __bool__(self) -> bool:
        return bool(self._place)

    def take(self, run: SurveyedRun, aside: Path) -> None:
        """Move the directory of a shorter run here; if one is here already, or it has other files, `remove_shorter`."""
        files = None if self._place or run.result is None else _only_files(run.place, run_state.files_of(run.result))
        if files is None:
            run_state.remove_shorter(run, aside)
            return
        place = f"{self._folder}/{os.getpid()}-{next(_numbers)}"
        if not self._is_made:
            atomic_files.make_directory(self._folder)
            self._is_made = True
        try:
            os.rename(run.place, place)  # noqa: PTH104 - texts, there are thousands
        except FileNotFoundError:  # another worker has removed the folder
            atomic_files.make_directory(self._folder)
            os.rename(run.place, place)  # noqa: PTH104
        self._place, self._files = place, files

    def write_as(self, directory: Path, files: Mapping[str, bytes]) -> None:
        """Move the directory to `directory`, with exactly these files, by path; a crash leaves all of them or none."""
        place, self._place = self._place, ""
        unused = sorted(self._files - files.keys())
        for path, content in files.items():
            if path not in self._files:
                same_folder = [name for name in unused if name.rpartition("/")[0] == path.rpartition("/")[0]]
                if same_folder:
                    unused.remove(same_folder[0])
                    os.rename(f"{place}/{same_folder[0]}", f"{place}/{path}")  # noqa: PTH104
                else:
                    atomic_files.make_directory(Path(f"{place}/{path}").parent)
            _overwrite(f"{place}/{path}", content)
        for path in unused:
            os.unlink(f"{place}/{path}")  # noqa: PTH108
        try:
            os.rename(place, directory)  # noqa: PTH104
        except FileNotFoundError:  # the folder of its name
            directory.parent.mkdir(parents=True)
            os.rename(place, directory)  # noqa: PTH104

    def remove(self) -> None:
        """Remove the directory, if one is here."""
        if self._place:
            shutil.rmtree(self._place)
            self._place = ""
        with suppress(OSError):  # another worker's is there
            self._folder.rmdir()


def clean(sweep: Path) -> None:
    """Remove the directories of killed workers; no process may be training in this sweep.

    Raises:
        UserError: there is a symbolic link in its place.
    """
    folder = sweep / file_names.RECYCLED
    atomic_files.refuse_link(folder)
    if folder.is_dir():
        shutil.rmtree(folder)  # `take` moves only directories without other files


def _only_files(directory: str, names: Set[str]) -> set[str] | None:
    """Those of `names` that are files of a run's directory; None where it holds anything else, or has a lock."""
    folders = {name.rpartition("/")[0] for name in names} - {""}
    if os.path.islink(directory):  # noqa: PTH114
        return None
    files: set[str] = set()
    try:
        for folder in ("", *folders):
            with os.scandir(f"{directory}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_file(follow_symlinks=False) and path in names and path != file_names.LOCK:
                        files.add(path)
                    elif not (entry.is_dir(follow_symlinks=False) and path in folders):
                        return None
    except FileNotFoundError:
        return None
    return files


def _overwrite(path: str, content: bytes) -> None:
    """Write into the existing file, unless it has several hard links."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError:  # a link, or write-protected
        handle = _replaced(path, flags)
    status = os.fstat(handle)
    if status.st_nlink > 1 or not stat.S_ISREG(status.st_mode):
        os.close(handle)
        handle = _replaced(path, flags)
    try:
        if status.st_size > len(content):
            os.ftruncate(handle, len(content))
        atomic_files.write_whole(handle, content)
    finally:
        os.close(handle)


def _replaced(path: str, flags: int) -> int:
    os.unlink(path)  # noqa: PTH108
    return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
