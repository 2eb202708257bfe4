"""What changes the parameters of a stack in a step: the optimizer, with clipping before it and averaging after it.

Letters: R runs.
"""

from collections.abc import Sequence
from math import inf, nan

import torch
from torch import Tensor

from mlpexp.nn.gradient_clipping import clip_
from mlpexp.nn.optimizers import OPTIMIZERS, StackOptimizer, UpdateSettings
from mlpexp.nn.pruning import MASK, REWOUND
from mlpexp.nn.weight_averaging import AVERAGE, WeightAverage


def make_update(
    settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> "StackOptimizer | StackUpdate":
    """The optimizer itself where nothing else is done."""
    optimizer = OPTIMIZERS[settings.name](settings, parameters, gradients)
    return StackUpdate(optimizer, settings, parameters, gradients) if settings.extras else optimizer


class StackUpdate:
    """An optimizer with what is done around its steps.

    `UpdateSettings.extras` has, each (R,) float64: `clip_norm` and `clip_value`, infinite where a run does not clip;
    `ema_decay`, NaN, and `swa_start`, infinite, where a run does not average; `prune` and `rewind`, any values, where
    masks and earlier weights are needed.
    """

    def __init__(
        self,
        optimizer: StackOptimizer,
        settings: UpdateSettings,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        extras = settings.extras
        self._optimizer, self._gradients = optimizer, gradients
        self._norms, self._values = extras.get("clip_norm"), extras.get("clip_value")
        self._parameters = parameters
        self._masks: list[Tensor] | None = None
        self._earlier: list[Tensor] | None = None
        if "prune" in extras:
            self._masks = [torch.ones_like(parameter) for parameter in parameters]
        if "rewind" in extras:
            self._earlier = [parameter.clone() for parameter in parameters]
        self.average: WeightAverage | None = None
        if extras.keys() & {"ema_decay", "swa_start"}:
            none = torch.ones(len(parameters[0]), dtype=torch.float64)
            decay, start = extras.get("ema_decay", nan * none), extras.get("swa_start", inf * none)
            self.average = WeightAverage(parameters, decay, start)

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """The optimizer's, the averages, the masks of pruned weights and the weights to which prunings return."""
        averages = {} if self.average is None else {AVERAGE: self.average.values}
        masks = {} if self._masks is None else {MASK: self._masks}
        earlier = {} if self._earlier is None else {REWOUND: self._earlier}
        return self._optimizer.state | averages | masks | earlier

    @property
    def num_steps(self) -> int:
        """Taken so far."""
        return self._optimizer.num_steps

    @num_steps.setter
    def num_steps(self, count: int) -> None:
        self._optimizer.num_steps = count

    @property
    def began_at(self) -> int:
        """See `StackOptimizer`."""
        return self._optimizer.began_at

    @began_at.setter
    def began_at(self, count: int) -> None:
        self._optimizer.began_at = count

    def schedule(self, lr: Tensor | Sequence[Tensor]) -> None:
        """See `StackOptimizer`."""
        self._optimizer.schedule(lr)

    def step(self) -> None:
        """See `StackOptimizer`."""
        if self._masks is not None:
            for gradient, mask in zip(self._gradients, self._masks, strict=True):
                gradient.mul_(mask)
        if self._norms is not None or self._values is not None:
            clip_(self._gradients, self._norms, self._values)
        self._optimizer.step()
        if self._masks is not None:
            for parameter, mask in zip(self._parameters, self._masks, strict=True):
                parameter.mul_(mask)
        if self.average is not None:
            self.average.after_step(self.num_steps)
