"""Recognition of runs of a grid in a sweep's directory, by identity: under any name, in a directory or the table."""

import contextlib
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from mlpexp.config.schema import Config
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.store import run_directory, run_state, run_table
from mlpexp.store.further_training import EarlierRuns
from mlpexp.store.run_state import UNUSABLE, Found, State
from mlpexp.store.sweep_manifest import Manifest


class Recognition:
    """Finds each run of a grid, and gives those that are not finished a directory that no other run has.

    Args:
        study: with all that was planned before.
        one_length: its runs have one number of epochs; some of them may have been trained further.
    """

    def __init__(self, sweep: Path, study: Manifest, *, one_length: bool) -> None:
        self.sweep, self._place, self.known = sweep, str(sweep), study.runs | study.earlier
        self.in_table = run_table.results(sweep)
        self.there = set(os.listdir(sweep)) if sweep.is_dir() else set()  # noqa: PTH208 - names
        self.earlier = EarlierRuns(sweep, study.shorter, self.known, self.there) if one_length else None
        self.names_in_table = {name for names in self.in_table.values() for name in names}
        self.claimed: set[str] = set()

    def find(self, runs: Sequence[tuple[Path, Config, str]], identities: Sequence[str]) -> list[Found]:
        """
        Args:
            runs: of the grid in its order: the directory that it gives each, its configuration, its data's digest.
        """
        directories = [directory for directory, _, _ in runs]
        pairs = list(zip(directories, identities, strict=True))
        found = [self._claimed(self._at(directory, identity)) for directory, identity in pairs]
        if self.earlier is not None:
            found = [self._further(one, *run, self.earlier) for one, run in zip(found, runs, strict=True)]
        # names by identity of runs that the manifest does not know; read only where another run has a name
        strays = _names_by_identity(self.sweep) if any(one.state is State.OTHER for one in found) else {}
        for i, (directory, name) in enumerate(pairs):
            if found[i].state is not State.DONE:
                names = [self.known.get(name), strays.get(name), *self.in_table.get(name, {})]
                found[i] = self._elsewhere(found[i], name, [n for n in names if n and self.sweep / n != directory])
        if moving := [one for one in found if self._has_no_place(one)]:
            here = set(identities)
            others = {self.sweep / name for identity, name in self.known.items() if identity not in here}
            taken = {one.directory for one in found} | set(directories) | others
            for one in moving:
                place = free_directory(one.directory, taken)
                one.place, one.state = str(place), State.NEW
                taken.add(place)
        return found

    def _further(self, found: Found, directory: Path, cfg: Config, digest: str, earlier: EarlierRuns) -> Found:
        """The same with the shorter run from which it is trained further, or the longer one that it has become."""
        if found.state is State.DONE:
            left = [self.sweep / name for name in earlier.names(cfg, digest) if name in self.there]
            if left := [place for place in left if str(place) != found.place]:
                before = earlier.find(left[0], cfg, digest)
                found.earlier = before if before is not None and before.state is State.SHORTER else None
            return found
        if found.state is not State.OTHER and not earlier.lengths:
            return found
        before = earlier.find(directory, cfg, digest)
        if before is None:
            return found
        if before.state is State.DONE:
            return self._claimed(before)
        found.earlier = before
        if found.state in (State.NEW, State.OTHER):
            found.state = State.SHORTER if before.has_state else State.NEW
        return found

    def _at(self, directory: Path, identity: str) -> Found:
        place = str(directory)  # texts: pathlib is slow, and there are thousands of runs
        folder, _, name = place.rpartition(os.sep)
        if folder != self._place and directory.is_relative_to(self.sweep) and directory.parent.is_symlink():
            raise UserError(f"{directory.parent} is a symbolic link; a run's directory must be a real one")
        if folder == self._place and name not in self.there:
            found = Found(place, State.NEW)  # a sweep with record=table has no directories
        else:
            found = run_state.inspect(directory, identity)
        entries = self.in_table.get(identity, {})
        if found.state is not State.DONE and (result := entries.get(run_directory.name_in(self.sweep, directory))):
            return Found(place, State.DONE, result)
        return found

    def _elsewhere(self, found: Found, identity: str, names: Sequence[str]) -> Found:
        for name in names:
            other = self._at(self.sweep / name, identity)
            if other.state is State.DONE and other.place not in self.claimed:
                other.earlier = found.earlier
                return self._claimed(other)
            if found.state is State.OTHER and other.state in (State.NEW, *UNUSABLE):
                found = other  # where it was tried before
        return found

    def _claimed(self, found: Found) -> Found:
        if found.state is State.DONE:
            self.claimed.add(found.place)
        return found

    def _has_no_place(self, found: Found) -> bool:
        """Whether another run is where it would be, in a directory or in the table."""
        if found.state in (State.DONE, State.SHORTER):
            return False
        return found.state is State.OTHER or run_directory.name_in(self.sweep, found.place) in self.names_in_table


def _names_by_identity(sweep: Path) -> dict[str, str]:
    found = {}
    for name in sorted(run_directory.names_of_marked(sweep)):
        with contextlib.suppress(DamagedFile, NotRegularFile):
            found[run_directory.read_result(sweep / name).identity] = name
    return found


def free_directory(directory: Path, taken: set[Path]) -> Path:
    names = (directory.with_name(f"{directory.name}-{number}") for number in count(2))
    return next(place for place in names if place not in taken and not os.path.lexists(place))
