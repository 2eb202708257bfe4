"""Finds the runs of a grid in a sweep's directory by identity: under any name, in a directory or in the table."""

import contextlib
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from mlpexp.config.schema import Config
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.store import run_directory, run_state, run_table
from mlpexp.store.further_training import EarlierRuns, earlier_identities
from mlpexp.store.run_state import UNUSABLE, State, SurveyedRun
from mlpexp.store.sweep_manifest import Manifest


class GridRun(NamedTuple):
    """A run of a grid.

    Attributes:
        directory: that the grid gives it.
        digest: of its data.
    """

    directory: Path
    cfg: Config
    digest: str
    identity: str


class Recognition:
    """Finds each run of a grid; gives each unfinished run a directory that no other run has.

    Args:
        study: of the sweep, with all runs that were ever planned.
        one_length: its runs have one number of epochs; some of them may have been trained further.
    """

    def __init__(self, sweep: Path, study: Manifest, *, one_length: bool) -> None:
        self.sweep, self._place, self._planned = sweep, str(sweep), study.runs | study.earlier
        self.in_table = run_table.results(sweep)
        self._names = set(os.listdir(sweep)) if sweep.is_dir() else set()  # noqa: PTH208 - names
        self._earlier = EarlierRuns(sweep, study.shorter, self._planned, self._names) if one_length else None
        self._names_in_table = {name for results in self.in_table.values() for name in results}
        self._claimed: set[str] = set()

    def find(self, runs: Sequence[GridRun]) -> list[SurveyedRun]:
        """The state of each run, in their order."""
        surveyed = [self._claim(self._inspect(run.directory, run.identity)) for run in runs]
        if self._earlier is not None:
            surveyed = [
                self._trained_further(entry, run, self._earlier) for entry, run in zip(surveyed, runs, strict=True)
            ]
        # names by identity of runs that the manifest does not know; read only where another run has a name
        unplanned = _names_by_identity(self.sweep) if any(entry.state is State.OTHER for entry in surveyed) else {}
        for i, run in enumerate(runs):
            if surveyed[i].state is not State.DONE:
                identity = run.identity
                names = [self._planned.get(identity), unplanned.get(identity), *self.in_table.get(identity, {})]
                elsewhere = [name for name in names if name and self.sweep / name != run.directory]
                surveyed[i] = self._elsewhere(surveyed[i], identity, elsewhere)
        self._move(surveyed, runs)
        return surveyed

    def earlier_identities(self, run: GridRun) -> list[str]:
        """The identities that the run had with fewer epochs."""
        return [] if self._earlier is None else earlier_identities(run.cfg, run.digest, self._earlier.lengths)

    def begun_place(self, surveyed: SurveyedRun, run: GridRun) -> str:
        """See `EarlierRuns.begun_place`."""
        return "" if self._earlier is None else self._earlier.begun_place(surveyed, run.cfg, run.digest)

    def _move(self, surveyed: Sequence[SurveyedRun], runs: Sequence[GridRun]) -> None:
        """Give a free directory to each run whose directory holds another run."""
        moving = [entry for entry in surveyed if self._has_no_place(entry)]
        if not moving:
            return
        identities = {run.identity for run in runs}
        taken = {self.sweep / name for identity, name in self._planned.items() if identity not in identities}
        taken |= {entry.directory for entry in surveyed} | {run.directory for run in runs}
        for entry in moving:
            place = free_directory(entry.directory, taken)
            entry.place, entry.state = str(place), State.NEW
            taken.add(place)

    def _trained_further(self, surveyed: SurveyedRun, run: GridRun, earlier_runs: EarlierRuns) -> SurveyedRun:
        """Add the shorter run from which this one is trained further; or return the longer run, if it exists."""
        if surveyed.state is State.DONE:
            places = [self.sweep / name for name in earlier_runs.names(run.cfg, run.digest) if name in self._names]
            if places := [place for place in places if str(place) != surveyed.place]:
                earlier = earlier_runs.find(places[0], run.cfg, run.digest)
                surveyed.earlier = earlier if earlier is not None and earlier.state is State.SHORTER else None
            return surveyed
        if surveyed.state is not State.OTHER and not earlier_runs.lengths:
            return surveyed
        earlier = earlier_runs.find(run.directory, run.cfg, run.digest)
        if earlier is None:
            return surveyed
        if earlier.state is State.DONE:
            return self._claim(earlier)
        surveyed.earlier = earlier
        if surveyed.state in (State.NEW, State.OTHER):
            surveyed.state = State.SHORTER if earlier.has_state else State.NEW
        return surveyed

    def _inspect(self, directory: Path, identity: str) -> SurveyedRun:
        """The state of the run of this identity in `directory`, or in the table under its name."""
        place = str(directory)  # texts: pathlib is slow, and there are thousands of runs
        folder, _, name = place.rpartition(os.sep)
        if folder != self._place and directory.is_relative_to(self.sweep) and directory.parent.is_symlink():
            raise UserError(f"{directory.parent} is a symbolic link; a run's directory must be a real one")
        if folder == self._place and name not in self._names:
            surveyed = SurveyedRun(place, State.NEW)  # a sweep with record=table has no directories
        else:
            surveyed = run_state.inspect(directory, identity)
        in_table = self.in_table.get(identity, {})
        if surveyed.state is not State.DONE and (result := in_table.get(run_directory.name_in(self.sweep, directory))):
            return SurveyedRun(place, State.DONE, result)
        return surveyed

    def _elsewhere(self, surveyed: SurveyedRun, identity: str, names: Sequence[str]) -> SurveyedRun:
        """The finished run under one of these names; `surveyed` if there is none."""
        for name in names:
            candidate = self._inspect(self.sweep / name, identity)
            if candidate.state is State.DONE and candidate.place not in self._claimed:
                candidate.earlier = surveyed.earlier
                return self._claim(candidate)
            if surveyed.state is State.OTHER and candidate.state in (State.NEW, *UNUSABLE):
                surveyed = candidate  # where it was tried before
        return surveyed

    def _claim(self, surveyed: SurveyedRun) -> SurveyedRun:
        """Keep other runs of the grid from matching this finished one."""
        if surveyed.state is State.DONE:
            self._claimed.add(surveyed.place)
        return surveyed

    def _has_no_place(self, surveyed: SurveyedRun) -> bool:
        """Whether another run has its name, in a directory or in the table."""
        if surveyed.state in (State.DONE, State.SHORTER):
            return False
        return (
            surveyed.state is State.OTHER or run_directory.name_in(self.sweep, surveyed.place) in self._names_in_table
        )


def _names_by_identity(sweep: Path) -> dict[str, str]:
    names = {}
    for name in sorted(run_directory.names_with_marker(sweep)):
        with contextlib.suppress(DamagedFile, NotRegularFile):
            names[run_directory.read_result(sweep / name).identity] = name
    return names


def free_directory(directory: Path, taken: set[Path]) -> Path:
    """The first of `directory`-2, `directory`-3, … that is neither taken nor there."""
    places = (directory.with_name(f"{directory.name}-{number}") for number in count(2))
    return next(place for place in places if place not in taken and not os.path.lexists(place))
