"""One job of Hydra: trains the composed configuration and returns the monitored metric."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mlpexp import data
from mlpexp.analysis import run_files
from mlpexp.cli import console, hydra_app
from mlpexp.config.checks import refuse_keys_of_sweeps
from mlpexp.config.overrides import by_key, spell
from mlpexp.config.schema import Config
from mlpexp.runtime import output_streams, shell_commands
from mlpexp.runtime.errors import Interrupted, UserError
from mlpexp.runtime.terminal import say
from mlpexp.store import file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result
from mlpexp.store.run_state import State, inspect, set_content_aside
from mlpexp.training import resume, run_tracking, single_run

SAME = "finished runs are kept, the same command carries on"
log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float | None:
    """Train what Hydra composed, in Hydra's directory; returns the monitored metric of the best epoch.

    In a single run an error ends the program in one line (`hydra_app.run`); in a sweep it goes to Hydra, so that other
    jobs continue.
    """
    hydra = HydraConfig.get()
    alone = hydra.mode == RunMode.RUN
    directory = Path(hydra.runtime.output_dir)
    config = _checked(cfg)
    if not alone and (finished := _finished(config, directory)) is not None:
        log.info("done before")
        return finished.objective
    try:
        config, result = _train(config, alone=alone)
    except (Exception, Interrupted) as error:
        if isinstance(error, Interrupted):
            message = _continue_message(str(error), directory, hydra.overrides.task) if alone else f"{error}; {SAME}"
            error = Interrupted(message, error.exit_code)
        if alone:
            hydra_app.fail(error)
            return None
        raise error from None
    if alone:
        more_epochs = resume.proposed_epochs(config, result)
        overrides = _sweep_overrides(directory, hydra.overrides.task)
        console.show(result, shell_commands.short_path(directory), more_epochs, overrides, config.loss_function.name)
    return result.objective


def train_alone(cfg: DictConfig) -> None:
    """As `run`, for a single run that a Python program asks for: nothing is printed, errors are raised.

    Raises:
        UserError: the run cannot be trained.
        Interrupted: stopped by a signal; says how to continue.
    """
    try:
        _train(_checked(cfg), alone=True)
    except Interrupted as error:
        directory = shell_commands.short_path(Path(HydraConfig.get().runtime.output_dir))
        hint = "nothing to continue yet"
        if (directory / file_names.LAST).exists():
            hint = f"what was finished is kept, continue with mlpexp.run(resume={str(directory)!r})"
        raise Interrupted(f"{error}; {hint}", error.exit_code) from None


def _checked(cfg: DictConfig) -> Config:
    config = hydra_app.parse(cfg)
    refuse_keys_of_sweeps(config, "add -m, and leave out hydra/launcher and hydra/sweeper")
    return config


def _train(config: Config, *, alone: bool) -> tuple[Config, Result]:
    """Train one run in the directory of Hydra's job, or continue the one that `resume` names.

    Args:
        alone: not a run of a sweep: it has a progress bar, and records what runs of a sweep do not by default.

    Returns:
        Its configuration (of a resumed run: its own), and its result.
    """
    hydra = HydraConfig.get()
    output_streams.ignore_unwritable_logs(Path(hydra.runtime.output_dir))
    if alone:
        config = replace(config, tracking=config.tracking.settled(True))
    try:
        continued = resume.find(config, list(hydra.overrides.task)) if config.resume is not None else None
        config = continued.cfg if continued else config
        bar = console.bar(config.trainer.max_epochs) if alone and config.trainer.enable_progress_bar else None
        directory = Path(hydra.runtime.output_dir)
        earlier = _identity(directory) if continued and config.trackers else ()
        result = single_run.train(config, directory, bar=bar, continued=continued)
        if config.trackers:
            sweep = Path(str(hydra.sweep.dir)) if hydra.mode == RunMode.MULTIRUN else None
            tracking = run_tracking.tracking_of_run(directory, sweep, Path(hydra.runtime.cwd), partial(say, error=True))
            tracking.record([run_tracking.EndedRun(config=config, directory=directory, result=result, earlier=earlier)])
            tracking.close()
        return config, result
    except UserError:
        raise
    except SystemExit as error:  # of a callback of the user's
        log.info("the run failed", exc_info=True)
        raise RuntimeError(f"a callback or logger ended the program (SystemExit: {error})") from error
    except Exception:
        log.info("the run failed", exc_info=True)  # the traceback goes to the log, one line to the terminal
        raise


def _identity(directory: Path) -> tuple[str, ...]:
    """That of the run that is continued there; none where it was killed."""
    with suppress(UserError):
        return (run_directory.read_result(directory).identity,)
    return ()


def _sweep_overrides(directory: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides with which a sweep repeats this run with other seeds."""
    parsed = by_key(overrides)
    if "resume" in parsed:  # what it was started with, and its new length
        first_overrides = run_files.overrides(directory.parent, directory.name) or []
        parsed = by_key(
            [*first_overrides, *(override.text for key, override in parsed.items() if key == "trainer.max_epochs")]
        )
    return [override.text for key, override in parsed.items() if key not in ("seed", "resume", "name")]


def _continue_message(reason: str, directory: Path, overrides: Sequence[str]) -> str:
    directory_name = shell_commands.short_path(directory)
    if not (directory / file_names.LAST).exists():
        return f"{reason}; nothing to continue yet in {directory_name}, run the same command again"
    parsed = by_key(overrides)
    if "resume" in parsed:  # the run may still be the one of before, with fewer epochs
        repeated = [item.text for key, item in parsed.items() if key != "resume" and not key.startswith("hydra.")]
    else:
        repeated = console.built(overrides)
    command = shell_commands.script("train.py", f"resume={spell(str(directory_name))}", *repeated)
    return f"{reason}; what was finished is kept in {directory_name}, continue with: {command}"


def _finished(cfg: Config, directory: Path) -> Result | None:
    """The result of a run that is done: under other launchers each job of a sweep checks it.

    What a damaged, failed or interrupted run has left is set aside; Hydra has opened the run's log and
    written its configuration already, so these stay.
    """
    run_state = inspect(directory, identity(cfg, data.digest(cfg.data)))
    if run_state.state in (State.DONE, State.NEW):
        return run_state.result
    if run_state.state is State.OTHER:
        raise UserError(f"{directory} holds another run, which is finished; choose another name=…")
    set_content_aside(directory, directory.parent / file_names.SET_ASIDE)
    return None
