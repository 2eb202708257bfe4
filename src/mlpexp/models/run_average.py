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


class RunAverage(WeightAverage):
    """The average of the parameters of a module that is being trained.

    Args:
        cfg: the run's configuration, with `ema.decay` or `swa.start`.
        parameters: by name, on their device.
        saved: the average in the checkpoint from which the training continues.
    """

    def __init__(self, cfg: Config, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor] | None) -> None:
        number = torch.ones(1, dtype=torch.float64)
        decay, start = cfg.ema.decay, cfg.swa.start
        super().__init__(
            [parameter.unsqueeze(0) for parameter in parameters.values()],
            number * (nan if decay is None else decay),
            number * (inf if start is None else start),
        )
        self._cfg, self._by_name = cfg, parameters
        self._trained: list[Tensor] | None = None  # while the averages are in their place
        if saved is not None:
            for name, values in zip(parameters, self.values, strict=True):
                values[0].copy_(saved[name])

    @torch.no_grad()
    def replace_weights(self, epoch: int) -> None:
        """Replace the module's weights by the average after `epoch`, where it is in use."""
        if self._trained is not None or not self._cfg.uses_average(epoch):
            return
        self._trained = [parameter.detach().clone() for parameter in self._by_name.values()]
        for parameter, values in zip(self._by_name.values(), self.values, strict=True):
            parameter.copy_(values[0])

    @torch.no_grad()
    def restore_weights(self) -> None:
        """Restore the module's own weights."""
        if self._trained is None:
            return
        for parameter, values in zip(self._by_name.values(), self._trained, strict=True):
            parameter.copy_(values)
        self._trained = None

    def save(self, checkpoint: dict[str, Any], epoch: int) -> None:
        """Make the average after `epoch` the weights in a checkpoint, where it is in use."""
        if not self._cfg.uses_average(epoch):
            return
        weights = checkpoint["state_dict"]
        averages = {name: v[0].clone() for name, v in zip(self._by_name, self.values, strict=True)}
        checkpoint["state_dict"], checkpoint[TRAINING_WEIGHTS] = weights | averages, weights
