"""Continues a run in its own directory, with the numbers of an uninterrupted run.

Everything in the directory is checked: the checkpoint is compared with its configuration, tensor by tensor and counter
by counter, and the history is read from the run's tables.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlpexp import data
from mlpexp.config.overrides import parse
from mlpexp.config.schema import Config
from mlpexp.config.training_config import HalvingConfig
from mlpexp.data.data_config import FILE_KEYS
from mlpexp.models import build
from mlpexp.models.run_average import TRAINING_WEIGHTS
from mlpexp.models.training_state import RunRecord
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory, run_state
from mlpexp.store.further_training import needs_its_length
from mlpexp.training import recorded_history
from mlpexp.training.checkpoint_checks import check_training_state
from mlpexp.training.recorded_history import Rows

log = logging.getLogger(__name__)

# what may be given beside resume: it changes no number of the epochs that are done
ALLOWED = (
    "resume",
    "trainer.max_epochs",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "threads",
    "tracker",
    *(f"data.{key}" for key in FILE_KEYS),  # files that were moved; their content must be the same
    "callbacks.",
    "logger",
    "hydra.",
)


@dataclass(frozen=True, kw_only=True)
class Continued:
    """A run that can be continued.

    Attributes:
        cfg: its own configuration with the new number of epochs.
        history: metrics by name of each epoch that is done.
        layer_rows: rows of `layers.csv` up to there.
        started: seconds since 1970.
        saved_at: when its last checkpoint was taken; what was recorded later is trained again.
        engine: what has trained it so far; torch trains it further.
    """

    cfg: Config
    history: list[dict[str, float]]
    layer_rows: Rows
    started: float
    saved_at: float
    engine: str = "torch"


def find(cfg: Config, overrides: Sequence[str]) -> Continued:
    """Read and check the run in `cfg.resume`, without changing anything.

    Raises:
        UserError: there is nothing to continue, something is damaged, or keys were given that cannot change.
    """
    keys = [parse(item).key for item in overrides]
    if refused := [key for key in keys if not key.startswith(ALLOWED)]:
        raise UserError(
            f"resume={cfg.resume} continues with the run's own configuration, so {refused[0]} cannot be given; "
            "only trainer.max_epochs may grow"
        )
    directory = Path(str(cfg.resume))
    path = _last_checkpoint(directory)
    loaded = checkpoint_files.load(path)
    run_cfg, num_features, num_classes = checkpoint_files.described(path, loaded)
    network = run_cfg.model.network(num_features, num_classes)
    for name in ("state_dict", TRAINING_WEIGHTS):
        if name in loaded:
            checkpoint_files.check_weights(path, loaded[name], network)
    samples = None
    if "data" in loaded["hyper_parameters"]:
        described = checkpoint_files.described_data(path, loaded)
        moved = {key: getattr(cfg.data, key) for key in FILE_KEYS if f"data.{key}" in keys}
        run_cfg = replace(run_cfg, data=data.locate(replace(run_cfg.data, **moved), directory, described.digest))
        if described.digest != data.digest(run_cfg.data):
            raise UserError(
                f"{directory} was trained on other data: data={run_cfg.data.name} has changed since; restore it, "
                "or start a new run"
            )
        samples = described
    recorded = recorded_history.recorded(directory, path, loaded)
    if not run_cfg.callbacks:  # they may change a schedule or the number of steps
        module = build(run_cfg, num_features, num_classes, samples)
        check_training_state(path, loaded, run_cfg, module, recorded.history)
    if reason := cannot_be_continued(run_cfg, len(recorded.history), is_done=_is_done(directory)):
        raise UserError(f"{directory} cannot be trained further: {reason}; train it anew")
    continued = _continued_config(run_cfg, cfg, keys, has_layers=bool(recorded.layer_rows))
    _refuse_what_would_differ(directory, run_cfg, continued, recorded.history)
    _read_configuration(directory)
    engine = "torch"
    if run_cfg.stack.engine in ("compiled", "vmap"):
        engine = run_cfg.stack.engine
        log.warning(
            "%s was trained by the %s engine, and torch continues it: the further epochs equal those of an "
            "uninterrupted training to rounding only",
            directory,
            engine,
        )
    return Continued(cfg=continued, engine=engine, **recorded._asdict())


def cannot_be_continued(run_cfg: Config, epochs: int, *, is_done: bool) -> str:
    """Why a run with such flags of the Trainer cannot be continued, as a clause; empty if it can.

    Args:
        epochs: that it has finished.
        is_done: it has ended, and was not interrupted.
    """
    flags = run_cfg.trainer.flags
    if flags.get("max_steps", -1) not in (-1, None):
        return f"with trainer.max_steps={flags['max_steps']} Lightning would repeat the last epoch"
    if flags.get("max_time") is not None and is_done and epochs < run_cfg.trainer.max_epochs:
        return f"it has ended by trainer.max_time={flags['max_time']}, as a longer run would have"
    return ""


def _continued_config(run_cfg: Config, cfg: Config, keys: Sequence[str], *, has_layers: bool) -> Config:
    """The run's own configuration with those of the typed `keys` of `cfg` that may change."""
    trainer = {
        name: getattr(cfg.trainer if f"trainer.{name}" in keys else run_cfg.trainer, name)
        for name in ("max_epochs", "accelerator", "enable_progress_bar")
    }
    return replace(
        run_cfg,
        resume=cfg.resume,
        stack=replace(run_cfg.stack, engine="torch"),
        halving=HalvingConfig(),  # it continues without the other runs
        threads=cfg.threads if "threads" in keys else run_cfg.threads,
        tracker=cfg.tracker if "tracker" in keys else run_cfg.tracker,
        # never out of a file: it could name anything
        callbacks=cfg.callbacks,
        logger=cfg.logger,
        trainer=replace(run_cfg.trainer, **trainer),
        # half a history of the layers could not be drawn
        tracking=replace(run_cfg.tracking.settled(True), diagnostics=has_layers),
    )


