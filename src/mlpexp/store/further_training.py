"""Sweeps whose runs are trained further: the same command with a larger `trainer.max_epochs`.

A run that has ended after fewer epochs is found by the identity that it had then. The longer run gets a directory of
its own, and the shorter one is removed when the longer one is complete, so that a crash at any moment loses nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from mlpexp.config.schema import Config
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.object_cache import ByObject
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.store import file_names, run_directory, run_state, run_table
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result, is_relative
from mlpexp.store.run_state import State, SurveyedRun
from mlpexp.store.sweep_manifest import Manifest

EPOCHS = "trainer.max_epochs"


def lengthened(old: Manifest, new: Manifest) -> Manifest:
    """The manifest `old` with the number of epochs of `new`.

    It is `old` itself unless all old runs have one number of epochs, and all new runs have one that is larger.
    """
    old_epochs, new_epochs = old.constants.get(EPOCHS), new.constants.get(EPOCHS)
    if old_epochs is None or new_epochs is None or new_epochs <= old_epochs:
        return old
    return replace(old, constants=old.constants | {EPOCHS: new_epochs}, shorter=[*old.shorter, old_epochs])


def withdrawn(old: Manifest, new: Manifest, sweep: Path) -> tuple[Manifest, list[str]]:
    """The manifest `old` without its largest number of epochs, if no run has ended with it.

    So a number that was given by mistake does not bind the sweep.

    Returns:
        The manifest, `old` itself unless `new` has fewer epochs and no run has ended; the directories that such runs
        have begun, relative to the sweep's.
    """
    old_epochs, new_epochs = old.constants.get(EPOCHS), new.constants.get(EPOCHS)
    if old_epochs is None or new_epochs is None or new_epochs >= old_epochs:
        return old, []
    if not all(map(is_relative, old.earlier.values())):
        return old, []
    in_table, directories = run_table.results(sweep), []
    for run, name in old.runs.items():
        if run in in_table or (sweep / name).is_symlink():
            return old, []
        try:
            marked = (sweep / name / file_names.RESULT).exists()
            result = run_directory.read_result(sweep / name) if marked else None
        except (DamagedFile, NotRegularFile):
            return old, []  # it may have ended
        if result is None or result.status not in run_directory.FINAL:
            directories += [name] if (sweep / name).is_dir() else []
        elif result.identity not in old.earlier:
            return old, []
    epochs = max(old.shorter, default=new_epochs)
    shorter = [number for number in old.shorter if number != epochs]
    constants = old.constants | {EPOCHS: epochs}
    return replace(old, constants=constants, shorter=shorter, runs=old.earlier, earlier={}), directories


def needs_its_length(cfg: Config) -> str | None:
    """Why a finished training of `cfg` cannot be made longer, as a clause; None if it can."""
    if SCHEDULES[cfg.optimizer.schedule].depends_on_length:
        return f"optimizer.schedule={cfg.optimizer.schedule} divides a rate over all epochs"
    if cfg.prune.fraction is not None and cfg.prune.every is None:
        return f"prune.fraction={cfg.prune.fraction} without prune.every prunes at equal parts of all epochs"
    if cfg.halving.rungs is not None:
        return "halving.rungs compares all runs of a sweep while they train"
    return None


def refuse(configs: Sequence[Config], directory: Path) -> None:
    """Raises `UserError`: a longer training of one of these configurations would have begun differently."""
    for cfg in {id(cfg.optimizer): cfg for cfg in configs}.values():
        if reason := needs_its_length(cfg):
            raise UserError(
                f"{directory} cannot be trained further, to {EPOCHS}={cfg.trainer.max_epochs}: {reason}, so that a "
                "longer training would have begun differently; choose another name=… to train it anew"
            )


def earlier_identities(cfg: Config, digest: str, lengths: Iterable[int]) -> list[str]:
    """The identities that a run had with these numbers of epochs, the longest training first."""
    return [
        identity(cfg, digest, trainer=_trainer(cfg.trainer, epochs)) for epochs in sorted(set(lengths), reverse=True)
    ]


class EarlierRuns:
    """Finds the shorter version of a run, trained with fewer epochs, or the longer one made by `resume=`.

    Args:
        lengths: the numbers of epochs that the sweep had before.
        planned: the directory of each run, relative to the sweep's, by its identity.
        names: in the sweep's directory.
    """

    def __init__(self, sweep: Path, lengths: Sequence[int], planned: dict[str, str], names: set[str]) -> None:
        self.lengths = sorted(set(lengths), reverse=True)
        self._sweep, self._planned, self._names = sweep, planned, names

    def names(self, cfg: Config, digest: str) -> Iterator[str]:
        """The names that the run had, the longest training first."""
        for earlier in earlier_identities(cfg, digest, self.lengths):
            if name := self._planned.get(earlier):
                yield name

    def begun_place(self, run: SurveyedRun, cfg: Config, digest: str) -> str:
        """The directory, other than `run.place`, in which the run was begun and has not ended; or empty."""
        for name in self.names(cfg, digest):
            directory = self._sweep / name
            if str(directory) != run.place and directory.is_dir() and not directory.is_symlink():
                return str(directory)
        return ""

    def find(self, place: Path, cfg: Config, digest: str) -> SurveyedRun | None:
        """The run with its result: `State.DONE` if it has at least as many epochs as `cfg`, else `State.SHORTER`.

        Args:
            place: where it may be, beside the names that it had.
        """
        names = [place.name] if place.parent == self._sweep else []
        for name in dict.fromkeys([*names, *self.names(cfg, digest)]):
            directory = self._sweep / name
            if name.partition("/")[0] not in self._names or directory.is_symlink():
                continue
            with suppress(UserError):  # damaged, or not finished
                result = run_directory.read_result(directory)
                if result.status in run_state.TRAINED and (epochs := self._length(cfg, digest, directory, result)):
                    state = State.SHORTER if epochs < cfg.trainer.max_epochs else State.DONE
                    if state is State.DONE or self.lengths:
                        return SurveyedRun(str(directory), state, result)
        return None

    def _length(self, cfg: Config, digest: str, directory: Path, result: Result) -> int | None:
        """The number of epochs with which `result` is one of `cfg`, trained by its engine or continued by torch."""
        for epochs in chain(self.lengths, [result.epochs], _recorded(directory)):  # the last is slow, and rarely needed
            if epochs > 0:
                trainer = _trainer(cfg.trainer, epochs)
                if result.identity == identity(cfg, digest, trainer=trainer):
                    return epochs
                if cfg.stack.engine != "torch" and result.identity == identity(
                    cfg, digest, trainer=trainer, stack=_torch_stack(cfg.stack)
                ):
                    return epochs
        return None


def _recorded(directory: Path) -> Iterator[int]:
    """`trainer.max_epochs` in a run's recorded configuration, which `resume=` keeps true."""
    path = directory / file_names.CONFIG
    with suppress(FileNotFoundError, UnicodeDecodeError, UserError, KeyError, TypeError, AttributeError):
        epochs = parse_yaml(safe_files.read_text(path), path)["trainer"]["max_epochs"]
        if isinstance(epochs, int):
            yield epochs


# one object for all runs that share the settings: identities are cached by objects
_torch_stack = ByObject(lambda stack: replace(stack, engine="torch"))
_trainer = ByObject(lambda trainer, epochs: replace(trainer, max_epochs=epochs))
