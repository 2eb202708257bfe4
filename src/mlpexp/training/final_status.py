"""What a run's history amounts to: its status, the epoch that counts, the metrics of that epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlpexp.config.schema import Config
from mlpexp.nn import chance_level
from mlpexp.nn.early_stopping import Progress
from mlpexp.store.run_directory import Status

# flags of a training that was never meant to learn much, as trainer=smoke
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
) -> Conclusion:
    """Of a training that came to its end, whoever drove it.

    Args:
        class_counts: training samples of each class.
        class_weights: what each counted in the training's loss, where not all counted alike.
        left: why it left a sweep before its end.
    """
    epoch = progress.best_epoch if cfg.test_weights == "best" else None
    if epoch is None and history:
        epoch = len(history) - 1
    metrics = dict(history[epoch]) | dict(tested) if epoch is not None else {}
    diverged = next((i for i, row in enumerate(history) if not all(map(math.isfinite, row.values()))), None)
    if diverged is None and left:  # too early to say that it learns nothing
        return Conclusion("stopped", epoch, metrics, left)
    if diverged is None:
        judged = history and not CUT_SHORT & cfg.trainer.flags.keys()
        nothing = chance_level.level(history, class_counts, class_weights) if judged else None
        return Conclusion("diverged" if nothing else "ok", epoch, metrics, nothing)
    return Conclusion("diverged", epoch, metrics, f"diverged in epoch {diverged}: the loss is no longer finite")
