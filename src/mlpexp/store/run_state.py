"""The state of one run's directory: new, finished, damaged, failed, interrupted, or another run's.

Everything in a directory is data: names are compared, bytes are hashed, nothing is executed.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile, UnreadableFile
from mlpexp.store import file_names, run_directory
from mlpexp.store.atomic_files import refuse_link
from mlpexp.store.run_directory import Result


class State(Enum):
    """What a survey finds in a run's directory."""

    NEW = "new"
    DONE = "done"
    DAMAGED = "damaged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SAVED = "saved"
    """its stack was under way, and its state is saved"""
    SHORTER = "shorter"
    """it has ended after fewer epochs, and is trained further"""
    OTHER = "another run's"
    """it holds a finished run of another identity, which stays where it is"""


TRAINED = ("ok", "chance", "diverged")  # statuses of a run that has trained all its epochs, or was stopped early
# moved out of the way before the run is trained again
UNUSABLE = (State.DAMAGED, State.FAILED, State.INTERRUPTED)


@dataclass(slots=True)
class SurveyedRun:
    """One run as a survey of its directory finds it.

    Attributes:
        place: the directory where the run is or will be; not always the one that the grid gives it. A text, because
            a `Path` takes four times the memory, and a sweep may have a hundred thousand runs.
        trained: whether training has left anything there, beside a marker.
        earlier: the run as it ended after fewer epochs, from which it is trained further; None where there is none.
        saved_as: the identity by which its state is saved, with its present or with an earlier number of epochs.
        begun_place: the directory where it was begun with fewer epochs, which had not ended; empty where there is none.
    """

    place: str
    state: State
    result: Result | None = None
    trained: bool = True
    earlier: "SurveyedRun | None" = None
    saved_as: str = ""
    begun_place: str = ""

    @property
    def directory(self) -> Path:
        return Path(self.place)

    @property
    def has_state(self) -> bool:
        """Whether its training can be continued; a run that was in a table has the weights that it was tested with."""
        return self.result is not None and file_names.LAST in self.result.files


def inspect(directory: Path, identity: str) -> SurveyedRun:
    """The state of `directory` for the run of this identity.

    Raises:
        UserError: it is a file or a link, or something in it cannot be read.
        OSError: the disk fails.
    """
    place = str(directory)  # texts and os-level calls: a sweep looks at ten thousand small files
    if os.path.islink(place):  # noqa: PTH114
        raise UserError(f"{directory} is a symbolic link; a run's directory must be a real one: move it away")
    try:
        names = set(os.listdir(place))  # noqa: PTH208
    except FileNotFoundError:
        return SurveyedRun(place, State.NEW)
    except NotADirectoryError:
        raise UserError(f"{directory} is a file where a run's directory should be; move it away") from None
    except PermissionError as error:
        raise UnreadableFile(f"{directory} cannot be read ({error.strerror}); make it readable and try again") from None
    if file_names.RESULT not in names:
        return SurveyedRun(place, State.NEW if names <= file_names.BEFORE_TRAINING else State.DAMAGED)
    try:
        result = run_directory.read_result(directory)
    except (DamagedFile, NotRegularFile):
        return SurveyedRun(place, State.DAMAGED)
    if result.status not in run_directory.FINAL:
        if result.identity != identity:
            return SurveyedRun(place, State.DAMAGED)
        state = State.FAILED if result.status == "failed" else State.INTERRUPTED
        return SurveyedRun(place, state, trained=not names <= {*file_names.BEFORE_TRAINING, file_names.RESULT})
    if not _are_whole(place, result.files):
        return SurveyedRun(place, State.DAMAGED)
    if result.identity != identity:
        return SurveyedRun(place, State.OTHER)
    return SurveyedRun(place, State.DONE, result)


def set_aside(run: SurveyedRun, aside: Path) -> Path:
    """Move a run's directory to a new name below `aside`, which is returned.

    Raises:
        UserError: see `unused_path`.
    """
    place = unused_path(aside, run.directory.name)
    run.directory.rename(place)
    return place