def _last_checkpoint(directory: Path) -> Path:
    if not directory.is_dir():
        fault = "is no directory" if directory.exists() else "does not exist"
        raise UserError(f"resume={directory} {fault}; give a run's directory, e.g. resume=outputs/DATE/TIME")
    path = directory / file_names.LAST
    if path.exists():
        return path
    reason = "there is no run to continue; start it again"
    if (directory / file_names.RESULT).exists() and (directory / file_names.BEST).exists():
        reason = "it has ended, and the states to continue from are not kept; with more epochs it is trained anew"
    raise UserError(f"{directory} has no {file_names.LAST}: {reason} without resume")


def proposed_epochs(cfg: Config, result: run_directory.Result) -> int | None:
    """The number of epochs to propose for training a finished run further; None if that is impossible."""
    stopped = result.epochs < cfg.trainer.max_epochs
    if result.status != "ok" or stopped or needs_its_length(replace(cfg, halving=HalvingConfig())):
        return None
    return 2 * cfg.trainer.max_epochs


def record_epochs(directory: Path, max_epochs: int) -> None:
    """Set `trainer.max_epochs` in the run's recorded configuration, and in its best checkpoint, which may stay."""
    best = directory / file_names.BEST
    if best.exists():
        loaded = checkpoint_files.load(best)
        loaded["hyper_parameters"]["config"]["trainer"]["max_epochs"] = max_epochs
        checkpoint_files.save(best, checkpoint_files.to_bytes(loaded))
    plain = _read_configuration(directory)
    if plain is not None:
        OmegaConf.update(plain, "trainer.max_epochs", max_epochs)
        atomic_files.write(directory / file_names.CONFIG, OmegaConf.to_yaml(plain))


def _read_configuration(directory: Path) -> Any:
    """The recorded configuration; None if the file is missing.

    Raises:
        UserError: it cannot be read.
    """
    path = directory / file_names.CONFIG
    try:
        plain = parse_yaml(safe_files.read_text(path), path)
        if not isinstance(plain, dict) or not isinstance(plain.get("trainer"), dict):
            raise DamagedFile(f"{path} holds no configuration of a run")
        return OmegaConf.create(plain)
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{error}; mend it or move it away: the run is continued without it, too") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text ({error.reason}); move it away: the run is continued without it") from error


def _refuse_what_would_differ(
    directory: Path, run_cfg: Config, continued: Config, history: Sequence[Mapping[str, float]]
) -> None:
    finished, epochs, planned = len(history), continued.trainer.max_epochs, run_cfg.trainer.max_epochs
    if run_cfg.callbacks != continued.callbacks:
        names = ", ".join(run_cfg.callbacks)
        how = f"with the callbacks {names}" if names else "without callbacks of your own"
        raise UserError(f"{directory} was trained {how}; type the same again, they are not built from what a file says")
    if RunRecord.of(run_cfg, history).progress.stopped:
        raise UserError(
            f"{directory} was stopped early after {finished} epochs (early_stopping.patience="
            f"{run_cfg.early_stopping.patience}), as a longer run would have been; there is nothing to continue"
        )
    if epochs < planned or (epochs == finished and _is_done(directory)):
        raise UserError(
            f"{directory} has finished {finished} of {planned} epochs, so trainer.max_epochs={epochs} leaves nothing "
            f"to train; give a larger number, e.g. trainer.max_epochs={2 * planned}"
        )
    if epochs != planned and (reason := needs_its_length(continued)):
        raise UserError(
            f"{directory} cannot be trained further, to trainer.max_epochs={epochs}: {reason}, so that a longer "
            "training would have begun differently; train it anew with the larger trainer.max_epochs"
        )


def _is_done(directory: Path) -> bool:
    path = directory / file_names.RESULT
    return path.exists() and run_directory.read_result(directory).status in run_state.TRAINED
