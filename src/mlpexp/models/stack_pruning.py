"""The pruning of a run in a stack; its masks are part of the engine's state. A run alone: `run_pruning.py`."""

from collections.abc import Sequence

from mlpexp.config.schema import Config
from mlpexp.engine.interface import StackEngine
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.pruning import MASK, REWOUND, SPARSITY, prune_, pruned_share, rewind_, sparsity


def prune_due_(
    engine: StackEngine, configs: Sequence[Config], network: NetworkSpec, epoch: int, steps_per_epoch: int
) -> None:
    """Prune the runs for which it is due when `epoch` begins, from 0, and rewind them where they say so.

    Args:
        configs: of the runs in the engine.
        network: of any of them: its shapes are read.
    """
    if any(cfg.prune.rewind is not None for cfg in configs):
        # the runs of an optimizer that counts its steps are rewound together, see the planner
        engine.begin_optimizer(steps_per_epoch * max(cfg.optimizer_begins(epoch) for cfg in configs))
    for place, cfg in enumerate(configs):
        if epoch == cfg.rewound_epochs:
            for name, kept in zip(network.shapes, engine.state[REWOUND], strict=True):
                kept[place].copy_(engine.parameters[name][place])
        if (rounds := cfg.prunings_before(epoch)) > cfg.prunings_before(epoch - 1):
            _prune_run_(engine, place, cfg, network, rounds)


def _prune_run_(engine: StackEngine, place: int, cfg: Config, network: NetworkSpec, rounds: int) -> None:
    parameters = {name: values[place] for name, values in engine.parameters.items()}
    masks = {name: mask[place] for name, mask in zip(network.shapes, engine.state[MASK], strict=True)}
    matrices = network.weight_names
    prune_(
        [parameters[name] for name in matrices],
        [masks[name] for name in matrices],
        pruned_share(cfg.prune, rounds),
    )
    if cfg.prune.rewind is None:
        return
    earlier = initialise(network, cfg.model, cfg.seed)
    if cfg.rewound_epochs is not None:
        kept = zip(network.shapes, engine.state[REWOUND], strict=True)
        earlier |= {name: values[place] for name, values in kept}
    rewind_(parameters, earlier, masks)
    for name, tensors in engine.state.items():
        for tensor in tensors:
            if name not in (MASK, REWOUND):
                tensor[place].zero_()


def sparsity_of(engine: StackEngine, place: int, cfg: Config, network: NetworkSpec) -> dict[str, float]:
    """The column of a run that is pruned; no column for other runs."""
    if cfg.prune.fraction is None:
        return {}
    masks = dict(zip(network.shapes, engine.state[MASK], strict=True))
    return {SPARSITY: sparsity([masks[name][place] for name in network.weight_names])}
