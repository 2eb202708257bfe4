"""Trained networks of many runs as stacked tensors, one stack for each architecture and preprocessing.

Letters: R runs, N samples, B batch, I inputs, C classes or values of a regression.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.evaluation import trained_run
from mlpexp.nn.network import NetworkSpec, forward
from mlpexp.runtime.errors import UserError
from mlpexp.training import load_network
from mlpexp.training.load_network import Network

MAX_NUMBERS = 2**25  # in one tensor of a forward pass, 128 MiB


@dataclass(frozen=True, kw_only=True)
class StackedNetworks:
    """Networks of equal layers whose inputs are prepared in the same way.

    Attributes:
        runs: the place of each among the directories that were loaded, R.
        configs: of each, R.
        weights: by full name, running statistics too, (R, ...).
        data: what the networks were trained on.
    """

    runs: list[int]
    configs: list[Config]
    network: NetworkSpec
    weights: dict[str, Tensor]
    data: Description

    def predictions(self, inputs: Tensor) -> NDArray[np.float64]:
        """Probabilities (R, N, C) of prepared inputs (N, I); in a regression the values, in the units of the data."""
        outputs = self.logits(inputs).double()
        if self.data.target_names:
            return self.data.in_target_units(outputs.numpy())
        probabilities: NDArray[np.float64] = outputs.softmax(-1).numpy()
        return probabilities

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """(R, N, C) of prepared inputs (N, I)."""
        dtype = next(iter(self.weights.values())).dtype
        widest = max(self.network.sizes)
        size = max(1, MAX_NUMBERS // (len(self.runs) * widest))
        return torch.cat([_logits(self.network, self.weights, batch.to(dtype)) for batch in inputs.split(size)], dim=1)


def _logits(network: NetworkSpec, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """(R, B, C) of stacked weights (R, ...) and inputs (B, I) of their type."""
    if network.user_module is None:
        runs = len(next(iter(weights.values())))
        return forward(network, weights, inputs.unsqueeze(0).expand(runs, -1, -1)).logits
    # one by one: not every module of the user's goes through `vmap`, nor `vmap` through `torch.export`
    each = [dict(zip(weights, values, strict=True)) for values in zip(*weights.values(), strict=True)]
    return torch.stack([forward(network, tensors, inputs).logits for tensors in each])


def load_stacks(directories: Sequence[Path]) -> Iterator[StackedNetworks]:
    """The networks of these runs, each with the weights that it was tested with, as few stacks as possible.

    Raises:
        UserError: a run has no checkpoint, or it is damaged.
    """
    groups: defaultdict[object, dict[int, Network]] = defaultdict(dict)
    for run, directory in enumerate(directories):
        location, content = trained_run.checkpoint(directory)
        network = load_network.network(location.checkpoint, content)
        data = network.data
        scale = tuple(data.target_shift), tuple(data.target_scale), tuple(data.target_names)
        preprocessing = data.digest, data.features.key, tuple(data.class_names), scale
        groups[network.network, preprocessing, next(iter(network.weights.values())).dtype][run] = network
    for members in groups.values():
        first_network, *_ = networks = list(members.values())
        yield StackedNetworks(
            runs=list(members),
            configs=[member.cfg for member in networks],
            network=first_network.network,
            weights={
                name: torch.stack([member.weights[name] for member in networks])
                for name in first_network.network.tensors
            },
            data=first_network.data,
        )


def chosen_stacks(stacks: Sequence[StackedNetworks], indices: Sequence[int]) -> list[StackedNetworks]:
    """The stacks of some of their networks; `indices` gives each its new place."""
    new_indices = {index: number for number, index in enumerate(indices)}
    chosen = []
    for stack in stacks:
        rows = [row for row, index in enumerate(stack.runs) if index in new_indices]
        if rows:
            chosen.append(
                replace(
                    stack,
                    runs=[new_indices[stack.runs[row]] for row in rows],
                    configs=[stack.configs[row] for row in rows],
                    weights={name: values[rows] for name, values in stack.weights.items()},
                )
            )
    return chosen


def outputs_of_all(stacks: Sequence[StackedNetworks], inputs: Tensor) -> NDArray[np.float64]:
    """(R, N, C) probabilities or values, by places."""
    outputs: NDArray[np.float64] | None = None
    for stack in stacks:
        values = stack.predictions(inputs)
        if outputs is None:
            outputs = np.empty((sum(len(stack.runs) for stack in stacks), *values.shape[1:]))
        outputs[stack.runs] = values
    assert outputs is not None
    if not np.isfinite(outputs).all():
        raise UserError("an output of a network is not finite: an input is too large")
    return outputs


class EnsembleNetwork(nn.Module):
    """The weighted mean of the networks' probabilities, of which it returns the logarithms; of values their mean.

    The softmax of its outputs is the mean of the probabilities, so that it takes the place of a single network.
    """

    def __init__(self, stacks: Sequence[StackedNetworks], shares: Mapping[int, float]) -> None:
        """
        Args:
            stacks: of equal inputs and outputs.
            shares: the weight of each network by its place among the runs that were loaded; their sum is 1.
        """
        super().__init__()
        self.stacks = [_Stack(stack, [shares[index] for index in stack.runs]) for stack in stacks]
        self.modules_of_stacks = nn.ModuleList(self.stacks)  # registers their tensors
        self.predicts_values = bool(stacks[0].data.target_names)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logarithms of probabilities (B, C) of prepared inputs (B, I); in a regression values in deviations."""
        outputs = torch.cat([stack(inputs) for stack in self.stacks])  # (networks, B, C)
        shares = torch.cat([stack.shares for stack in self.stacks])[:, None, None]
        if self.predicts_values:
            return (outputs * shares).sum(0)
        return torch.logsumexp(torch.log_softmax(outputs, -1) + torch.log(shares), 0)


class _Stack(nn.Module):
    shares: Tensor

    def __init__(self, stack: StackedNetworks, shares: Sequence[float]) -> None:
        super().__init__()
        self.network = stack.network
        self.names = {name: name.replace(".", "_") for name in stack.weights}  # torch allows no dots
        self.weights = nn.ParameterDict(
            {self.names[name]: nn.Parameter(values, requires_grad=False) for name, values in stack.weights.items()}
        )
        self.dtype = next(iter(stack.weights.values())).dtype
        self.register_buffer("shares", torch.tensor(shares))  # (R,)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (R, B, C) float32."""
        tensors = {name: self.weights[parameter] for name, parameter in self.names.items()}
        return _logits(self.network, tensors, inputs.to(self.dtype)).float()
