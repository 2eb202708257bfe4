"""Diagnostics of the networks of a stack after an epoch: measures of each network, and numbers of its layers.

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
        epoch: the one that has just ended, from 0.
    """
    measured: dict[int, dict[str, float]] = {}
    if not any(cfg.diagnostics for cfg in configs):
        return measured
    inputs, labels = data.probe(PROBE_SAMPLES, len(configs))
    for run, (cfg, network) in enumerate(zip(configs, networks, strict=True)):
        if cfg.diagnostics:
            alone = slice(run, run + 1)
            run_parameters = {name: values[alone] for name, values in parameters.items()}
            measured[run] = measured_network(cfg, network, run_parameters, inputs[alone], labels[alone], epoch)
    return measured


def measured_network(
    cfg: Config, network: NetworkSpec, parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, epoch: int
) -> dict[str, float]:
    """The same of one run, with R = 1 in parameters, inputs and labels; NaN in an epoch without measures."""
    if not cfg.measures_after(epoch):
        return unmeasured(cfg.diagnostics)
    initial = initialise(network, cfg.model, cfg.seed)
    started = {name: values.unsqueeze(0).to(inputs) for name, values in initial.items()}
    probe = Probe(network, parameters, started, inputs, labels, cfg.loss_function)
    return {column: value.item() for column, value in measure_network(cfg.diagnostics, probe).items()}


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
        span_parameters = {name: values[start:stop] for name, values in parameters.items()}
        numbers, _ = inspect(network, span_parameters, inputs[start:stop], labels[start:stop], loss)
        yield from zip(range(start, stop), numbers.rows(epoch), strict=True)
