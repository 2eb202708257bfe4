"""The best epoch so far and early stopping: the same rule for a run alone and for a run of a stack."""

import math
from dataclasses import dataclass
from typing import Protocol

from mlpexp.nn.metric_columns import higher_is_better


class StoppingSettings(Protocol):
    """The settings of early stopping; `EarlyStoppingConfig` has them."""

    @property
    def patience(self) -> int | None: ...
    @property
    def min_delta(self) -> float: ...


@dataclass
class Progress:
    """The state of one validation metric; at a tie the earlier epoch is better, NaN never is.

    Attributes:
        best_epoch: from 0; None until some epoch's value is finite.
        stopped: the latest epoch was the last one, by early stopping.
    """

    smaller_is_better: bool
    patience: int | None
    min_delta: float
    best_epoch: int | None = None
    best_value: float = math.nan
    reference: float = math.nan  # the value that an epoch must improve by min_delta to restart the patience
    waited: int = 0
    first_epoch: int = 0  # earlier epochs do not count
    stopped: bool = False

    @classmethod
    def of(cls, monitor: str, stopping: StoppingSettings, first_epoch: int = 0) -> "Progress":
        """The state before the first epoch; `monitor` is a column such as `val/loss`."""
        return cls(not higher_is_better(monitor), stopping.patience, stopping.min_delta, first_epoch=first_epoch)

    def update(self, epoch: int, value: float) -> bool:
        """Add the value of an epoch; returns whether it is the best so far."""
        if epoch < self.first_epoch:
            return False
        sign = 1 if self.smaller_is_better else -1
        best = math.isfinite(value) and not sign * value >= sign * self.best_value  # true for a NaN best
        if best:
            self.best_epoch, self.best_value = epoch, value
        if math.isfinite(value) and not sign * value + self.min_delta >= sign * self.reference:
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        # a run that is not finite does not become finite again
        self.stopped = self.patience is not None and (self.waited >= self.patience or not math.isfinite(value))
        return best
