"""The arguments of Lightning's `Trainer`: flags, plugins, callbacks and loggers, and checks that it accepts them."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pkgutil import resolve_name
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities import registry
from lightning.pytorch import Callback, Trainer

from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.extend.epoch_callback import EpochCallback, check_is_callback
from mlpexp.runtime.errors import ConfigError, UserError, first_line

log = logging.getLogger(__name__)
# texts of Lightning's warnings that do not concern a run
ADVICE = (
    "does not have many workers",
    "`srun` command is available on your system but is not used",  # the front end of a cluster has it
    "treespec, LeafSpec",
    "configure_optimizers` returned `None`",
    "Checkpoint directory .* exists and is not empty",
    "smaller than the logging interval",  # mlpexp logs once per epoch
    "GPU available but not used",  # the CPU is the default, and small networks train faster there
)


def check(cfg: Config) -> None:
    """Check with Lightning itself that it accepts the settings, before the directory of a run exists.

    Raises:
        ConfigError: names the accelerator, flags, callbacks and loggers that are not possible.
    """
    problems = []
    for check_part in (_accelerator, _flags, own_callbacks, _loggers):
        try:
            check_part(cfg)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def _accelerator(cfg: Config) -> None:
    if cfg.trainer.accelerator not in ("cpu", "auto"):
        check_accelerator(cfg.trainer.accelerator)


def _flags(cfg: Config) -> None:
    """Check each flag alone, so that the wrong one is named; then all, since they may contradict each other."""
    flags = cfg.trainer.flags
    for name, value in flags.items():
        _try(f"trainer.{name}={spell(value)}", {name: value})
    if len(flags) > 1:
        _try(" ".join(f"trainer.{name}={spell(value)}" for name, value in flags.items()), flags)


def _try(typed: str, flags: dict[str, Any]) -> None:
    try:
        with quiet(), warnings.catch_warnings(action="ignore"):  # the run itself will give them
            arguments: dict[str, Any] = {"accelerator": "cpu", "devices": 1} | flags
            arguments["plugins"] = on_this_machine(arguments.pop("plugins", None) or [])
            Trainer(**arguments, logger=False, enable_checkpointing=False)
    except Exception as error:  # Lightning raises many kinds
        raise UserError(f"{typed} is not for lightning's Trainer: {first_line(error)}") from error


def _loggers(cfg: Config) -> None:
    for name, node in cfg.logger.items():  # not built here: some greet their server at once
        try:
            resolve_name(node["_target_"])
        except Exception as error:
            raise UserError(f"logger.{name} cannot be built: {first_line(error)}; check its _target_") from error


def check_accelerator(name: str) -> None:
    """
    Raises:
        UserError: this machine has no such accelerator.
    """
    from lightning.pytorch.accelerators import AcceleratorRegistry

    kinds = {"gpu": ("cuda", "mps")}.get(name, (name,))
    if not any(AcceleratorRegistry.get(kind).is_available() for kind in kinds if kind in AcceleratorRegistry):
        raise UserError(
            f"trainer.accelerator={name}: no such device is available on this machine; use trainer.accelerator=cpu"
        )


def on_this_machine(plugins: Any = ()) -> list[Any]:
    """The plugins of a Trainer, with one that keeps Lightning from reading Slurm's variables.

    A run trains in this process (or in copies that it starts), whatever the shell or job that it was started from.

    Args:
        plugins: the flag of the Trainer: one, or a list of them.
    """
    plugins = plugins if isinstance(plugins, list | tuple) else [plugins]
    has_environment = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    return [*plugins, *([] if has_environment else [LightningEnvironment()])]


def own_callbacks(cfg: Config) -> dict[str, Any]:
    """The callbacks that a configuration describes, by name: those of Lightning's, and those that see a stack.

    Raises:
        UserError: one of them cannot be built, or is neither.
    """
    built = dict(zip(cfg.callbacks, instances("callbacks", cfg.callbacks), strict=True)) if cfg.callbacks else {}
    for name, callback in built.items():
        if not isinstance(callback, Callback):
            check_is_callback(name, callback)
    return built


def epoch_callbacks(callbacks: Mapping[str, Any]) -> dict[str, EpochCallback]:
    """The callbacks that see a stack; a run alone is a stack of one for them."""
    return {name: callback for name, callback in callbacks.items() if not isinstance(callback, Callback)}


def instances(group: str, nodes: dict[str, Any]) -> list[Any]:
    """The objects that a person's `callbacks` or `logger` entries describe by `_target_`.

    Raises:
        UserError: an entry cannot be built.
    """
    from hydra.utils import instantiate

    built = []
    for name, node in nodes.items():
        try:
            built.append(instantiate(node))
        except Exception as error:
            raise UserError(
                f"{group}.{name} cannot be built: {first_line(error.__cause__ or error)}; "
                "check its _target_ and arguments"
            ) from error
    return built


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's advice on loader workers, tips and internal deprecations while the block runs.

    In it Lightning also looks only once for callbacks that installed packages bring.
    """
    with warnings.catch_warnings(), _packages_read_once():
        for words in ADVICE:
            warnings.filterwarnings("ignore", f".*{words}.*")
        # the others in one line, and in the run's log
        warnings.showwarning = lambda message, *_, **__: log.warning(first_line(message))
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        yield


@contextmanager
def _packages_read_once() -> Iterator[None]:
    """Lightning reads the metadata of all installed packages for each `Trainer`: 13 of the 27 ms of a small stack.

    It may not have the name that is replaced here; then it reads them each time.
    """
    names = vars(registry)
    find = names.get("entry_points")
    if find is not None:
        names["entry_points"] = cache(find)
    try:
        yield
    finally:
        if find is not None:
            names["entry_points"] = find
