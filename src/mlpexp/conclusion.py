"""What a run's history amounts to: its status, the epoch that counts, the metrics of that epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlpexp.config import Config
from mlpexp.progress import Progress
from mlpexp.runs import Status


class Conclusion(NamedTuple):
    """The part of a `Result` that follows from the numbers alone."""

    status: Status
    epoch: int | None  # from 0, that `metrics` belong to
    metrics: dict[str, float]
    message: str | None


def conclude(
    cfg: Config, history: Sequence[Mapping[str, float]], progress: Progress, tested: Mapping[str, float]
) -> Conclusion:
    """Of a training that came to its end, whoever drove it."""
    epoch = progress.best_epoch if cfg.test_weights == "best" else None
    if epoch is None and history:
        epoch = len(history) - 1
    metrics = dict(history[epoch]) | dict(tested) if epoch is not None else {}
    diverged = next((i for i, row in enumerate(history) if not all(map(math.isfinite, row.values()))), None)
    if diverged is None:
        return Conclusion("ok", epoch, metrics, None)
    return Conclusion("diverged", epoch, metrics, f"diverged in epoch {diverged}: the loss is no longer finite")
