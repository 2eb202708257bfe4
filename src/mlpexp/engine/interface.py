"""The interface of engines, which train the runs of a stack.

Letters: R runs, S steps, I inputs, C classes, N samples, n samples of an epoch, m samples of an evaluation.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from mlpexp.nn.outcomes import Outcomes


class Epoch(NamedTuple):
    """The samples and settings of one epoch of training.

    Attributes:
        inputs: (N, I).
        labels: classes, int64 (N,), or (R, N) where they differ between runs; or values (N, C) or (R, N, C).
        order: the samples of each run in order, (R, n) int64, or (n,) for all runs.
        lr: float64, (R,) for the whole epoch or (S, R); or one of them for each parameter.
        class_weights: the weight of each class, (R, C); the losses are multiplied by it.
        sample_weights: the weight of each sample, (N,) or (R, N), by which they are multiplied as well.
        first_rows: the row of `inputs` at which each run's samples begin, (R, 1); None for row 0.
    """

    inputs: Tensor
    labels: Tensor
    order: Tensor
    batch_size: int
    lr: Tensor | Sequence[Tensor]
    class_weights: Tensor | None = None
    sample_weights: Tensor | None = None
    first_rows: Tensor | None = None


class StackEngine(Protocol):
    """The parameters of R runs, their optimizer's state and the loops that change them.

    Attributes:
        parameters: the present values by name, running statistics too, (R, ...); clone what you keep.
        num_steps: number of steps taken.
        train_outcomes: of the latest epoch; each sample's loss and predicted class are those before its batch's step.
    """

    parameters: dict[str, Tensor]
    num_steps: int
    train_outcomes: Outcomes

    @property
    def num_runs(self) -> int:
        """R, the number of runs that have not left."""

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """The optimizer's: by torch's name, one stacked tensor for each parameter."""

    def train_epoch(self, epoch: Epoch) -> None:
        """One pass over the samples in batches, the last one smaller if need be."""

    def evaluate(
        self, inputs: Tensor, labels: Tensor, index: Tensor | None = None, first_rows: Tensor | None = None
    ) -> Outcomes:
        """Losses and predicted classes of samples, (R, m); losses without label smoothing.

        Args:
            inputs, labels, first_rows: as in `Epoch`; `first_rows` only with an index.
            index: of the samples, (R, m) or (m,) int64; None for all in their order.
        """

    def begin_optimizer(self, num_steps: int) -> None:
        """Declare that the optimizer of all runs was new after `num_steps` steps."""

    def keep(self, runs: Tensor) -> None:
        """Remove all runs but these (indices or a mask over the present R); their bits do not change."""
