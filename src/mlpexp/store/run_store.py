"""The runs of a sweep's directory: which are finished, where they are, how they are read, recorded and set aside.

There are two back ends, a directory per run and one table. A finished run is recognised in both by its identity, under
whatever name it lies, and never gives way to another run.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from mlpexp import data
from mlpexp.config.schema import Config
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.object_cache import ByObject
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.store import (
    atomic_files,
    file_names,
    further_training,
    results_table,
    run_directory,
    run_state,
    run_table,
    stack_states,
    sweep_manifest,
)
from mlpexp.store.further_training import EarlierRuns
from mlpexp.store.identity import identity
from mlpexp.store.run_state import UNUSABLE, Found, State
from mlpexp.store.sweep_manifest import Manifest

MAX_NAME = 255  # bytes, in all common file systems

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

    def sentence(self) -> str:
        """E.g. `1,080 runs: 1,000 done before, 3 damaged, 77 new`; empty where all are new."""
        counts = Counter(one.state for one in self.found.values())
        if counts[State.NEW] == len(self.found) and not self.begun:
            return ""
        parts = [f"{counts[state]:,} {words}" for state, words in WORDS.items() if counts[state]]
        if self.begun:
            parts.append(f"{len(self.begun):,} begun with more epochs, of which none had ended (set aside)")
        return f"{len(self.found):,} runs: {', '.join(parts)}"


class RunStore:
    """The directory of a sweep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._table: tuple[tuple[int, int], dict[str, dict[str, str]]] | None = None

    def survey(self, jobs: Sequence[tuple[str, Config]], *, same_study: bool) -> Survey:
        """Look at the directory without changing it.

        Args:
            jobs: the directory that the grid gives each run, and its configuration.
            same_study: refuse runs of another study; not for a sweeper that brings its runs in portions.

        Raises:
            UserError: the directory is a file, a link, somebody else's, or holds another study; or something in it
                cannot be read.
        """
        check_place(self.directory)
        run_state.check_shelf(self.directory / file_names.SET_ASIDE)
        for name in (file_names.RESULTS, file_names.MULTIRUN):
            if (self.directory / name).is_dir():
                raise UserError(f"{self.directory / name} is a directory where a file should be; move it away")
        unique = dict(jobs)
        places = [Path(place) for place in unique]
        digests = ByObject(data.digest)
        old = sweep_manifest.read(self.directory)
        new = sweep_manifest.of((cfg, digests(cfg.data)) for cfg in unique.values())
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
        recognition = _Recognition(self.directory, study, one_length=one_length)
        found = recognition.find(runs, identities)
        if recognition.earlier is not None and study.shorter:
            before = [name for _, cfg, digest in runs for name in recognition.earlier.identities(cfg, digest)]
            study.earlier |= {name: study.runs.pop(name) for name in before if name in study.runs}
        saved = stack_states.saved_runs(self.directory)
        for one, name in zip(found, identities, strict=True):
            if name in saved and one.state in (State.NEW, State.SHORTER, State.DAMAGED, State.INTERRUPTED):
                one.state = State.SAVED
        inside = f"{self.directory}{os.sep}"
        study.runs |= {
            name: self.name_of(one.directory)
            for name, one in zip(identities, found, strict=True)
            if str(one.directory).startswith(inside)
        }
        return Survey(dict(zip(unique, found, strict=True)), study, begun)

    def prepare(self, survey: Survey) -> None:
        """Set aside what is damaged, failed or interrupted, and write the manifest; the directory's lock is held."""
        shelf = self.directory / file_names.SET_ASIDE
        atomic_files.make_directory(self.directory, parents=True)
        atomic_files.clean(self.directory)
        if moved := [one for one in survey.found.values() if one.earlier and one.earlier.directory == one.directory]:
            self._make_room(moved, survey.manifest)
        here = {one.directory for one in survey.found.values()}
        for begun in {self.directory / name for name in survey.begun} - here:
            begun.rename(run_state.vacant(shelf, begun.name))
        for one in survey.found.values():
            if one.state is State.DONE and one.earlier is not None:
                run_state.remove_shorter(one.earlier, shelf)  # a crash came between the longer run and this
            if one.state is State.INTERRUPTED and not one.trained:
                (one.directory / file_names.RESULT).unlink()  # stopped before anything came of it
            elif one.state is State.SAVED:
                run_state.keep_saved(one, shelf)
            elif one.state in UNUSABLE:
                run_state.set_aside(one, shelf)
        sweep_manifest.write(self.directory, survey.manifest)
        stack_states.keep(self.directory, survey.manifest.runs.keys() | survey.manifest.earlier.keys())

    def _make_room(self, runs: Sequence[Found], manifest: Manifest) -> None:
        """Give shorter runs other names, where the longer ones have the names that they had."""
        taken = {self.directory / name for names in (manifest.runs, manifest.earlier) for name in names.values()}
        moves = []
        for one in runs:
            assert one.earlier is not None
            assert one.earlier.result is not None
            place = _free(one.directory, taken)
            taken.add(place)
            manifest.earlier[one.earlier.result.identity] = self.name_of(place)
            moves.append((one.earlier, place))
        sweep_manifest.write(self.directory, manifest)  # first: a run is found under its new name and under its old one
        for earlier, place in moves:
            earlier.directory.rename(place)
            earlier.directory = place

    def write_results(self, rows: Sequence[results_table.Row]) -> None:
        """`results.csv`: the table of the runs that have ended."""
        atomic_files.write(self.directory / file_names.RESULTS, results_table.table_parts(rows))

    def record(self, entries: Iterable[tuple[str, run_table.Files]]) -> None:
        """Add finished runs, by name, to the table; they are on the disk when this returns."""
        run_table.append(self.directory, entries)

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
            return self._read_table().get(name, {}).get(file)

    def name_of(self, run: Path) -> str:
        """The name of a run in `results.csv` and in the table: its directory, relative to the sweep's."""
        # texts, because pathlib is slow, and this is asked several times for every run
        path, base = str(run), f"{self.directory}{os.sep}"
        if path.startswith(base):
            return path.removeprefix(base).replace(os.sep, "/")
        return "." if run == self.directory else run.name

    def _read_table(self) -> dict[str, dict[str, str]]:
        try:
            found = (self.directory / file_names.TABLE).stat()
        except FileNotFoundError:
            return {}
        state = found.st_mtime_ns, found.st_size
        if self._table is None or self._table[0] != state:
            self._table = state, dict(run_table.read(self.directory))
        return self._table[1]


