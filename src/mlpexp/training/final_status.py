"""Final status and metrics of a run, from its history."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import torch

from mlpexp.config import user_options
from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.chance_level import chance_message, loss_of_constant, value_chance_message
from mlpexp.nn.losses import LossFunction
from mlpexp.runtime import software_versions, user_code
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result, Status

# flags of a training that is not meant to learn much, as trainer=smoke; such a run is never called `chance`
CUT_SHORT = {"fast_dev_run", "limit_train_batches", "max_steps", "max_time", "overfit_batches"}


class Conclusion(NamedTuple):
    """The part of a `Result` that follows from the numbers alone."""

    status: Status
    epoch: int | None  # from 0, that `metrics` belong to
    metrics: dict[str, float]
    message: str | None


def conclude(cfg: Config, data: Prepared, record: RunRecord) -> Conclusion:
    """Status and metrics of a training that has ended, alone or in a stack; one that halving stopped is not judged."""
    history, progress = record.history, record.progress
    epoch = progress.best_epoch if cfg.test_weights == "best" else None
    if epoch is None and history:
        epoch = len(history) - 1
    metrics = history[epoch] | record.tested if epoch is not None else {}
    # another metric may be undefined, such as the recall of a class without samples
    diverged = next((i for i, row in enumerate(history) if not all(map(math.isfinite, _losses(row)))), None)
    if diverged is not None:
        parts = ", ".join(plugin_parts(cfg))
        reason = f"diverged in epoch {diverged}: the loss is no longer finite" + (f" ({parts})" if parts else "")
        return Conclusion("diverged", epoch, metrics, reason)
    if record.stop_reason:
        return Conclusion("stopped", epoch, metrics, record.stop_reason)
    judged = history and not CUT_SHORT & cfg.trainer.flags.keys()
    if judged and (message := _chance_message(cfg, data, history)):
        return Conclusion("chance", epoch, metrics, message)
    message = None
    if history and progress.best_epoch is None and not math.isfinite(history[-1][cfg.monitor]):
        message = (
            f"{cfg.monitor} is not defined for this validation part, so no epoch is the best one and the metrics are "
            "those of the last; choose another monitor, e.g. monitor=val/loss"
        )
    return Conclusion("ok", epoch, metrics, message)


def result_of(
    cfg: Config,
    data: Prepared,
    record: RunRecord,
    end: Conclusion,
    *,
    seconds: dict[str, float],
    threads: int,
    engine: str,
    num_parameters: int,
    files: dict[str, dict[str, int | str]],
) -> Result:
    """The content of the completion marker.

    Args:
        threads, engine: with which the run was trained.
        files: checksums by name.
    """
    return Result(
        status=end.status,
        metrics=end.metrics,
        objective=record.progress.best_value,
        monitor=cfg.monitor,
        epoch=end.epoch,
        epochs=len(record.history),
        identity=identity(cfg, data.digest),
        data_digest=data.digest,
        seconds=seconds,
        versions=software_versions.versions(),
        environment=software_versions.environment(threads, cfg.trainer.accelerator, engine),
        git_commit=software_versions.git_commit(),
        message=end.message,
        test_samples=len(data.split.test),
        num_parameters=num_parameters,
        files=files,
    )


def plugin_parts(cfg: Config) -> Iterator[str]:
    """The registry entries of a run that come from plugins, e.g. `activation 'bump' of my_plugin.py`."""
    if not cfg.plugins:
        return
    for registry, name in chain.from_iterable(user_options.chosen_entries(cfg).values()):
        if name in registry and (plugin := registry.plugin_of(name)) is not None:
            yield f"{registry.kind} {name!r} of {user_code.short_name(plugin.place)}"


def _losses(row: Mapping[str, float]) -> list[float]:
    return [value for name, value in row.items() if name.endswith("/loss")]


def _chance_message(cfg: Config, data: Prepared, history: Sequence[Mapping[str, float]]) -> str | None:
    if (guessed := _guessed_loss(data, cfg.loss_function)) is not None:
        return value_chance_message(history, guessed)
    return chance_message(history, data.class_counts, data.description.class_weights, cfg.loss_function)


@lru_cache(maxsize=32)
def _guessed_loss(data: Prepared, loss: LossFunction) -> float | None:
    """The smallest training loss of a constant prediction, in the unit of `train/loss`; None for classes."""
    scale = data.target_scale
    if scale is None:
        return None
    train = torch.from_numpy(data.split.train)
    weights = None if data.sample_weights is None else data.sample_weights[train]
    unit = float(scale[0]) ** loss.entry.power if len(scale) == 1 else 1.0
    return unit * loss_of_constant(data.labels[train], loss, weights)
