"""Arguments and results of user-defined functions: one protocol for each kind.

Letters: R runs, M samples, n samples of a part of the data, B samples of a probe, C outputs (classes or targets),
I inputs, O outputs of a layer, N samples, J features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mlpexp.data.data_config import DataConfig
from mlpexp.nn.measures import Probe


class ActivationFunction(Protocol):
    """Elementwise: every element of the result depends on the same element of the argument alone."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Any shape -> the same shape and type; `x` is read-only."""


class InitialiserFunction(Protocol):
    """The initial weights of one layer."""

    def __call__(self, shape: tuple[int, int], generator: torch.Generator, /) -> Tensor:
        """(O, I) and the only source of randomness -> float32 (O, I)."""


class ScheduleFunction(Protocol):
    """The factor of the learning rate."""

    def __call__(self, elapsed: int, total: int, /) -> float:
        """The number of the epoch (or step), from 0, of `total`, both without the warm-up -> a factor >= 0."""


class LossFunction(Protocol):
    """The loss of each sample."""

    def __call__(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Logits or values (M, C) and targets (M, C), one-hot for classes, both read-only -> (M,)."""


class MetricFunction(Protocol):
    """A metric of all samples of a part of the data."""

    def __call__(self, predictions: Tensor, targets: Tensor, /) -> Tensor:
        """Outputs (R, n, C) or predicted classes (R, n), and classes (R, n) or values (R, n, C), read-only -> (R,)."""


class MeasureFunction(Protocol):
    """A number about the networks after an epoch."""

    def __call__(self, probe: Probe, /) -> Tensor:
        """Parameters, initial parameters and inputs, read-only -> (R,)."""


class OptimizerFunction(Protocol):
    """One step of R runs; hyperparameters may differ between runs."""

    def __call__(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: Mapping[str, Sequence[Tensor]],
        hyperparameters: Mapping[str, Any],
        /,
    ) -> None:
        """Change parameters and state, each (R, ...), in place.

        Args:
            state: by name, one tensor for each parameter, zeros at first.
            hyperparameters: `lr` and the keys that the optimizer reads, for each parameter a tensor (R, 1, ...) that
                multiplies it; `step`, an integer from 1.
        """


class DataSetFunction(Protocol):
    """Reads or generates a data set."""

    def __call__(self, settings: DataConfig, /) -> tuple[Any, Any]:
        """Inputs (N, J) and targets: classes (N,) from 0, or values (N,) or (N, C)."""
