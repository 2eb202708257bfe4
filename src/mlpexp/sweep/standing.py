"""Where a sweep stands when it starts: its directory, its study, what is already done and what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpexp import runs
from mlpexp.config import Config
from mlpexp.data import digest
from mlpexp.errors import UserError
from mlpexp.sweep import manifest
from mlpexp.sweep.manifest import Manifest
from mlpexp.sweep.recognise import Found, State, set_aside, survey

# by these files a sweep's directory is known as one
OWN = (manifest.MANIFEST, "multirun.yaml", runs.LOCK)


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
        counts = {state: self.count(state) for state in (State.DONE, State.TORN, State.FAILED, State.NEW)}
        if counts[State.NEW] == len(self.found):
            return ""
        words = {
            State.DONE: "done before",
            State.TORN: "torn (set aside, trained again)",
            State.FAILED: "failed before (tried again)",
            State.NEW: "new",
        }
        told = ", ".join(f"{number:,} {words[state]}" for state, number in counts.items() if number)
        return f"{len(self.found):,} runs: {told}"

    def clear(self) -> None:
        """Set aside what is torn or failed, and note the study."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for one in self.found.values():
            if one.state in (State.TORN, State.FAILED):
                set_aside(one, self.directory)
        manifest.write(self.directory, self.manifest)


def stand(directory: Path, jobs: Sequence[tuple[str, Config]], *, same_study: bool) -> Standing:
    """Look at the sweep's directory without changing it.

    Args:
        jobs: each run's directory and configuration.
        same_study: refuse runs of another study; not for a sweeper that brings its runs in portions.

    Raises:
        UserError: the directory is a file, a link, somebody else's, or holds another study.
    """
    check_place(directory)
    unique = dict(jobs)
    configs = list(unique.values())
    digests = [digest.of(cfg.data) for cfg in configs]
    old = manifest.read(directory)
    study = manifest.of(configs, digests[0])
    study = manifest.joined(old if same_study else None, study, directory)
    if old is not None:
        study.runs = old.runs | study.runs
    identities = [runs.identity(cfg, of_data) for cfg, of_data in zip(configs, digests, strict=True)]
    found = survey([Path(place) for place in unique], identities, study.runs, directory).found
    study.runs |= {identity: one.directory.name for identity, one in zip(identities, found, strict=True)}
    return Standing(directory, dict(zip(unique, found, strict=True)), study)


def check_place(directory: Path) -> None:
    """
    Raises:
        UserError: a sweep cannot live there.
    """
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; choose another name=…, or give its target as hydra.sweep.dir")
    if directory.is_file():
        raise UserError(f"{directory} is a file; choose another name=…")
    if directory.is_dir():
        names = {path.name for path in directory.iterdir()}
        if names and not names & set(OWN):
            raise UserError(
                f"{directory} is not empty and holds no sweep; choose another name=… (nothing in it was changed)"
            )
