"""Final status and metrics of a run, from its history."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import torch

from mlpexp.config import own_options
from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.nn.chance_level import chance_message, loss_of_constant, value_chance_message
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.losses import LossFunction
from mlpexp.runtime import user_code
from mlpexp.store.run_directory import Status

# flags of a training that is not meant to learn much, as trainer=smoke; such a run is never called `chance`
CUT_SHORT = {"fast_dev_run", "limit_train_batches", "max_steps", "max_time", "overfit_batches"}


class Conclusion(NamedTuple):
    """The part of a `Result` that follows from the numbers alone."""

    status: Status
    epoch: int | None  # from 0, that `metrics` belong to
    metrics: dict[str, float]
    message: str | None


def conclude(
    cfg: Config,
    history: Sequence[Mapping[str, float]],
    progress: Progress,
    tested: Mapping[str, float],
    class_counts: Sequence[int],
    class_weights: Sequence[float] | None = None,
    *,
    left: str = "",
    guessed: float | None = None,
) -> Conclusion:
    """Status and metrics of a training that has ended, alone or in a stack.

    Args:
        class_counts: training samples of each class.
        class_weights: weight of each class in the training loss; None where all weigh the same.
        guessed: in a regression the least loss of a constant, see `guessed_loss`.
        left: why successive halving stopped the run before its end; such a run is not judged.
    """
    epoch = progress.best_epoch if cfg.test_weights == "best" else None
    if epoch is None and history:
        epoch = len(history) - 1
    metrics = dict(history[epoch]) | dict(tested) if epoch is not None else {}
    # another metric may be undefined, such as the recall of a class without samples
    diverged = next((i for i, row in enumerate(history) if not all(map(math.isfinite, _losses(row)))), None)
    if diverged is not None:
        parts = ", ".join(plugin_parts(cfg))
        reason = f"diverged in epoch {diverged}: the loss is no longer finite" + (f" ({parts})" if parts else "")
        return Conclusion("diverged", epoch, metrics, reason)
    if left:
        return Conclusion("stopped", epoch, metrics, left)
    judged = history and not CUT_SHORT & cfg.trainer.flags.keys()
    message = None
    if judged and guessed is not None:
        message = value_chance_message(history, guessed)
    elif judged:
        message = chance_message(history, class_counts, class_weights, cfg.loss_function)
    if message:
        return Conclusion("chance", epoch, metrics, message)
    if history and progress.best_epoch is None and not math.isfinite(history[-1][cfg.monitor]):
        message = (
            f"{cfg.monitor} is not defined for this validation part, so no epoch is the best one and the metrics are "
            "those of the last; choose another monitor, e.g. monitor=val/loss"
        )
    return Conclusion("ok", epoch, metrics, message)


def plugin_parts(cfg: Config) -> Iterator[str]:
    """What decides on the numbers of a run and comes from a plugin, e.g. `activation 'bump' of my_plugin.py`."""
    if not cfg.plugins:
        return
    for registry, name in chain.from_iterable(own_options.chosen(cfg).values()):
        if name in registry and (plugin := registry.plugin_of(name)) is not None:
            yield f"{registry.kind} {name!r} of {user_code.short(plugin.place)}"


def _losses(row: Mapping[str, float]) -> list[float]:
    return [value for name, value in row.items() if name.endswith("/loss")]


@lru_cache(maxsize=32)
def guessed_loss(data: Prepared, loss: LossFunction) -> float | None:
    """The least loss that a constant has on the training samples, as `train/loss` states it; None for classes."""
    scale = data.target_scale
    if scale is None:
        return None
    train = torch.from_numpy(data.split.train)
    weights = None if data.sample_weights is None else data.sample_weights[train]
    unit = float(scale[0]) ** loss.entry.power if len(scale) == 1 else 1.0
    return unit * loss_of_constant(data.labels[train], loss, weights)
