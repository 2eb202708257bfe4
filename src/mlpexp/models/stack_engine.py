"""The engine of a stack, as the configurations of its runs name it, and the parameters that it begins with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.engine.interface import StackEngine
from mlpexp.engine.torch.captured_engine import CapturedEngine
from mlpexp.engine.torch.engine import Engine
from mlpexp.engine.torch.vmap_engine import VmapEngine
from mlpexp.nn.initialisation import initialise_
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import UpdateSettings


def make_engine(
    configs: Sequence[Config],
    networks: Sequence[NetworkSpec],
    parameters: Mapping[str, Tensor],
    update: UpdateSettings,
    device: torch.device,
) -> StackEngine:
    """The engine for all runs of a stack.

    Args:
        parameters: by name, (R, ...), on any device.
    """
    first = configs[0]
    parameters = {name: values.to(device) for name, values in parameters.items()}
    if first.stack.engine == "compiled":
        from mlpexp.engine.compiled.engine import CompiledEngine

        return CompiledEngine(networks=networks, parameters=parameters, update=update, threads=first.stack_threads)
    kind = CapturedEngine if device.type == "cuda" else Engine
    if first.model.target is not None:
        kind = VmapEngine
    return kind(
        networks=networks,
        parameters=parameters,
        update=update,
        loss=first.loss_function,
        keeps_outputs=any(cfg.keeps_outputs for cfg in configs),
        seeds=[cfg.seed for cfg in configs],
    )


def initial_parameters(configs: Sequence[Config], networks: Sequence[NetworkSpec]) -> dict[str, Tensor]:
    """The values of each run before its first step, by name, (R, ...)."""
    stacked = {name: torch.empty(len(configs), *shape) for name, shape in networks[0].tensors.items()}
    for run, (cfg, network) in enumerate(zip(configs, networks, strict=True)):
        own = {name: values[run] for name, values in stacked.items()}
        initialise_(own, network, cfg.model, cfg.seed)
    return stacked
