"""Averages of the weights over training, per run: the same code for a run alone (R = 1) and for a stack.

Exponential moving average after every step: lerp(average, weights, 1 - decay), and the weights themselves after the
first step. Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of the epochs from
`start` on. Both as `torch.optim.swa_utils.AveragedModel`.

Letters: R runs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlpexp.nn.run_axis import broadcastable, choose_runs

AVERAGE = "average"  # the name of the averages among an optimizer's state


class WeightAverage:
    """The averages of stacked parameters (R, ...).

    Args:
        parameters: are read in each update; the averages begin with their present values.
        decay: of the exponential moving average, (R,); NaN where there is none.
        start: the first epoch of stochastic weight averaging, (R,); infinite where there is none.

    Attributes:
        values: one average for each parameter.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: Tensor, start: Tensor) -> None:
        self.values = [parameter.detach().clone() for parameter in parameters]
        self._parameters = [parameter.detach() for parameter in parameters]
        self._start = start
        self._moves = ~decay.isnan()
        self._weights = (1 - decay).nan_to_num(0.0)

    def after_step(self, num_steps: int) -> None:
        """Update the exponential moving averages after step number `num_steps`, counted from 1."""
        weights = torch.ones_like(self._weights) if num_steps == 1 else self._weights
        self._move(self._moves, weights)

    def after_epoch(self, epoch: int) -> None:
        """Update the means over epochs after `epoch`, from 0."""
        counts = epoch - self._start  # of the epochs before
        self._move(counts >= 0, 1 / (counts.clamp(min=0) + 1))

    def evaluated(self, epoch: int) -> list[Tensor]:
        """The parameters with which each run is evaluated after `epoch`."""
        runs = self._moves | (self._start <= epoch)
        if bool(runs.all()):
            return self.values
        return [choose_runs(runs, *pair) for pair in zip(self.values, self._parameters, strict=True)]

    def _move(self, runs: Tensor, weights: Tensor) -> None:
        """Move the averages of these runs towards the parameters."""
        if not bool(runs.any()):
            return
        if bool(runs.all()) and bool((weights == weights[0]).all()):
            for average, parameter in zip(self.values, self._parameters, strict=True):
                average.lerp_(parameter, weights[0].item())
            return
        for average, parameter in zip(self.values, self._parameters, strict=True):
            moved = average.lerp(parameter, broadcastable(weights.to(parameter), parameter))
            average.copy_(choose_runs(runs, moved, average))
