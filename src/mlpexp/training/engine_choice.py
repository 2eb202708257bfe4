"""Which engine trains a run, and why a run trains alone.

The engine is part of a run's identity, because bits depend on it. So it is decided by the run's own configuration and
the machine, never by the other runs of the sweep; a sweep that grows keeps the engine of its first start.

Importing this file imports no torch: a finished sweep is recognised without it.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from mlpexp import data as datasets
from mlpexp.config import user_network
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS, Sizes
from mlpexp.engine.compiled.availability import unavailable, unsupported_run
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.runtime.errors import UserError
from mlpexp.store import sweep_manifest

ENGINE = "stack.engine"
# Trainer flags that do not change a run's numbers
HARMLESS_FLAGS = ("devices", "log_every_n_steps", "enable_model_summary", "num_sanity_val_steps", "profiler")


def cannot_be_stacked(cfg: Config) -> str | None:
    """Why a run has to train alone; None where it can share a stack."""
    if cfg.model.variant != "torch_nn":
        return f"model.variant={cfg.model.variant}"
    if reason := OPTIMIZERS[cfg.optimizer.name].trains_alone:
        return reason
    if cfg.callbacks and not _sees_stacks(cfg):
        return "your own callbacks"
    if cfg.model.target is not None and (reason := user_network.stack_obstacle(cfg, _sizes(cfg))):
        return reason
    if cfg.logger:
        return "your own logger"
    if cfg.tracking.figures:
        return "tracking.figures=true"
    return next((f"trainer.{name}" for name in cfg.trainer.flags if name not in HARMLESS_FLAGS), None)


def _sees_stacks(cfg: Config) -> bool:
    """Whether all callbacks are objects with `on_epoch_end`, which see a stack."""
    targets = [str(node.get("_target_")) for node in cfg.callbacks.values()]
    return all(map(_sees_stack, targets))


@cache
def _sees_stack(target: str) -> bool:
    try:
        callback = resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False  # the run says that it cannot be built
    from lightning.pytorch import Callback  # late: only where there are callbacks

    return isinstance(callback, type) and not issubclass(callback, Callback) and hasattr(callback, "on_epoch_end")


def _sizes(cfg: Config) -> Sizes:
    sizes = DATA_SETS[cfg.data.name].sizes(cfg.data)
    if sizes is not None:
        return sizes
    prepared = datasets.prepare(cfg.data)  # which keeps it
    return Sizes(prepared.num_inputs, prepared.num_classes, len(prepared.labels))


def cannot_be_compiled(cfg: Config) -> str | None:
    """Why the compiled engine cannot train a run that can be stacked, on this machine or on any; None if it can."""
    return _needs_torch(cfg) or unavailable()


def _needs_torch(cfg: Config) -> str | None:
    if cfg.trainer.accelerator != "cpu":
        return f"trainer.accelerator={cfg.trainer.accelerator}"
    return unsupported_run(cfg)


def with_engine(cfg: Config, *, alone: bool = False, earlier: str | None = None) -> Config:
    """The same configuration with `stack.engine=auto` replaced by an engine.

    Args:
        alone: the run trains alone, by Lightning and torch, whatever its configuration.
        earlier: the engine of this sweep's first start; None where it has none, or several.

    Raises:
        UserError: the engine that is asked for, or that the sweep has, cannot train this run.
    """
    single = "it trains alone" if alone else cannot_be_stacked(cfg)
    engine: Any = cfg.stack.engine
    if cfg.model.target is not None:
        if engine == "vmap" and single:
            raise UserError(f"stack.engine=vmap is not possible here: {single}; or leave stack.engine out")
        if engine in ("torch", "compiled") and not single:
            raise UserError(
                f"stack.engine={engine} is for mlpexp's own network; leave it out with model._target_="
                f"{cfg.model.target}, which stack.engine=vmap trains"
            )
        return replace(cfg, stack=replace(cfg.stack, engine="torch" if single else "vmap"))
    if engine == "vmap":
        raise UserError(
            "stack.engine=vmap is for networks of your own, model._target_=my_module.MyNetwork; leave it out: "
            "mlpexp's own networks are trained faster by its other engines"
        )
    reason = single or _needs_torch(cfg)
    if engine == "compiled" and (reason := reason or unavailable()):
        raise UserError(f"stack.engine=compiled is not possible here: {reason}; or leave stack.engine out")
    if engine == "auto":
        engine = "torch" if reason else "torch" if earlier == "torch" else "compiled"
        if engine == "compiled" and (missing := unavailable()):
            if earlier == "compiled":
                raise UserError(
                    f"this sweep was started with the compiled engine, which is not available here: {missing}; "
                    "or start another sweep with another name=…"
                )
            engine = "torch"
    return replace(cfg, stack=replace(cfg.stack, engine=engine))


def engine_of(directory: Path) -> str | None:
    """The engine of all runs of an earlier start in this directory; None without one, or if several were used.

    Raises:
        UserError: see `sweep_manifest.read`.
    """
    manifest = sweep_manifest.read(directory)
    if manifest is None or ENGINE in manifest.varied:
        return None
    return str(manifest.constants.get(ENGINE, "torch"))
