"""The Optuna study that a search leaves for Optuna's own tools: a journal file, an SQLite file or another database.

The search does not depend on it: trials are in `search_record`, outcomes in the runs' files.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from mlpexp.runtime import portable, safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.search.search_record import Generation, Search, set_aside
from mlpexp.store import atomic_files, directory_lock
from mlpexp.store.file_names import OPTUNA_DATABASE, OPTUNA_JOURNAL, SEARCH

STUDY = "mlpexp"
LIMIT = 2**30  # bytes of a journal
# user attributes of the study, of trials, and of trials in versions that kept no record
SEARCH_ID, ASKED = "search id", "search"
NUMBER, GENERATION, PROBLEM = "trial", "generation", "problem"
STOPPED = "stopped"  # of trials of which only some seeds were trained
VOID, REPLACES = "does not count", "replaces"
_OP_CODE = b'{"op_code":'  # how each line of a journal begins


class StudyMirror:
    """A study in Optuna's storage that follows the search.

    Args:
        storage: None for a journal in `directory`, `sqlite` for a database there, an address, or a journal's file.
        directory: of the sweep, which this process has locked.
        directions: of the objectives.

    Attributes:
        warning: what was wrong with the storage.

    Raises:
        UserError: the storage cannot be used.
    """

    def __init__(self, storage: str | None, directory: Path, directions: Sequence[Any]) -> None:
        self.warning: str | None = None
        self.name = storage or OPTUNA_JOURNAL
        self._own = {None: OPTUNA_JOURNAL, "sqlite": OPTUNA_DATABASE}.get(storage)
        self._flush: Callable[[], None] = lambda: None
        self._lock = None if self._own or "://" in self.name else _lock(Path(self.name))
        try:
            self._study = self._open(directory, directions)
        except DamagedStorage as error:
            if self._own is None:
                raise
            moved = set_aside(directory / self._own)  # the record and the runs hold everything that it held
            self.warning = f"{error}; it has been renamed to {moved.name}, and a new one is written"
            self._study = self._open(directory, directions)
        self._known: dict[int, tuple[TrialState, list[float] | None]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and VOID not in trial.user_attrs:
                self._known[_number(trial)] = trial.state, _values(trial)

    def _open(self, directory: Path, directions: Sequence[Any]) -> optuna.Study:
        if self._own == OPTUNA_DATABASE or "://" in self.name:
            storage = _database(self.name, directory / OPTUNA_DATABASE)
        else:
            storage, self._flush = _journal_storage(directory / OPTUNA_JOURNAL if self._own else Path(self.name))
        study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions, load_if_exists=True)
        if [direction.name.lower() for direction in study.directions] != list(directions):
            raise UserError(f"{self.name} holds a study with other objectives; choose another name=…")
        return study

    def earlier(self) -> tuple[dict[str, str], list[Generation]] | None:
        """The objectives, the space and the generations of a search by a version without records."""
        asked = self._study.user_attrs.get(ASKED)
        if asked is None or (self._own is None and SEARCH_ID in self._study.user_attrs):
            return None
        trials: dict[int, dict[int, FrozenTrial]] = defaultdict(dict)
        for trial in self._study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if GENERATION in attributes and VOID not in attributes and trial.state != TrialState.WAITING:
                trials[attributes[GENERATION]].setdefault(_number(trial), trial)
        generations: list[Generation] = []
        for first in sorted(trials):
            members = [trials[first][number] for number in sorted(trials[first])]
            if first == sum(len(generation.trials) for generation in generations):
                generations.append(Generation(first=first, trials=[trial.params for trial in members]))
        return json.loads(asked), generations

    def claim(self, search: Search) -> None:
        """Mark the study as that of one search.

        Raises:
            UserError: it is that of another search.
        """
        search_id = self._study.user_attrs.get(SEARCH_ID)
        if search_id == search.id and ASKED in self._study.user_attrs:
            return
        if self._own is None and search_id != search.id and (search_id or self._study.get_trials(deepcopy=False)):
            raise UserError(
                f"hydra.sweeper.storage={self.name} holds the study of another search; give another file or database"
            )
        self._study.set_user_attr(ASKED, json.dumps(search.asked))
        self._study.set_user_attr(SEARCH_ID, search.id)  # last: a database has both, or is claimed again
        self._flush()

    def follow(self, trials: Sequence[FrozenTrial], first: int) -> None:
        """Add trials that are not yet there, or have another outcome than before.

        Args:
            first: the number of their generation's first trial.
        """
        for trial in trials:
            state = TrialState.FAIL if PROBLEM in trial.user_attrs else trial.state
            if self._known.get(trial.number, (None, None)) == (state, _values(trial)):
                continue
            copy = optuna.trial.create_trial(
                state=state,
                params=trial.params,
                distributions=trial.distributions,
                values=_values(trial),
                intermediate_values=trial.intermediate_values,
                user_attrs={**trial.user_attrs, NUMBER: trial.number, GENERATION: first},
            )
            self._study.add_trial(copy)
            self._known[trial.number] = state, _values(trial)
        self._flush()

    def close(self) -> None:
        """Release the lock of a journal outside of the sweep's directory."""
        if self._lock is not None:
            directory_lock.release(self._lock)
            self._lock = None


