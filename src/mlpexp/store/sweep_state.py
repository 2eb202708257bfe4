"""Where a sweep stands when it starts: its directory, its study, what is already done and what is left."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpexp.config.schema import Config
from mlpexp.data import data_digest
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, run_directory, run_table, sweep_manifest
from mlpexp.store.identity import hash_content, identity_content
from mlpexp.store.run_state import SET_ASIDE, UNUSABLE, Found, State, check_shelf, set_aside, survey
from mlpexp.store.sweep_manifest import Manifest

# by these files a sweep's directory is known as one
OWN = {sweep_manifest.MANIFEST, "multirun.yaml", run_directory.LOCK}
MAX_NAME = 255  # bytes, in all common file systems


@dataclass
class Standing:
    """What is known of every run before any is started; nothing has been changed yet."""

    directory: Path
    found: dict[str, Found]  # by the directory that Hydra gives the run
    manifest: Manifest

    def count(self, state: State) -> int:
        return sum(one.state is state for one in self.found.values())

    def sentence(self) -> str:
        """E.g. `1,080 runs: 1,000 done, 3 torn, 77 new`; empty where all are new."""
        counts = {state: self.count(state) for state in (State.DONE, *UNUSABLE, State.NEW)}
        if counts[State.NEW] == len(self.found):
            return ""
        words = {
            State.DONE: "done before",
            State.TORN: "torn (set aside, trained again)",
            State.FAILED: "failed before (tried again)",
            State.INTERRUPTED: "interrupted before (trained again)",
            State.NEW: "new",
        }
        told = ", ".join(f"{number:,} {words[state]}" for state, number in counts.items() if number)
        return f"{len(self.found):,} runs: {told}"

    def clear(self) -> None:
        """Set aside what is torn, failed or interrupted, and note the study; the directory's lock is held."""
        self.directory.mkdir(parents=True, exist_ok=True)
        atomic_files.clean(self.directory)
        for one in self.found.values():
            if one.state is State.INTERRUPTED and not one.trained:
                (one.directory / run_directory.RESULT).unlink()  # stopped before anything came of it
            elif one.state in UNUSABLE:
                set_aside(one, self.directory)
        sweep_manifest.write(self.directory, self.manifest)


def stand(directory: Path, jobs: Sequence[tuple[str, Config]], *, same_study: bool) -> Standing:
    """Look at the sweep's directory without changing it.

    Args:
        jobs: each run's directory and configuration.
        same_study: refuse runs of another study; not for a sweeper that brings its runs in portions.

    Raises:
        UserError: the directory is a file, a link, somebody else's, or holds another study.
    """
    check_place(directory)
    check_shelf(directory / SET_ASIDE)
    unique = dict(jobs)
    configs = list(unique.values())
    old = sweep_manifest.read(directory)
    contents = [identity_content(cfg, data_digest.of(cfg.data)) for cfg in configs]
    study = sweep_manifest.joined(old, sweep_manifest.of(contents), directory, refuse=same_study)
    identities = [hash_content(content) for content in contents]
    found = survey([Path(place) for place in unique], identities, study.runs, directory)
    if any(cfg.record == "table" for cfg in configs):
        _from_journal(directory, configs, identities, found)
    study.runs |= {identity: one.directory.name for identity, one in zip(identities, found, strict=True)}
    return Standing(directory, dict(zip(unique, found, strict=True)), study)


def _from_journal(
    directory: Path, configs: Sequence[Config], identities: Sequence[str], found: Sequence[Found]
) -> None:
    """Recognise the runs that an earlier start has left in the journal, in place of directories."""
    known = run_table.results(directory)
    for one, cfg, identity in zip(found, configs, identities, strict=True):
        if cfg.record == "table" and one.state is State.NEW and identity in known:
            one.state, one.result = State.DONE, known[identity]


def check_place(directory: Path) -> None:
    """
    Raises:
        UserError: a sweep cannot live there.
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
        if names and not names & OWN:
            raise UserError(
                f"{directory} is not empty and holds no sweep; choose another name=… (nothing in it was changed)"
            )
