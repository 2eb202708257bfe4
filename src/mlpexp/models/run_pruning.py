"""The pruning of a run that trains alone: when it happens, its masks, and where they are kept."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.pruning import REWOUND, prune_, pruned_share, rewind_, sparsity

MASKS = "masks"
"""in a checkpoint: of each weight matrix, 1 where a weight is trained and 0 where it is pruned"""


class RunPruning:
    """The masks of a module's weight matrices.

    Args:
        cfg: prunes; otherwise nothing of this is made.
        tensors: returns parameters and running statistics by name, to be changed in place.
        forget: makes the optimizer's state that of a new one.
    """

    def __init__(
        self,
        cfg: Config,
        network: NetworkSpec,
        tensors: Callable[[], Mapping[str, Tensor]],
        forget: Callable[[], None],
    ) -> None:
        self._cfg, self._network, self._tensors, self._forget = cfg, network, tensors, forget
        self._masks = {name: torch.ones(network.shapes[name]) for name in network.weight_names}
        self._earlier: Mapping[str, Tensor] | None = None  # the weights after `rewound_epochs`

    def begin(self) -> None:
        """Before the first step, with the parameters on their device."""
        tensors = self._tensors()
        self._masks = {name: mask.to(tensors[name].device) for name, mask in self._masks.items()}

    def begin_epoch(self, epoch: int) -> None:
        """Prune where it is due when `epoch` begins, from 0."""
        if epoch == self._cfg.rewound_epochs:
            tensors = self._tensors()
            self._earlier = {name: tensors[name].detach().clone() for name in self._network.tensors}
        rounds = self._cfg.prunings_before(epoch)
        if rounds == self._cfg.prunings_before(epoch - 1):
            return
        values = {name: values for name, values in self._tensors().items() if name in self._network.tensors}
        matrices = [values[name] for name in self._masks]
        prune_(matrices, list(self._masks.values()), pruned_share(self._cfg.prune, rounds))
        if self._cfg.prune.rewind is not None:
            earlier = self._earlier or initialise(self._network, self._cfg.model, self._cfg.seed)
            rewind_(values, earlier, self._masks)
            self._forget()

    def mask(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what belongs to pruned weights to zero, in place: gradients before a step, parameters after it."""
        for name, mask in self._masks.items():
            tensors[name].mul_(mask)

    @torch.no_grad()
    def mask_parameters(self) -> None:
        """After a step."""
        self.mask(self._tensors())

    @property
    def sparsity(self) -> float:
        """The share of the weights that is pruned."""
        return sparsity(list(self._masks.values()))

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the masks into a checkpoint."""
        checkpoint[MASKS] = {name: mask.cpu() for name, mask in self._masks.items()}
        if self._earlier is not None:
            checkpoint[REWOUND] = {name: values.cpu() for name, values in self._earlier.items()}

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._masks = {name: checkpoint[MASKS][name].clone() for name in self._masks}
        self._earlier = checkpoint.get(REWOUND)