def keep_saved(run: SurveyedRun, aside: Path) -> None:
    """Prepare the directory of a run that continues from a saved state: its marker goes, its metrics and weights stay.

    If it holds other files, which a crash has left while the run was written, its content is set aside.
    """
    if not run.directory.is_dir():
        return
    names = {path.name for path in run.directory.iterdir()}
    written_in_training = {file_names.METRICS, file_names.WEIGHTS_BY_EPOCH}
    if names <= {*file_names.BEFORE_TRAINING, file_names.RESULT, *written_in_training}:
        (run.directory / file_names.RESULT).unlink(missing_ok=True)
    else:
        set_content_aside(run.directory, aside)


def take_over(run: SurveyedRun, aside: Path) -> None:
    """Move the directory in which a run was begun with fewer epochs to the run's place, or set it aside.

    Raises:
        UserError: see `unused_path`.
    """
    directory = Path(run.begun_place)
    names = {path.name for path in directory.iterdir()}
    is_empty = names <= {*file_names.BEFORE_TRAINING, file_names.RESULT}
    if os.path.lexists(run.place) or not (is_empty or run.state is State.SAVED):
        directory.rename(unused_path(aside, directory.name))
        return
    (directory / file_names.RESULT).unlink(missing_ok=True)
    run.directory.parent.mkdir(parents=True, exist_ok=True)
    directory.rename(run.directory)


def set_content_aside(directory: Path, aside: Path) -> None:
    """As `set_aside`, but the directory itself stays, with the files from before training.

    Raises:
        UserError: see `unused_path`.
    """
    place = unused_path(aside, directory.name)
    place.mkdir()
    for path in directory.iterdir():
        if path.name not in file_names.BEFORE_TRAINING:
            path.rename(place / path.name)


def files_of(result: Result) -> set[str]:
    """The paths of all files that mlpexp and Hydra have written of a finished run, relative to its directory."""
    return {*file_names.UNLISTED, *result.files}


def remove_shorter(run: SurveyedRun, aside: Path) -> None:
    """Remove the files of a run that has been trained further elsewhere, see `files_of`.

    Other files in its directory are set aside. After a crash in the middle it can be called again.

    Raises:
        UserError: see `unused_path`.
    """
    assert run.result is not None
    directory, place = run.directory, str(run.directory)  # texts: a sweep removes ten thousand small files
    if not directory.is_dir() or directory.is_symlink():
        return
    names = sorted(files_of(run.result) - {file_names.RESULT})
    folders = {folder: f"{place}/{folder}" for folder in {name.rpartition("/")[0] for name in names} if folder}
    links = {folder for folder, path in folders.items() if os.path.islink(path)}  # noqa: PTH114
    for name in names:
        if name.rpartition("/")[0] not in links:
            with suppress(FileNotFoundError):
                os.unlink(f"{place}/{name}")  # noqa: PTH108
    for path in folders.values():
        with suppress(OSError):  # not empty
            os.rmdir(path)  # noqa: PTH106
    # last, so that a crash leaves a run that is found again, or an empty directory
    with suppress(FileNotFoundError):
        os.unlink(f"{place}/{file_names.RESULT}")  # noqa: PTH108
    remove_empty(directory)
    if directory.is_dir():
        directory.rename(unused_path(aside, directory.name))


def remove_empty(directory: Path) -> None:
    """Remove a directory if it is empty, e.g. after a crash in `remove_shorter`."""
    with suppress(OSError):  # not empty
        directory.rmdir()


def unused_path(aside: Path, name: str) -> Path:
    """An unused path below `aside` for what was called `name`.

    Raises:
        UserError: `aside` is a link, or full.
    """
    refuse_link(aside)
    aside.mkdir(exist_ok=True)
    for number in range(10_000):
        if not os.path.lexists(place := aside / f"{name}-{number}"):
            return place
    raise UserError(f"{aside} is full; delete what you do not need there")


def _are_whole(directory: str, files: Mapping[str, Mapping[str, int | str]]) -> bool:
    """Whether the files match the checksums of the marker, and neither they nor their directories are links."""
    folders = {name.rpartition("/")[0] for name in files}
    if any(folder and os.path.islink(f"{directory}/{folder}") for folder in folders):  # noqa: PTH114
        return False
    for name, checksum in files.items():
        size = checksum.get("size")
        if not isinstance(size, int):
            return False
        try:
            content = safe_files.read_bytes(f"{directory}/{name}", size, follow=False)
        except (FileNotFoundError, NotRegularFile):
            return False
        if len(content) != size or hashlib.sha256(content).hexdigest() != checksum.get("sha256"):
            return False
    return True
