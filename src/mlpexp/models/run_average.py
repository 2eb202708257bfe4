"""The average of the weights of a run that trains alone: its updates, its use in evaluations, its checkpoints."""

from collections.abc import Mapping
from math import inf, nan
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.config.schema import Config
from mlpexp.nn.weight_averaging import WeightAverage

TRAINING_WEIGHTS = "training_state_dict"
"""in a checkpoint: the weights from which training continues, where `state_dict` has an average of them"""
AVERAGED_WEIGHTS = "averaged_state_dict"
"""in a checkpoint that is loaded to continue: the average"""


class RunAverage:
    """The average of a module's parameters.

    Args:
        cfg: has an average; otherwise nothing of this is made.
        parameters: by name.
    """

    def __init__(self, cfg: Config, parameters: Mapping[str, nn.Parameter]) -> None:
        self._cfg, self._parameters = cfg, parameters
        self._saved: Mapping[str, Tensor] | None = None
        self._average: WeightAverage | None = None
        self._weights: list[Tensor] | None = None  # while the averages are in their place

    def begin(self) -> None:
        """Before the first step, with the parameters on their device."""
        number = torch.ones(1, dtype=torch.float64)
        decay, start = self._cfg.ema.decay, self._cfg.swa.start
        self._average = WeightAverage(
            [parameter.detach().unsqueeze(0) for parameter in self._parameters.values()],
            number * (nan if decay is None else decay),
            number * (inf if start is None else start),
        )
        if self._saved is not None:
            for name, values in zip(self._parameters, self._average.values, strict=True):
                values[0].copy_(self._saved[name])

    def after_step(self, num_steps: int) -> None:
        """Update after step number `num_steps`, counted from 1."""
        assert self._average is not None
        self._average.after_step(num_steps)

    def after_epoch(self, epoch: int) -> None:
        """Update after `epoch`, from 0."""
        assert self._average is not None
        self._average.after_epoch(epoch)

    @torch.no_grad()
    def put_in_place(self, epoch: int) -> None:
        """Give the module the average after `epoch`, where it is in use."""
        if self._average is None or self._weights is not None or not self._cfg.uses_average(epoch):
            return
        self._weights = [parameter.detach().clone() for parameter in self._parameters.values()]
        for parameter, values in zip(self._parameters.values(), self._average.values, strict=True):
            parameter.copy_(values[0])

    @torch.no_grad()
    def take_away(self) -> None:
        """Give the module its own weights back."""
        if self._weights is None:
            return
        for parameter, values in zip(self._parameters.values(), self._weights, strict=True):
            parameter.copy_(values)
        self._weights = None

    def save(self, checkpoint: dict[str, Any], epoch: int) -> None:
        """Make the average after `epoch` the weights in a checkpoint, where it is in use."""
        if self._average is None or not self._cfg.uses_average(epoch):
            return
        weights = checkpoint["state_dict"]
        averages = {name: v[0].clone() for name, v in zip(self._parameters, self._average.values, strict=True)}
        checkpoint["state_dict"], checkpoint[TRAINING_WEIGHTS] = weights | averages, weights

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._saved = checkpoint.get(AVERAGED_WEIGHTS)
