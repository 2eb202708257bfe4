"""The pruning of a run that trains alone, and of the runs of a stack: when it happens, and where masks are kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.engine.interface import StackEngine
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.pruning import MASK, REWOUND, SPARSITY, prune_, pruned_share, rewind_, sparsity

MASKS = "masks"
"""in a checkpoint: of each weight matrix, 1 where a weight is trained and 0 where it is pruned"""


class RunPruning:
    """The masks of a module's weight matrices.

    Args:
        cfg: the run's configuration, with `prune.fraction`.
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
        """Move the masks to the device of the parameters; called before the first step."""
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
        _prune_run_(self._cfg, self._network, rounds, values, self._masks, self._earlier or {})
        if self._cfg.prune.rewind is not None:
            self._forget()

    def mask(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the elements of pruned weights to zero, in place: of gradients before a step, of parameters after it."""
        for name, mask in self._masks.items():
            tensors[name].mul_(mask)

    @torch.no_grad()
    def mask_parameters(self) -> None:
        """Set the pruned weights to zero; called after each step."""
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


def prune_due_(
    engine: StackEngine, configs: Sequence[Config], network: NetworkSpec, epoch: int, steps_per_epoch: int
) -> None:
    """Prune the runs of a stack for which it is due when `epoch` begins, from 0, and rewind those with `prune.rewind`.

    Masks and the weights to which prunings return are part of the engine's state.

    Args:
        configs: of the runs in the engine.
        network: of any of them: its shapes are read.
    """
    if any(cfg.prune.rewind is not None for cfg in configs):
        # the runs of an optimizer that counts its steps are rewound together, see the planner
        engine.begin_optimizer(steps_per_epoch * max(cfg.optimizer_begins(epoch) for cfg in configs))
    for place, cfg in enumerate(configs):
        if cfg.prune.fraction is None:
            continue
        rounds = cfg.prunings_before(epoch)
        is_due = rounds > cfg.prunings_before(epoch - 1)
        if not is_due and epoch != cfg.rewound_epochs:
            continue
        parameters = {name: values[place] for name, values in engine.parameters.items()}
        rewound = _of_run(engine, network, REWOUND, place) if cfg.rewound_epochs is not None else {}
        if epoch == cfg.rewound_epochs:
            for name, values in rewound.items():
                values.copy_(parameters[name])
        if is_due:
            _prune_run_(cfg, network, rounds, parameters, _of_run(engine, network, MASK, place), rewound)
        if is_due and cfg.prune.rewind is not None:
            for name, tensors in engine.state.items():
                for tensor in tensors if name not in (MASK, REWOUND) else ():
                    tensor[place].zero_()


def sparsity_of(engine: StackEngine, place: int, cfg: Config, network: NetworkSpec) -> dict[str, float]:
    """The column of a run of a stack that is pruned; no column for other runs."""
    if cfg.prune.fraction is None:
        return {}
    masks = _of_run(engine, network, MASK, place)
    return {SPARSITY: sparsity([masks[name] for name in network.weight_names])}


def _of_run(engine: StackEngine, network: NetworkSpec, kind: str, place: int) -> dict[str, Tensor]:
    """Tensors of the engine's state by the names of the parameters."""
    return {name: tensor[place] for name, tensor in zip(network.shapes, engine.state[kind], strict=True)}


def _prune_run_(
    cfg: Config,
    network: NetworkSpec,
    rounds: int,
    parameters: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    earlier: Mapping[str, Tensor],
) -> None:
    """Prune one run for the round number `rounds`; with `prune.rewind` return it to `earlier` or initial values."""
    matrices = network.weight_names
    share = pruned_share(cfg.prune.fraction, cfg.prune.rounds, rounds)
    prune_([parameters[name] for name in matrices], [masks[name] for name in matrices], share)
    if cfg.prune.rewind is not None:
        rewind_(parameters, {**initialise(network, cfg.model, cfg.seed), **earlier}, masks)
