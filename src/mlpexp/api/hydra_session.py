"""Runs the Hydra application inside another program: no argv, no exit, nothing printed, no state left behind."""

import copy
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig

from mlpexp.cli import automatic_directories, hydra_app, single_run_checks
from mlpexp.config import sweep_syntax
from mlpexp.config.compose import hydra_config
from mlpexp.runtime import signals, terminal
from mlpexp.runtime.errors import ConfigError, Interrupted, RunsFailed, Stopped, UserError, writing
from mlpexp.store import directory_lock
from mlpexp.sweep.jobs import DryRun
from mlpexp.sweep.sweep_console import NOTHING_DONE

JOB = "train"  # as of scripts/train.py: it names the log file
_LOGGERS = ("lightning.pytorch", "lightning.fabric")  # whose levels training changes
_calls = threading.RLock()  # Hydra has one state in a process: a second thread waits


def train(task: Callable[[DictConfig], Any], overrides: Sequence[str]) -> Path:
    """One run; returns its directory.

    Args:
        task: gets the composed configuration, with `HydraConfig` set.

    Raises:
        ConfigError: all that is wrong with the overrides.
        KeyboardInterrupt: stopped; the message says what is kept.
        Exception: what `task` raises.
    """
    raised: list[BaseException] = []

    def guarded(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except BaseException as error:  # Hydra would print it
            raised.append(error)
            return None

    with _session(overrides) as app:
        composed = _composed_by(app)
        app.run(JOB, guarded, sweep_syntax.for_hydra(overrides, is_sweep=False))
        directory = Path(str(composed[0].hydra.run.dir))
    if raised:
        _raise(raised[0], overrides)
    return directory


def sweep(overrides: Sequence[str]) -> Path:
    """A sweep, as `-m` starts it; returns its directory.

    Raises:
        ConfigError: all that is wrong with the sweep; nothing has been written then.
        RunsFailed: some runs failed, the others are done.
        KeyboardInterrupt: stopped; the message says what is kept.
    """

    def alone(cfg: DictConfig) -> float | None:
        """The run's objective; for launchers that train each run by itself."""
        with signals.importing():
            from mlpexp.cli import train_job  # torch and lightning: late

        return train_job.run(cfg)

    with _session(overrides) as app:
        composed = _composed_by(app)
        try:
            app.multirun(JOB, alone, sweep_syntax.for_hydra(overrides, is_sweep=True))
        except RunsFailed as error:
            error.directory = Path(str(composed[0].hydra.sweep.dir))
            raise
        return Path(str(composed[0].hydra.sweep.dir))


def plan_of_run(overrides: Sequence[str]) -> DryRun:
    """What `train` would do; everything is checked, and nothing written.

    Raises:
        ConfigError: all that is wrong with the overrides.
    """
    with _session(overrides) as app:
        config = app.compose_config(JOB, sweep_syntax.for_hydra(overrides, is_sweep=False), RunMode.RUN)
        with hydra_config(config):
            cfg = single_run_checks.check_run(config)
            directory = Path(str(config.hydra.run.dir))
    status, doing = ("new", "train") if cfg.resume is None else ("shorter", "train further")
    record = {"run": 0, "name": str(directory), "status": status, "stack": None, "alone": "a single run"}
    return DryRun(directory, [f"1 run, alone: {doing} in {directory}", NOTHING_DONE], [record])


def plan_of_sweep(overrides: Sequence[str]) -> DryRun:
    """What `sweep` with `dry_run=true` among the overrides would do.

    Raises:
        ConfigError: all that is wrong with the sweep.
    """

    def never(cfg: DictConfig) -> None:
        raise UserError("dry_run=true shows the plan of a sweep in stacks; leave out hydra/launcher")

    with _session(overrides) as app:
        returned = app.multirun(JOB, never, sweep_syntax.for_hydra(overrides, is_sweep=True))
    dry_run = returned if isinstance(returned, DryRun) else returned[0]
    assert isinstance(dry_run, DryRun)
    return dry_run


def _composed_by(app: Any) -> list[DictConfig]:
    """The configurations that Hydra composes from now on: they hold the directory, and Hydra does not return them."""
    configs: list[DictConfig] = []
    compose = app.compose_config

    def recorded(*args: Any, **options: Any) -> DictConfig:
        cfg: DictConfig = compose(*args, **options)
        configs.append(cfg)
        return cfg

    app.compose_config = recorded
    return configs


@contextmanager
def _session(overrides: Sequence[str]) -> Iterator[Any]:
    try:
        with ExitStack() as stack:
            stack.enter_context(writing())
            stack.enter_context(_calls)
            stack.enter_context(_kept_state())
            stack.enter_context(terminal.as_library())
            stack.enter_context(directory_lock.released())
            stack.callback(automatic_directories.release)
            GlobalHydra.instance().clear()
            hydra_app.register(overrides)
            stack.enter_context(initialize_config_dir(str(hydra_app.conf()), job_name=JOB, version_base="1.3"))
            app = GlobalHydra.instance().hydra
            assert app is not None
            yield app
    except hydra_app.Refused as refused:
        assert refused.__cause__ is not None
        _raise(refused.__cause__, overrides)
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        _raise(error, overrides)


def _raise(error: BaseException, overrides: Sequence[str]) -> NoReturn:
    """Raise what a Python program expects for this error."""
    if isinstance(error, Interrupted):
        if error.exit_code != 130 and threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGTERM)  # the program's own handler decides; by default it ends here
        raise Stopped(str(error)) from None
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):  # outside the training
        raise Stopped("stopped by SIGINT; finished runs are kept") from None
    if (lines := hydra_app.problems(error, overrides)) is not None:
        error = ConfigError(lines)
    if isinstance(error, ConfigError):
        raise ConfigError([_in_python(line) for line in error.problems]) from None
    raise error


def _in_python(line: str) -> str:
    """The command line's message with its option for sweeps in terms of Python."""
    return line.replace("add -m to sweep over it", "call mlpexp.sweep for it").replace(
        "add -m, or", "call mlpexp.sweep, or"
    )


@contextmanager
def _kept_state() -> Iterator[None]:
    """At the end of the block, Hydra's state in this process and the handlers of logs are as before."""
    Plugins.instance()  # plugins store their choices when they are imported, which happens once
    globals_, config, version = GlobalHydra.instance(), HydraConfig.instance(), VersionBase.instance()
    store, runtime, root = ConfigStore.instance(), JobRuntime.instance(), logging.getLogger()
    state = globals_.hydra, config.cfg, version.version_base, copy.deepcopy(runtime.conf)
    choices = copy.deepcopy(store.repo)
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers and isinstance(handler, logging.FileHandler):
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, previous in levels.items():
            logging.getLogger(name).setLevel(previous)
        globals_ = GlobalHydra.instance()  # a context manager of Hydra's may have put another in its place
        globals_.hydra, config.cfg, version.version_base, runtime.conf = state
        store.repo = choices
