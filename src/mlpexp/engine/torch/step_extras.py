"""Clipping, pruning and averaging around the optimizer's step of a stack.

Letters: R runs.
"""

from collections.abc import Mapping, Sequence
from math import inf, nan

import torch
from torch import Tensor

from mlpexp.nn.gradient_clipping import clip_
from mlpexp.nn.pruning import MASK, REWOUND
from mlpexp.nn.weight_averaging import AVERAGE, WeightAverage


class StepExtras:
    """Changes gradients before a step, and parameters and their averages after it.

    Args:
        settings: `UpdateSettings.extras`, each (R,) float64: `clip_norm` and `clip_value`, infinite where a run does
            not clip; `ema_decay`, NaN, and `swa_start`, infinite, where a run does not average; `prune` and `rewind`,
            any values, where masks and earlier weights are needed.

    Attributes:
        average: of the parameters; None where no run averages.
        state: the averages, the masks of pruned weights and the weights to which prunings return, by name.
    """

    def __init__(
        self, settings: Mapping[str, Tensor], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> None:
        self._parameters, self._gradients = parameters, gradients
        self._norms, self._values = settings.get("clip_norm"), settings.get("clip_value")
        self.state: dict[str, list[Tensor]] = {}
        self.average: WeightAverage | None = None
        if settings.keys() & {"ema_decay", "swa_start"}:
            none = torch.ones(len(parameters[0]), dtype=torch.float64)
            decay, start = settings.get("ema_decay", nan * none), settings.get("swa_start", inf * none)
            self.average = WeightAverage(parameters, decay, start)
            self.state[AVERAGE] = self.average.values
        if "prune" in settings:
            self.state[MASK] = [torch.ones_like(parameter) for parameter in parameters]
        if "rewind" in settings:
            self.state[REWOUND] = [parameter.clone() for parameter in parameters]

    def before_step(self) -> None:
        """Change the gradients in place."""
        self._mask(self._gradients)
        if self._norms is not None or self._values is not None:
            clip_(self._gradients, self._norms, self._values)

    def after_step(self, num_steps: int) -> None:
        """Change the parameters in place after step number `num_steps`, counted from 1."""
        self._mask(self._parameters)
        if self.average is not None:
            self.average.after_step(num_steps)

    def _mask(self, tensors: Sequence[Tensor]) -> None:
        if MASK in self.state:
            for tensor, mask in zip(tensors, self.state[MASK], strict=True):
                tensor.mul_(mask)