def load(directory: Path) -> tuple[list[str], optuna.Study] | None:
    """The objectives and the study of a search, each trial once and numbered as in its record.

    Returns:
        None where the directory holds no search, or its study is elsewhere.

    Raises:
        UserError: the storage cannot be read.
    """
    if not (directory / SEARCH).is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if (directory / OPTUNA_JOURNAL).is_file():
        storage, _ = _journal_storage(directory / OPTUNA_JOURNAL)
    elif (directory / OPTUNA_DATABASE).is_file():
        storage = _database("sqlite", directory / OPTUNA_DATABASE)
    else:
        return None
    try:
        study = optuna.load_study(study_name=STUDY, storage=storage)
        names = json.loads(study.user_attrs[ASKED])["objectives"].split(",")
    except (KeyError, ValueError) as error:  # no trial has an outcome yet
        raise DamagedStorage(f"{directory} holds no study of a search ({error})") from error
    latest = {_number(trial): trial for trial in study.get_trials(deepcopy=False) if VOID not in trial.user_attrs}
    study_of_search = optuna.create_study(study_name=STUDY, directions=study.directions)
    study_of_search.add_trials([latest[number] for number in sorted(latest)])
    return names, study_of_search


def _values(trial: FrozenTrial) -> list[float] | None:
    """Of a trial that was trained to its end; Optuna gives a pruned one its last intermediate value."""
    return trial.values if trial.state == TrialState.COMPLETE else None


def _number(trial: FrozenTrial) -> int:
    """The number in the search, which a trial that was tried again shares with its predecessor."""
    attributes = trial.user_attrs
    number: int = attributes.get(NUMBER, attributes.get(REPLACES, trial.number))
    return number


class DamagedStorage(UserError):
    """A storage that exists and cannot be read as what it should be."""


class Journal(BaseJournalBackend):
    """Optuna's journal file, written once a generation.

    Optuna's own backend locks the file and waits for the disk at each of its lines, which would take as long as the
    training. Here the process has locked the sweep's directory, or the file itself, for the whole search.

    Raises:
        DamagedStorage: the file is no journal.
        UserError: it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = safe_files.read_bytes(path, LIMIT, follow=False)
        except FileNotFoundError:
            content = b""
        self._size = content.rfind(b"\n") + 1  # a crash may have cut the last line short
        self._cut = len(content) - self._size
        if self._cut and not self._size and not content.startswith(_OP_CODE):
            raise DamagedStorage(f"{path} is not an Optuna journal")
        try:
            self._lines: list[dict[str, Any]] = [json.loads(line) for line in content[: self._size].splitlines()]
        except (ValueError, RecursionError) as error:
            raise DamagedStorage(f"{path} is not an Optuna journal ({error})") from error
        self._written = len(self._lines)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._lines += logs

    def flush(self) -> None:
        """Write what is new.

        Raises:
            UserError: another program writes to the file.
        """
        new = self._lines[self._written :]
        if not new:
            return
        size_on_disk = self._path.stat().st_size if self._path.exists() else 0
        if size_on_disk != self._size + self._cut:
            raise UserError(f"{self._path} was changed by another program meanwhile; give each search a separate file")
        if self._cut:
            atomic_files.detach(self._path)
            os.truncate(self._path, self._size)
            self._cut = 0
        content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in new).encode()
        atomic_files.append(self._path, content, durable=True)
        self._size += len(content)
        self._written = len(self._lines)


def _journal_storage(path: Path) -> tuple[BaseStorage, Callable[[], None]]:
    journal = Journal(path)
    if not all(isinstance(line, dict) and "op_code" in line for line in journal.read_logs(0)):
        raise DamagedStorage(f"{path} is not an Optuna journal")
    try:
        return JournalStorage(journal), journal.flush
    except UserError:
        raise
    except Exception as error:  # Optuna raises many kinds on lines that it did not write
        raise DamagedStorage(f"{path} is a damaged Optuna journal ({type(error).__name__}: {error})") from error


def _lock(path: Path) -> int:
    """Lock a journal outside of the sweep's directory; returns the descriptor that `directory_lock.release` takes.

    Raises:
        UserError: another process has locked it, or it cannot be a journal.
    """
    if (path.exists() or path.is_symlink()) and not safe_files.is_regular(path, follow=False):
        raise UserError(f"hydra.sweeper.storage={path} is not a regular file; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(
            f"hydra.sweeper.storage={path}: there is no directory {path.parent}; make it, or choose another"
        )
    atomic_files.detach(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    directory_lock.close_in_forks(handle)
    if portable.lock(handle) is False:
        directory_lock.release(handle)
        raise UserError(f"hydra.sweeper.storage={path} is in use by another search; give each search a separate file")
    return handle


def _database(storage: str, path: Path) -> BaseStorage:
    if storage == "sqlite" and (path.exists() or path.is_symlink()) and not safe_files.is_regular(path, follow=False):
        raise DamagedStorage(f"{path} is not a regular file")
    try:
        return RDBStorage(f"sqlite:///{path}" if storage == "sqlite" else storage)
    except Exception as error:  # of SQLAlchemy, or of the driver that it lacks
        reason = str(error).partition("\n")[0]
        raise DamagedStorage(f"hydra.sweeper.storage={storage} cannot be opened: {reason}") from error