class _Recognition:
    """Finds each run of a grid, and gives those that are not finished a directory that no other run has.

    Args:
        study: with all that was planned before.
        one_length: its runs have one number of epochs; some of them may have been trained further.
    """

    def __init__(self, sweep: Path, study: Manifest, *, one_length: bool) -> None:
        self.sweep, self.known = sweep, study.runs | study.earlier
        self.name_of = RunStore(sweep).name_of
        self.in_table = run_table.results(sweep)
        self.there = set(os.listdir(sweep)) if sweep.is_dir() else set()  # noqa: PTH208 - names
        self.earlier = EarlierRuns(sweep, study.shorter, self.known, self.there) if one_length else None
        self.names_in_table = {name for names in self.in_table.values() for name in names}
        self.claimed: set[Path] = set()

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
        # names by identity of runs that the manifest does not know; read only where a name has changed hands
        strays = _names_by_identity(self.sweep) if any(one.state is State.OTHER for one in found) else {}
        for i, (directory, name) in enumerate(pairs):
            if found[i].state is not State.DONE:
                names = [self.known.get(name), strays.get(name), *self.in_table.get(name, {})]
                found[i] = self._elsewhere(found[i], name, [n for n in names if n and self.sweep / n != directory])
        taken = {one.directory for one in found} | set(directories) | self._names_in_use(set(identities))
        for one in found:
            if one.state is State.OTHER or (one.state not in (State.DONE, State.SHORTER) and self._is_in_table(one)):
                one.directory = _free(one.directory, taken)
                one.state = State.NEW
                taken.add(one.directory)
        return found

    def _further(self, found: Found, directory: Path, cfg: Config, digest: str, earlier: EarlierRuns) -> Found:
        """The same with the shorter run from which it is trained further, or the longer one that it has become."""
        if found.state is State.DONE:
            left = [self.sweep / name for name in earlier.names(cfg, digest) if name in self.there]
            if left := [place for place in left if place != found.directory]:
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
            found.state = State.SHORTER
        return found

    def _at(self, directory: Path, identity: str) -> Found:
        if directory.parent != self.sweep and directory.is_relative_to(self.sweep) and directory.parent.is_symlink():
            raise UserError(f"{directory.parent} is a symbolic link; a run's directory must be a real one")
        if directory.parent == self.sweep and directory.name not in self.there:
            found = Found(directory, State.NEW)  # thousands of runs, and a sweep with record=table has no directories
        else:
            found = run_state.inspect(directory, identity)
        if found.state is not State.DONE and (result := self.in_table.get(identity, {}).get(self.name_of(directory))):
            return Found(directory, State.DONE, result)
        return found

    def _elsewhere(self, found: Found, identity: str, names: Sequence[str]) -> Found:
        for name in names:
            other = self._at(self.sweep / name, identity)
            if other.state is State.DONE and other.directory not in self.claimed:
                other.earlier = found.earlier
                return self._claimed(other)
            if found.state is State.OTHER and other.state in (State.NEW, *UNUSABLE):
                found = other  # where it was tried before
        return found

    def _claimed(self, found: Found) -> Found:
        if found.state is State.DONE:
            self.claimed.add(found.directory)
        return found

    def _is_in_table(self, found: Found) -> bool:
        """Whether the table has another run under the name of this one."""
        return self.name_of(found.directory) in self.names_in_table

    def _names_in_use(self, here: set[str]) -> set[Path]:
        return {self.sweep / name for identity, name in self.known.items() if identity not in here}


