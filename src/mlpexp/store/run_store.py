"""The runs in a sweep's directory: survey, preparation, reading, and the table of results.

There are two back ends, a directory per run and one table. A finished run is found in both by its identity, under any
name, and is never replaced by another run.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mlpexp import data
from mlpexp.config.schema import Config
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.object_cache import ByObject
from mlpexp.runtime.terminal import counted
from mlpexp.store import (
    atomic_files,
    file_names,
    further_training,
    recycled_directory,
    results_table,
    run_directory,
    run_state,
    run_table,
    stack_states,
    sweep_activity,
    sweep_manifest,
)
from mlpexp.store.directory_checks import check_sweep_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_recognition import GridRun, Recognition, free_directory
from mlpexp.store.run_state import UNUSABLE, State, SurveyedRun
from mlpexp.store.sweep_manifest import Manifest

WORDS = {
    State.DONE: "done before",
    State.DAMAGED: "damaged (set aside, trained again)",
    State.FAILED: "failed before (tried again)",
    State.INTERRUPTED: "interrupted before (trained again)",
    State.SAVED: "under way before (continued from their last saved epoch)",
    State.SHORTER: "trained for fewer epochs before (trained further)",
    State.NEW: "new",
}


@dataclass
class Survey:
    """The state of every run before any is started.

    Attributes:
        runs: by the directory that the grid gives the run.
        manifest: of the sweep with these runs.
        withdrawn: the directories of runs that an earlier command has begun with a number of epochs that is withdrawn.
        shorter_in_table: how many new runs the table has with fewer epochs.
    """

    runs: dict[str, SurveyedRun]
    manifest: Manifest
    withdrawn: list[str] = field(default_factory=list)
    shorter_in_table: int = 0

    def sentence(self) -> str:
        """E.g. `1,080 runs: 1,000 done before, 3 damaged, 77 new`; empty where all are new."""
        counts = Counter(run.state for run in self.runs.values())
        if counts[State.NEW] == len(self.runs) and not self.withdrawn and not self.shorter_in_table:
            return ""
        phrases = [f"{counts[state]:,} {words}" for state, words in WORDS.items() if counts[state]]
        if count := self.shorter_in_table:
            phrases[-1] += f" ({count:,} of them from their beginning: a table keeps no states of shorter trainings)"
        if self.withdrawn:
            phrases.append(f"{len(self.withdrawn):,} begun with more epochs, of which none had ended (set aside)")
        return f"{counted(len(self.runs), 'run')}: {', '.join(phrases)}"


class RunStore:
    """The directory of a sweep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def survey(self, jobs: Sequence[tuple[str, Config]], *, same_study: bool) -> Survey:
        """Find the state of each run, without changing anything.

        Args:
            jobs: the directory that the grid gives each run, and its configuration.
            same_study: refuse runs of another study; not for a sweeper that brings its runs in portions.

        Raises:
            UserError: the directory is a file, a link, not one of mlpexp's, or holds another study; or something in it
                cannot be read.
        """
        check_sweep_directory(self.directory)
        atomic_files.refuse_link(self.directory / file_names.SET_ASIDE)
        for name in (file_names.RESULTS, file_names.MULTIRUN):
            if (self.directory / name).is_dir():
                raise UserError(f"{self.directory / name} is a directory where a file should be; move it away")
        digest = ByObject(data.digest)
        unique = dict(jobs)
        runs = [
            GridRun(Path(place), cfg, digest(cfg.data), identity(cfg, digest(cfg.data)))
            for place, cfg in unique.items()
        ]
        study, withdrawn = self._study(runs, same_study=same_study)
        one_length = same_study and further_training.EPOCHS in study.constants
        recognition = Recognition(self.directory, study, one_length=one_length)
        surveyed = recognition.find(runs)
        earlier_identities = [recognition.earlier_identities(run) for run in runs]
        for name in chain.from_iterable(earlier_identities):
            if name in study.runs:
                study.earlier[name] = study.runs.pop(name)
        shorter_in_table = sum(
            entry.state is State.NEW
            and (entry.earlier is not None or any(name in recognition.in_table for name in identities))
            for entry, identities in zip(surveyed, earlier_identities, strict=True)
        )
        saved = stack_states.saved_runs(self.directory)
        for entry, run, identities in zip(surveyed, runs, earlier_identities, strict=True):
            if entry.state not in (State.NEW, State.SHORTER, State.DAMAGED, State.INTERRUPTED):
                continue
            # what has ended has more epochs than what was saved before
            candidates = [run.identity, *(() if entry.state is State.SHORTER else identities)]
            if saved_as := next((name for name in candidates if name in saved), ""):
                entry.saved_as, entry.state = saved_as, State.SAVED
            if entry.earlier is None:
                entry.begun_place = recognition.begun_place(entry, run)
        inside = f"{self.directory}{os.sep}"
        study.runs |= {
            run.identity: run_directory.name_in(self.directory, entry.place)
            for entry, run in zip(surveyed, runs, strict=True)
            if entry.place.startswith(inside)
        }
        return Survey(dict(zip(unique, surveyed, strict=True)), study, withdrawn, shorter_in_table)

    def _study(self, runs: Sequence[GridRun], *, same_study: bool) -> tuple[Manifest, list[str]]:
        """The study of the directory with these runs, and the directories of runs with a withdrawn number of epochs.

        Raises:
            UserError: see `survey`.
        """
        old = sweep_manifest.read(self.directory)
        new = sweep_manifest.study((run.cfg, run.digest) for run in runs)
        if old is None or not same_study:
            return sweep_manifest.joined(old, new, self.directory, refuse=same_study), []
        old, withdrawn = further_training.withdrawn(old, new, self.directory)
        longer = further_training.lengthened(old, new)
        names = [run.directory.name for run in runs]
        study = sweep_manifest.joined(longer, new, self.directory, names=names, refuse=True)
        if longer is not old:
            further_training.refuse([run.cfg for run in runs], self.directory)
        return study, withdrawn

    def prepare(self, survey: Survey) -> None:
        """Set aside what is damaged, failed or interrupted, and write the manifest; the directory's lock is held."""
        aside = self.directory / file_names.SET_ASIDE
        atomic_files.make_directory(self.directory, parents=True)
        atomic_files.clean(self.directory)
        recycled_directory.clean(self.directory)
        sweep_activity.remove_curves(self.directory)
        runs = survey.runs.values()
        if moved := [run for run in runs if run.earlier and run.earlier.place == run.place]:
            self._make_room(moved, survey.manifest)
        places = {run.place for run in runs}
        for directory in [self.directory / name for name in survey.withdrawn]:
            if str(directory) not in places:
                directory.rename(run_state.unused_path(aside, directory.name))
        for run in runs:
            if run.begun_place:
                run_state.take_over(run, aside)
            if run.state is State.DONE and run.earlier is not None:
                run_state.remove_shorter(run.earlier, aside)  # a crash came between the longer run and this
            if run.state is State.INTERRUPTED and not run.trained:
                (run.directory / file_names.RESULT).unlink()  # stopped before anything came of it
            elif run.state is State.SAVED:
                run_state.keep_saved(run, aside)
            elif run.state in UNUSABLE:
                run_state.set_aside(run, aside)
        sweep_manifest.write(self.directory, survey.manifest)
        done = {run.result.identity for run in runs if run.state is State.DONE and run.result}
        for name in survey.manifest.earlier.values():
            run_state.remove_empty(self.directory / name)
        planned = survey.manifest.runs.keys() | survey.manifest.earlier.keys()
        stack_states.keep_only(self.directory, planned - done)

    def _make_room(self, runs: Sequence[SurveyedRun], manifest: Manifest) -> None:
        """Rename the directories of shorter runs whose names the longer runs have."""
        taken = {self.directory / name for names in (manifest.runs, manifest.earlier) for name in names.values()}
        moves = []
        for run in runs:
            assert run.earlier is not None
            assert run.earlier.result is not None
            place = free_directory(run.directory, taken)
            taken.add(place)
            manifest.earlier[run.earlier.result.identity] = self.name_of(place)
            moves.append((run.earlier, place))
        sweep_manifest.write(self.directory, manifest)  # first: a run is found under its new name and under its old one
        for earlier, place in moves:
            earlier.directory.rename(place)
            earlier.place = str(place)

    def write_results(self, rows: Sequence[results_table.Row]) -> None:
        """Write `results.csv`, the table of the runs that have ended."""
        atomic_files.write(self.directory / file_names.RESULTS, results_table.table_parts(rows))

    def read(self, name: str, file: str) -> str | None:
        """The text of a run's file, from its directory or from the table; None where there is none.

        Args:
            name: of the run, see `name_of`.

        Raises:
            UserError: it cannot be read.
        """
        if not run_directory.is_relative(name):
            return None
        try:
            return safe_files.read_text(self.directory / name / file, errors="replace")
        except FileNotFoundError:
            return run_table.by_name(self.directory).get(name, {}).get(file)

    def name_of(self, run: Path) -> str:
        """The run's name in `results.csv` and in the table."""
        return run_directory.name_in(self.directory, run)
