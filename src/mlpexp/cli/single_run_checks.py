"""Checks of a single run before Hydra creates its directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mlpexp.cli import automatic_directories, hydra_app
from mlpexp.config import model_checks, plugin_keys
from mlpexp.config.checks import refuse_keys_of_sweeps
from mlpexp.config.overrides import by_key, shell_word
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import say
from mlpexp.store import atomic_files, file_names
from mlpexp.store.directory_checks import check_place


def check_run(config: DictConfig) -> Config:
    """The configuration of a single run, from one with Hydra's node; raises `UserError` before anything is written."""
    plugin_keys.check_chosen(config.hydra)
    cfg = hydra_app.parse(config)
    if "name" in by_key(config.hydra.overrides.task):
        where = shell_word("hydra.run.dir", f"outputs/{cfg.name}")
        say(f"note: name is for sweeps (-m) and ignored here; a run's directory is named by {where}", error=True)
    refuse_keys_of_sweeps(cfg, "add -m, or leave it out")
    if cfg.resume is None:
        refuse_used(Path(str(config.hydra.run.dir)), automatic=_is_automatic(config.hydra.run))
        summary = model_checks.check_data(cfg)  # before a directory is made
        if summary is not None:
            say(summary)
    else:
        from mlpexp.training import resume

        resume.find(cfg, list(config.hydra.overrides.task))
    if cfg.trainer.accelerator not in ("cpu", "auto") or cfg.trainer.flags or cfg.callbacks or cfg.logger:
        from mlpexp.training import trainer_setup  # Lightning: late, and only where it is needed

        trainer_setup.check(cfg)
    return cfg


class CheckFirst(Callback):
    """Checks the configuration of a single run before Hydra creates its directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _refusing():
            cfg = check_run(config)
            if cfg.resume is not None:
                atomic_files.detach(Path(cfg.resume) / file_names.LOG)  # Hydra adds to it in place
            elif _is_automatic(config.hydra.run):
                automatic_directories.claim(str(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _refusing():
            if _is_automatic(config.hydra.sweep) and config.get("name") is None:
                automatic_directories.claim(str(config.hydra.sweep.dir))


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Hydra turns exceptions of callbacks into warnings
        raise hydra_app.Refused(error) from error


def _is_automatic(node: DictConfig) -> bool:
    """Whether its directory was not given by the user."""
    written = str(OmegaConf.to_container(node, resolve=False)["dir"])  # type: ignore[call-overload,index]
    return written.startswith(("${mlpexp.run_dir:", "multirun/${mlpexp.sweep_name:"))


def refuse_used(directory: Path, *, automatic: bool = False) -> None:
    """Raise `UserError` where `directory` cannot be made, or holds a run or something else."""
    check_place(directory, "hydra.run.dir")
    if not automatic and directory.is_dir() and any(directory.iterdir()):
        raise UserError(
            f"{directory} is not empty; choose another hydra.run.dir, "
            f"or continue the run that is there with {shell_word('resume', str(directory))}"
        )
