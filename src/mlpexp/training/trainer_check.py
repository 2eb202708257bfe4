"""Does Lightning accept what was asked of its `Trainer`? Asked before a run's directory exists."""

import warnings
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch import Trainer

from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import ConfigError, UserError, first_line
from mlpexp.training.single_run import Quiet, check_accelerator, on_this_machine, own_callbacks


def check(cfg: Config) -> None:
    """
    Raises:
        ConfigError: naming the accelerator, flags, callbacks and loggers that cannot be had.
    """
    problems = []
    for asked in (_accelerator, _flags, _callbacks, _loggers):
        try:
            asked(cfg)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def _accelerator(cfg: Config) -> None:
    if cfg.trainer.accelerator not in ("cpu", "auto"):
        check_accelerator(cfg.trainer.accelerator)


def _flags(cfg: Config) -> None:
    """Each flag alone, so that the wrong one can be named; then all of them, which may contradict each other."""
    flags = cfg.trainer.flags
    for name, value in flags.items():
        _try(f"trainer.{name}={spell(value)}", {name: value})
    if len(flags) > 1:
        _try(" ".join(f"trainer.{name}={spell(value)}" for name, value in flags.items()), flags)


def _try(typed: str, flags: dict[str, Any]) -> None:
    try:
        with Quiet(), warnings.catch_warnings(action="ignore"):  # the run itself will give them
            arguments: dict[str, Any] = {"accelerator": "cpu", "devices": 1} | flags
            given = arguments.pop("plugins", None) or []
            arguments["plugins"] = on_this_machine(given if isinstance(given, list) else [given])
            Trainer(**arguments, logger=False, enable_checkpointing=False)
    except Exception as error:  # Lightning raises many kinds
        raise UserError(f"{typed} is not for lightning's Trainer: {first_line(error)}") from error


def _callbacks(cfg: Config) -> None:
    own_callbacks(cfg)


def _loggers(cfg: Config) -> None:
    for name, node in cfg.logger.items():  # not built here: some greet their server at once
        try:
            resolve_name(node["_target_"])
        except Exception as error:
            raise UserError(f"logger.{name} cannot be built: {first_line(error)}; check its _target_") from error
