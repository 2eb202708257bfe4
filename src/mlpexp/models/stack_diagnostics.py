"""What is measured inside the networks of a stack after an epoch: measures of a network, states of its layers.

R runs of one shape.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.engine.torch.stack_activations import spans
from mlpexp.models.stack_data import StackData
from mlpexp.nn.diagnostics import PROBE_SAMPLES, inspect
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.measures import Probe, measure_network, unmeasured
from mlpexp.nn.network import NetworkSpec


def measured_networks(
    configs: Sequence[Config],
    networks: Sequence[NetworkSpec],
    parameters: Mapping[str, Tensor],
    data: StackData,
    epoch: int,
) -> dict[int, dict[str, float]]:
    """The measures of `diagnostics` of each run that records some, by column.

    Args:
        parameters: by name, (R, ...).
        epoch: that has just ended, from 0.
    """
    found: dict[int, dict[str, float]] = {}
    if not any(cfg.diagnostics for cfg in configs):
        return found
    inputs, labels = data.probe(PROBE_SAMPLES, len(configs))
    for run, (cfg, network) in enumerate(zip(configs, networks, strict=True)):
        if not cfg.diagnostics:
            continue
        if not cfg.measures_after(epoch):
            found[run] = unmeasured(cfg.diagnostics)
            continue
        own = {name: values[run : run + 1] for name, values in parameters.items()}
        initial = initialise(network, cfg.model, cfg.seed)
        started = {name: values.unsqueeze(0).to(inputs) for name, values in initial.items()}
        alone = slice(run, run + 1)
        probe = Probe(network, own, started, inputs[alone], labels[alone], cfg.loss_function)
        measured = measure_network(cfg.diagnostics, probe)
        found[run] = {column: value.item() for column, value in measured.items()}
    return found


def inspected_layers(
    networks: Sequence[NetworkSpec],
    parameters: Mapping[str, Tensor],
    data: StackData,
    loss: LossFunction,
    epoch: int,
) -> Iterator[tuple[int, list[list[float | str]]]]:
    """Each run with the rows of its layers, see `nn.diagnostics.inspect`; runs of the same activation are neighbours.

    Args:
        parameters: by name, (R, ...).
    """
    inputs, labels = data.probe(PROBE_SAMPLES, len(networks))
    for network, start, stop in spans(networks):
        own = {name: values[start:stop] for name, values in parameters.items()}
        numbers, _ = inspect(network, own, inputs[start:stop], labels[start:stop], loss)
        yield from zip(range(start, stop), numbers.rows(epoch), strict=True)
