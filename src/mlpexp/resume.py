"""Continuing a run in its own directory, with the numbers of a run that was never interrupted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from mlpexp import atomic, checkpoints, runs
from mlpexp.config import Config
from mlpexp.errors import UserError

# what may differ from the run that is continued
ALLOWED = (
    "resume",
    "trainer.max_epochs",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "threads",
    "hydra.",
)


def check(cfg: Config, overrides: Sequence[str]) -> None:
    """Refuse before anything is touched.

    Raises:
        UserError: there is nothing to continue, or other keys than the number of epochs were given.
    """
    assert cfg.resume is not None
    others = [
        key
        for key in (item.partition("=")[0].lstrip("+~") for item in overrides)
        if not key.startswith(ALLOWED)
    ]
    if others:
        raise UserError(
            f"resume={cfg.resume} goes on with the run's own configuration, so {others[0]} cannot be given; "
            "only trainer.max_epochs may grow"
        )
    directory = Path(cfg.resume)
    if directory.is_file():
        raise UserError(
            f"resume={cfg.resume} is a file; give the run's directory, e.g. resume=outputs/DATE/TIME"
        )
    if not directory.is_dir():
        raise UserError(
            f"resume={cfg.resume} does not exist; give a run's directory, e.g. resume=outputs/DATE/TIME"
        )
    _continued(cfg, directory, explicit=any(item.startswith("trainer.max_epochs=") for item in overrides))


def prepare(cfg: Config, directory: Path) -> Config:
    """The configuration of the run in `directory`, with `cfg`'s number of epochs; recorded there, too."""
    continued = _continued(cfg, directory, explicit=True)
    written = directory / ".hydra" / "config.yaml"
    if written.is_file():
        plain = OmegaConf.load(written)
        OmegaConf.update(plain, "trainer.max_epochs", continued.trainer.max_epochs)
        atomic.write(written, OmegaConf.to_yaml(plain))
    return continued


def _continued(cfg: Config, directory: Path, *, explicit: bool) -> Config:
    path = directory / runs.LAST
    if not path.exists():
        raise UserError(
            f"{directory} has no {runs.LAST}: there is no run to continue; start it again without resume"
        )
    loaded = checkpoints.load(path)
    own, num_features, num_classes = checkpoints.described(path, loaded)
    checkpoints.check_weights(
        path, loaded["state_dict"], [num_features, *own.model.hidden_sizes, num_classes]
    )
    finished = loaded.get("epoch", -1) + 1
    epochs = cfg.trainer.max_epochs
    if epochs == own.trainer.max_epochs == finished or epochs <= finished - (not explicit):
        raise UserError(
            f"{directory} has finished {finished} epochs; give a larger number, "
            f"e.g. resume={directory} trainer.max_epochs={2 * finished}"
        )
    if epochs != own.trainer.max_epochs and own.optimizer.schedule == "cosine":
        raise UserError(
            f"{directory} follows a cosine schedule over {own.trainer.max_epochs} epochs, which a longer run "
            "would have begun differently; train it anew with the larger trainer.max_epochs"
        )
    return replace(
        own,
        resume=cfg.resume,
        threads=cfg.threads,
        trainer=replace(
            own.trainer,
            max_epochs=epochs,
            accelerator=cfg.trainer.accelerator,
            enable_progress_bar=cfg.trainer.enable_progress_bar,
        ),
    )
