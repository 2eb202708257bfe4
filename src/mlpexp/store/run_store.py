"""The runs of a sweep's directory: which are finished, where they are, how they are read, recorded and set aside.

There are two back ends, a directory per run and one table. A finished run is recognised in both by its identity, under
whatever name it lies, and never gives way to another run.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlpexp import data
from mlpexp.config.schema import Config
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.object_cache import ByObject
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
    sweep_manifest,
)
from mlpexp.store.directory_checks import check_sweep_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_recognition import Recognition, free_directory
from mlpexp.store.run_state import UNUSABLE, Found, State
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
    """What is known of every run before any is started.

    Attributes:
        found: by the directory that the grid gives the run.
        manifest: of the sweep with these runs.
        begun: the directories of runs that an earlier command has begun with a number of epochs that is withdrawn.
    """

    found: dict[str, Found]
    manifest: Manifest
    begun: list[str] = field(default_factory=list)
    anew: int = 0
    """new runs that the table has with fewer epochs"""

    def sentence(self) -> str:
        """E.g. `1,080 runs: 1,000 done before, 3 damaged, 77 new`; empty where all are new."""
        counts = Counter(one.state for one in self.found.values())
        if counts[State.NEW] == len(self.found) and not self.begun and not self.anew:
            return ""
        parts = [f"{counts[state]:,} {words}" for state, words in WORDS.items() if counts[state]]
        if self.anew:
            parts[-1] += f" ({self.anew:,} of them from their beginning: a table keeps no states of shorter trainings)"
        if self.begun:
            parts.append(f"{len(self.begun):,} begun with more epochs, of which none had ended (set aside)")
        return f"{len(self.found):,} runs: {', '.join(parts)}"


class RunStore:
    """The directory of a sweep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def survey(self, jobs: Sequence[tuple[str, Config]], *, same_study: bool) -> Survey:
        """Look at the directory without changing it.

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
        unique = dict(jobs)
        places = [Path(place) for place in unique]
        digests = ByObject(data.digest)
        old = sweep_manifest.read(self.directory)
        new = sweep_manifest.study((cfg, digests(cfg.data)) for cfg in unique.values())
        names = [place.name for place in places] if old is not None else []
        begun: list[str] = []
        if old is not None and same_study:
            old, begun = further_training.withdrawn(old, new, self.directory)
        longer = further_training.lengthened(old, new) if old is not None and same_study else old
        study = sweep_manifest.joined(longer, new, self.directory, names=names, refuse=same_study)
        if longer is not old:
            further_training.refuse(list(unique.values()), self.directory)
        runs = [(place, cfg, digests(cfg.data)) for place, cfg in zip(places, unique.values(), strict=True)]
        identities = [identity(cfg, digest) for _, cfg, digest in runs]
        one_length = same_study and further_training.EPOCHS in study.constants
        recognition = Recognition(self.directory, study, one_length=one_length)
        found = recognition.find(runs, identities)
        if recognition.earlier is not None and study.shorter:
            before = [name for _, cfg, digest in runs for name in recognition.earlier.identities(cfg, digest)]
            study.earlier |= {name: study.runs.pop(name) for name in before if name in study.runs}
        anew = sum(one.state is State.NEW and one.earlier is not None for one in found)
        if recognition.earlier is not None and recognition.in_table and study.shorter:
            anew += sum(
                one.state is State.NEW
                and one.earlier is None
                and any(name in recognition.in_table for name in recognition.earlier.identities(cfg, digest))
                for one, (_, cfg, digest) in zip(found, runs, strict=True)
            )
        saved = stack_states.saved_runs(self.directory)
        for one, name, (_, cfg, digest) in zip(found, identities, runs, strict=True):
            if one.state not in (State.NEW, State.SHORTER, State.DAMAGED, State.INTERRUPTED):
                continue
            before = recognition.earlier.identities(cfg, digest) if saved and recognition.earlier is not None else []
            names = [name] if one.state is State.SHORTER else [name, *before]  # what has ended has more epochs
            if states := [own for own in names if own in saved]:
                one.saved_as, one.state = states[0], State.SAVED
            if study.shorter and one.earlier is None and recognition.earlier is not None:
                one.begun = recognition.earlier.begun(one, cfg, digest)
        inside = f"{self.directory}{os.sep}"
        study.runs |= {
            name: run_directory.name_in(self.directory, one.place)
            for name, one in zip(identities, found, strict=True)
            if one.place.startswith(inside)
        }
        return Survey(dict(zip(unique, found, strict=True)), study, begun, anew)

    def prepare(self, survey: Survey) -> None:
        """Set aside what is damaged, failed or interrupted, and write the manifest; the directory's lock is held."""
        aside = self.directory / file_names.SET_ASIDE
        atomic_files.make_directory(self.directory, parents=True)
        atomic_files.clean(self.directory)
        recycled_directory.clean(self.directory)
        if moved := [one for one in survey.found.values() if one.earlier and one.earlier.place == one.place]:
            self._make_room(moved, survey.manifest)
        here = {one.place for one in survey.found.values()}
        for begun in [self.directory / name for name in survey.begun]:
            if str(begun) not in here:
                begun.rename(run_state.vacant(aside, begun.name))
        for one in survey.found.values():
            if one.begun:
                run_state.take_over(one, aside)
            if one.state is State.DONE and one.earlier is not None:
                run_state.remove_shorter(one.earlier, aside)  # a crash came between the longer run and this
            if one.state is State.INTERRUPTED and not one.trained:
                (one.directory / file_names.RESULT).unlink()  # stopped before anything came of it
            elif one.state is State.SAVED:
                run_state.keep_saved(one, aside)
            elif one.state in UNUSABLE:
                run_state.set_aside(one, aside)
        sweep_manifest.write(self.directory, survey.manifest)
        done = {one.result.identity for one in survey.found.values() if one.state is State.DONE and one.result}
        for name in survey.manifest.earlier.values():
            run_state.remove_empty(self.directory / name)
        known = survey.manifest.runs.keys() | survey.manifest.earlier.keys()
        stack_states.keep(self.directory, known - done)

    def _make_room(self, runs: Sequence[Found], manifest: Manifest) -> None:
        """Give shorter runs other names, where the longer ones have the names that they had."""
        taken = {self.directory / name for names in (manifest.runs, manifest.earlier) for name in names.values()}
        moves = []
        for one in runs:
            assert one.earlier is not None
            assert one.earlier.result is not None
            place = free_directory(one.directory, taken)
            taken.add(place)
            manifest.earlier[one.earlier.result.identity] = self.name_of(place)
            moves.append((one.earlier, place))
        sweep_manifest.write(self.directory, manifest)  # first: a run is found under its new name and under its old one
        for earlier, place in moves:
            earlier.directory.rename(place)
            earlier.place = str(place)

    def write_results(self, rows: Sequence[results_table.Row]) -> None:
        """`results.csv`: the table of the runs that have ended."""
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
