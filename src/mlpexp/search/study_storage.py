"""The Optuna study that a search leaves for Optuna's own tools: a journal file, an SQLite file or another database.

The search does not depend on it: trials are in `search_record`, outcomes in the runs' files.
"""

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from mlpexp.runtime.errors import UserError
from mlpexp.search import objectives, study_database
from mlpexp.search.search_record import Generation, Params, Search, set_aside
from mlpexp.search.study_journal import DamagedStorage, lock_journal, open_journal
from mlpexp.store import directory_lock
from mlpexp.store.file_names import OPTUNA_DATABASE, OPTUNA_JOURNAL, SEARCH

STUDY = "mlpexp"
# user attributes of the study, of trials, and of trials in versions that kept no record
SEARCH_ID, ASKED = "search id", "search"
NUMBER, GENERATION, PROBLEM = "trial", "generation", "problem"
RUNS, VALUES = "runs", "values of runs"  # names of a trial's runs, their objectives where they are several
STOPPED = "stopped"  # of trials of which only some seeds were trained
VOID, REPLACES = "does not count", "replaces"


class StudyMirror:
    """A study in Optuna's storage that follows the search.

    Args:
        storage: None or `journal` for a journal in `directory`, `sqlite` for a database there, an address, or a
            journal's file.
        directory: of the sweep, which this process has locked.
        names: of the objectives.

    Attributes:
        warning: what was wrong with the storage.

    Raises:
        UserError: the storage cannot be used.
    """

    def __init__(self, storage: str | None, directory: Path, names: Sequence[str]) -> None:
        self.warning: str | None = None
        storage = str(storage) if storage else "journal"
        self._own = {"journal": OPTUNA_JOURNAL, "sqlite": OPTUNA_DATABASE}.get(storage)
        self.name = self._own or storage
        self._flush: Callable[[], None] = lambda: None
        self._names = list(names)
        self._lock = None if self._own or "://" in self.name else lock_journal(Path(self.name))
        try:
            self._study = self._open(directory)
        except DamagedStorage as error:
            if self._own is None:
                raise
            moved = set_aside(directory / self._own)  # the record and the runs hold everything that it held
            self.warning = f"{error}; it has been renamed to {moved.name}, and a new one is written"
            self._study = self._open(directory)
        self._known: dict[int, tuple[TrialState, list[float] | None]] = {}
        self._in_training: dict[int, tuple[int, Params]] = {}  # numbers in the storage
        trials = self._study.get_trials(deepcopy=False)
        self._num_stored = len(trials)
        for trial in trials:
            if trial.state == TrialState.RUNNING and NUMBER in trial.user_attrs:
                self._in_training[_number(trial)] = trial.number, trial.params
            elif trial.state.is_finished() and VOID not in trial.user_attrs:
                self._known[_number(trial)] = trial.state, _values(trial)

    def _open(self, directory: Path) -> optuna.Study:
        directions = objectives.directions(self._names)
        if self._own == OPTUNA_DATABASE or "://" in self.name:
            name = "sqlite" if self._own else self.name
            storage = study_database.opened(name, directory / OPTUNA_DATABASE, (STUDY, directions))
        else:
            storage, self._flush = open_journal(directory / OPTUNA_JOURNAL if self._own else Path(self.name))
        self._storage = storage
        with study_database.errors_named(self.name):
            study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions, load_if_exists=True)
            study.get_trials(deepcopy=False)
        if [direction.name.lower() for direction in study.directions] != directions:
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
            StorageError: see `follow`.
        """
        with study_database.errors_named(self.name):
            self._claim(search)
            if self._study.metric_names != self._names:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    self._study.set_metric_names(self._names)
        self._flush()

    def _claim(self, search: Search) -> None:
        search_id = self._study.user_attrs.get(SEARCH_ID)
        if search_id == search.id and ASKED in self._study.user_attrs:
            return
        if self._own is None and search_id != search.id and (search_id or self._study.get_trials(deepcopy=False)):
            raise UserError(
                f"hydra.sweeper.storage={self.name} holds the study of another search; give another file or database"
            )
        self._study.set_user_attr(ASKED, json.dumps(search.asked))
        self._study.set_user_attr(SEARCH_ID, search.id)  # last: a database has both, or is claimed again

    def has(self, trial: FrozenTrial) -> bool:
        """Whether the study has the trial with this outcome, or with one that a replayed search has yet to reach."""
        known = self._known.get(trial.number)
        return known is not None and (not trial.state.is_finished() or known == (_state(trial), _values(trial)))

    def follow(self, trials: Sequence[FrozenTrial], first: int) -> None:
        """Add trials that are not yet there, or have another outcome than before, and end those that have ended.

        Args:
            trials: in their order; those that are in training keep the places of their numbers.
            first: the number of their generation's first trial.

        Raises:
            StorageError: the storage cannot be written.
        """
        with study_database.errors_named(self.name):
            self._follow(trials, first)
        self._flush()

    def _follow(self, trials: Sequence[FrozenTrial], first: int) -> None:
        for trial in trials:
            attributes = {**trial.user_attrs, NUMBER: trial.number, GENERATION: first}
            if trial.number in self._in_training:
                number, params = self._in_training[trial.number]
                is_same = params == trial.params
                if trial.state.is_finished() or not is_same:
                    del self._in_training[trial.number]
                    self._end(number, trial if is_same else None, attributes)
                if is_same:
                    continue
            if self.has(trial):
                continue
            self._study.add_trial(
                FrozenTrial(
                    number=trial.number,
                    state=_state(trial),
                    value=None,
                    values=trial.values if _state(trial) != TrialState.FAIL else None,
                    datetime_start=trial.datetime_start,
                    datetime_complete=trial.datetime_complete,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=attributes,
                    system_attrs={},
                    intermediate_values=trial.intermediate_values,
                    trial_id=trial.number,
                )
            )
            if not trial.state.is_finished():
                self._in_training[trial.number] = self._num_stored, trial.params
            self._num_stored += 1
        self._known |= {trial.number: (_state(trial), _values(trial)) for trial in trials if trial.state.is_finished()}

    def _end(self, number: int, trial: FrozenTrial | None, attributes: dict[str, Any]) -> None:
        """End a trial of the storage that was in training; None where the search has sampled another one since."""
        study_id = self._storage.get_study_id_from_name(STUDY)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        if trial is None:
            self._storage.set_trial_user_attr(trial_id, VOID, True)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            return
        for step, value in trial.intermediate_values.items():
            self._storage.set_trial_intermediate_value(trial_id, step, value)
        for key, content in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, content)
        state = _state(trial)
        self._storage.set_trial_state_values(trial_id, state, trial.values if state != TrialState.FAIL else None)

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
    files = [path for name in (OPTUNA_JOURNAL, OPTUNA_DATABASE) if (path := directory / name).is_file()]
    if not files:
        return None
    latest_file = max(files, key=lambda path: path.stat().st_mtime_ns)  # a search may have changed its storage
    if latest_file.name == OPTUNA_JOURNAL:
        storage, _ = open_journal(latest_file)
    else:
        storage = study_database.opened("sqlite", latest_file)
    try:
        with study_database.errors_named(str(directory)):
            study = optuna.load_study(study_name=STUDY, storage=storage)
        names = json.loads(study.user_attrs[ASKED])["objectives"].split(",")
    except (KeyError, ValueError) as error:  # no trial has an outcome yet
        raise DamagedStorage(f"{directory} holds no study of a search ({error})") from error
    latest = {
        _number(trial): trial
        for trial in study.get_trials(deepcopy=False)
        if VOID not in trial.user_attrs and trial.state.is_finished()
    }
    study_of_search = optuna.create_study(study_name=STUDY, directions=study.directions)
    study_of_search.add_trials([latest[number] for number in sorted(latest)])
    return names, study_of_search


def _state(trial: FrozenTrial) -> TrialState:
    """The state that Optuna's tools show: a sampler counts a diverged trial as a pruned one, for them it has failed."""
    return TrialState.FAIL if PROBLEM in trial.user_attrs else trial.state


def _values(trial: FrozenTrial) -> list[float] | None:
    """Of a trial that was trained to its end; Optuna gives a pruned one its last intermediate value."""
    return trial.values if trial.state == TrialState.COMPLETE else None


def _number(trial: FrozenTrial) -> int:
    """The number in the search, which a trial that was tried again shares with its predecessor."""
    attributes = trial.user_attrs
    number: int = attributes.get(NUMBER, attributes.get(REPLACES, trial.number))
    return number
