"""The pruning of a run in a stack; its masks are part of the engine's state. A run alone: `run_pruning.py`."""

from mlpexp.config.schema import Config
from mlpexp.engine.interface import StackEngine
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.pruning import MASK, SPARSITY, prune_, pruned_share, rewind_, sparsity


def prune_run_(engine: StackEngine, place: int, cfg: Config, network: NetworkSpec, rounds: int) -> None:
    """Prune a run, and rewind it where its configuration says so.

    Args:
        place: of the run in the engine.
        rounds: how often it is pruned with this time.
    """
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
    rewind_(parameters, initialise(network, cfg.model, cfg.seed), masks)
    for name, tensors in engine.state.items():
        for tensor in tensors:
            if name != MASK:
                tensor[place].zero_()


def sparsity_of(engine: StackEngine, place: int, cfg: Config, network: NetworkSpec) -> dict[str, float]:
    """The column of a run that is pruned; no column for other runs."""
    if cfg.prune.fraction is None:
        return {}
    masks = dict(zip(network.shapes, engine.state[MASK], strict=True))
    return {SPARSITY: sparsity([masks[name][place] for name in network.weight_names])}
