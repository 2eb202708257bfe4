"""Continuing a run in its own directory, with the numbers of a run that was never interrupted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlpexp import data
from mlpexp.config.overrides import parse
from mlpexp.config.schema import Config, HalvingConfig
from mlpexp.nn.metrics import is_column
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory

# what may be given beside resume: it changes no number of the epochs that are done
ALLOWED = (
    "resume",
    "trainer.max_epochs",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "threads",
    "callbacks.",
    "logger",
    "hydra.",
)


@dataclass(frozen=True, kw_only=True)
class Continued:
    """A run that can be continued.

    Attributes:
        cfg: its own configuration with the new number of epochs.
        wall_times: seconds since 1970: its start, then the end of each epoch that is done.
        saved_at: when its last checkpoint was taken; what was recorded later is trained again.
    """

    cfg: Config
    wall_times: list[float]
    saved_at: float


def find(cfg: Config, overrides: Sequence[str]) -> Continued:
    """The run in `cfg.resume`, checked through and through; nothing is touched.

    Raises:
        UserError: there is nothing to continue, or other keys than the number of epochs were given.
    """
    given = [parse(item).key for item in overrides]
    if others := [key for key in given if not key.startswith(ALLOWED)]:
        raise UserError(
            f"resume={cfg.resume} goes on with the run's own configuration, so {others[0]} cannot be given; "
            "only trainer.max_epochs may grow"
        )
    directory = Path(str(cfg.resume))
    if not directory.is_dir():
        what = "is no directory" if directory.exists() else "does not exist"
        raise UserError(f"resume={cfg.resume} {what}; give a run's directory, e.g. resume=outputs/DATE/TIME")
    path = directory / file_names.LAST
    if not path.exists():
        raise UserError(
            f"{directory} has no {file_names.LAST}: there is no run to continue; start it again without resume"
        )
    loaded = checkpoint_files.load(path)
    own, num_features, num_classes = checkpoint_files.described(path, loaded)
    checkpoint_files.check_weights(path, loaded["state_dict"], own.model.network(num_features, num_classes))
    if "data" in loaded["hyper_parameters"]:
        described = checkpoint_files.described_data(path, loaded)
        if described.digest != data.digest(own.data):
            raise UserError(
                f"{directory} was trained on other data: data={own.data.name} has changed since; restore it, "
                "or start a new run"
            )
    state = _recorded(path, loaded)
    # what was not typed stays as it was
    trainer = {
        name: getattr(cfg.trainer if f"trainer.{name}" in given else own.trainer, name)
        for name in ("max_epochs", "accelerator", "enable_progress_bar")
    }
    continued = replace(
        own,
        resume=cfg.resume,
        halving=HalvingConfig(),  # it has no rivals any more
        threads=cfg.threads if "threads" in given else own.threads,
        # never out of a file: it could name anything
        callbacks=cfg.callbacks,
        logger=cfg.logger,
        trainer=replace(own.trainer, **trainer),
        # half a history of the layers could not be drawn
        tracking=replace(own.tracking.settled(True), diagnostics=bool(state["layer_rows"])),
    )
    _refuse_what_would_differ(directory, own, continued, state)
    wall_times = state["wall_times"]
    return Continued(cfg=continued, wall_times=wall_times, saved_at=state.get("saved_at", wall_times[-1]))


def further(cfg: Config, result: run_directory.Result) -> int | None:
    """The number of epochs to propose for training a finished run further; None where that is impossible."""
    stopped = result.epochs < cfg.trainer.max_epochs
    if result.status != "ok" or stopped or SCHEDULES[cfg.optimizer.schedule].depends_on_length:
        return None
    return 2 * cfg.trainer.max_epochs


def note(directory: Path, max_epochs: int) -> None:
    """Keep the recorded configuration true: the run is now one of `max_epochs`."""
    written = directory / ".hydra" / "config.yaml"
    if written.is_file():
        plain = OmegaConf.load(written)
        OmegaConf.update(plain, "trainer.max_epochs", max_epochs)
        atomic_files.write(written, OmegaConf.to_yaml(plain))


def _refuse_what_would_differ(directory: Path, own: Config, continued: Config, state: Mapping[str, Any]) -> None:
    finished, epochs = len(state["history"]), continued.trainer.max_epochs
    if own.callbacks != continued.callbacks:
        how = f"with the callbacks {', '.join(own.callbacks)}" if own.callbacks else "without callbacks of your own"
        raise UserError(f"{directory} was trained {how}; type the same again, they are not built from what a file says")
    if state["progress"].get("stopped"):
        raise UserError(
            f"{directory} was stopped early after {finished} epochs (early_stopping.patience="
            f"{own.early_stopping.patience}), as a longer run would have been; there is nothing to continue"
        )
    if epochs < own.trainer.max_epochs or (epochs == finished and _is_done(directory)):
        raise UserError(
            f"{directory} has finished {finished} of {own.trainer.max_epochs} epochs, so trainer.max_epochs={epochs} "
            f"leaves nothing to train; give a larger number, e.g. trainer.max_epochs={2 * own.trainer.max_epochs}"
        )
    if epochs != own.trainer.max_epochs and SCHEDULES[own.optimizer.schedule].depends_on_length:
        raise UserError(
            f"{directory} follows a {own.optimizer.schedule} schedule over {own.trainer.max_epochs} epochs, which a "
            "longer run would have begun differently; train it anew with the larger trainer.max_epochs"
        )


def _is_done(directory: Path) -> bool:
    return (directory / file_names.RESULT).exists() and run_directory.read_result(directory).status in (
        "ok",
        "chance",
        "diverged",
    )


def _recorded(path: Path, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorder's state in a checkpoint; Lightning hands it back to the recorder as it is."""
    callbacks = loaded.get("callbacks")
    state = callbacks.get("Recorder") if isinstance(callbacks, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path} was not written by mlpexp: it holds no history")
    history, wall_times = state.get("history"), state.get("wall_times")
    sound = (
        isinstance(history, list)
        and all(isinstance(row, dict) and all(map(is_column, row)) for row in history)
        and all(row.keys() >= {"train/loss", "val/loss"} for row in history)
        and all(isinstance(value, float) for row in history for value in row.values())
        and isinstance(wall_times, list)
        and len(wall_times) == len(history) + 1
        and all(isinstance(moment, float) and math.isfinite(moment) for moment in wall_times)
        and isinstance(state.get("saved_at", 0.0), float)
        and isinstance(state.get("layer_rows"), list)
        and isinstance(state.get("progress"), dict)
    )
    if not sound:
        raise UserError(f"{path} is damaged: its history is not what mlpexp writes; train the run again")
    return state
