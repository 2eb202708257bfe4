"""Which engine trains a run of a sweep.

The engine is part of a run's identity, because bits depend on it. So it is decided by the run's own configuration and
the machine, never by the other runs of the sweep; a sweep that grows keeps the engine of its first start.

This file imports nothing heavy: a finished sweep is recognised without torch.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mlpexp.config.schema import Config
from mlpexp.engine.compiled.availability import unavailable, unsupported_run
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.runtime.errors import UserError
from mlpexp.store import sweep_manifest

KEY = "stack.engine"
# Trainer flags that do not change a run's numbers
HARMLESS_FLAGS = ("devices", "log_every_n_steps", "enable_model_summary", "num_sanity_val_steps", "profiler")


def cannot_be_stacked(cfg: Config) -> str | None:
    """Why a run has to train alone; None where it can share a stack."""
    if cfg.model.variant != "torch_nn":
        return f"model.variant={cfg.model.variant}"
    if reason := OPTIMIZERS[cfg.optimizer.name].trains_alone:
        return reason
    if cfg.callbacks:
        return "your own callbacks"
    if cfg.logger:
        return "your own logger"
    if cfg.tracking.figures:
        return "tracking.figures=true"
    return next((f"trainer.{name}" for name in cfg.trainer.flags if name not in HARMLESS_FLAGS), None)


def with_engine(cfg: Config, *, alone: bool = False, earlier: str | None = None) -> Config:
    """The same configuration with `stack.engine=auto` decided.

    Args:
        alone: the run trains alone, by Lightning and torch, whatever its configuration.
        earlier: the engine of this sweep's first start; None where it has none, or several.

    Raises:
        UserError: the engine that is asked for, or that the sweep has, cannot train this run.
    """
    reason = "it trains alone" if alone else cannot_be_stacked(cfg)
    if reason is None and cfg.trainer.accelerator != "cpu":
        reason = f"trainer.accelerator={cfg.trainer.accelerator}"
    reason = reason or unsupported_run(cfg)
    engine: Any = cfg.stack.engine
    if engine == "compiled" and (reason := reason or unavailable()):
        raise UserError(f"stack.engine=compiled is not possible here: {reason}; or leave stack.engine out")
    if engine == "auto":
        engine = "torch" if reason else earlier or "compiled"
        if engine == "compiled" and (missing := unavailable()):
            if earlier == "compiled":
                raise UserError(
                    f"this sweep was started with the compiled engine, which is not available here: {missing}; "
                    "or start another sweep with another name=…"
                )
            engine = "torch"
    return replace(cfg, stack=replace(cfg.stack, engine=engine))


def engine_of(directory: Path) -> str | None:
    """The engine of all runs of an earlier start in this directory; None where there was none, or both were used.

    Raises:
        UserError: see `sweep_manifest.read`.
    """
    manifest = sweep_manifest.read(directory)
    if manifest is None or KEY in manifest.varied:
        return None
    return str(manifest.constants.get(KEY, "torch"))