def _names_by_identity(sweep: Path) -> dict[str, str]:
    """The runs in the sweep's directory and one level below."""
    found = {}
    for path in sorted(path for depth in ("*", "*/*") for path in sweep.glob(f"{depth}/{file_names.RESULT}")):
        name = path.parent.relative_to(sweep)
        if not any(part.startswith(".") for part in name.parts):
            with contextlib.suppress(DamagedFile, NotRegularFile):
                found[run_directory.read_result(path.parent).identity] = name.as_posix()
    return found


def _free(directory: Path, taken: set[Path]) -> Path:
    names = (directory.with_name(f"{directory.name}-{number}") for number in count(2))
    return next(place for place in names if place not in taken and not os.path.lexists(place))


def check_place(directory: Path) -> None:
    """
    Raises:
        UserError: a sweep cannot be written there.
    """
    try:
        there = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    except (OSError, ValueError) as error:  # a NUL, say
        raise UserError(f"hydra.sweep.dir: {error}; choose another name=…") from None
    longest = max(len(os.fsencode(part)) for part in directory.parts)
    if longest > MAX_NAME:
        raise UserError(f"hydra.sweep.dir has a name of {longest} bytes, {MAX_NAME} are possible; choose a shorter one")
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; choose another name=…, or give its target as hydra.sweep.dir")
    if there == directory and not directory.is_dir():
        raise UserError(f"{directory} is a file; choose another name=…")
    if not there.is_dir():
        raise UserError(f"{directory} cannot be made: {there} is no directory; choose another hydra.sweep.dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} cannot be written to; choose another hydra.sweep.dir, or ask for the right to")
    if directory.is_dir():
        names = {path.name for path in directory.iterdir()}
        if names and not names & file_names.OF_A_SWEEP:
            raise UserError(
                f"{directory} is not empty and holds no sweep; choose another name=… (nothing in it was changed)"
            )
