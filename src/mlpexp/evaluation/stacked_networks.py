"""Trained networks of many runs as stacked tensors, one stack for each architecture and preprocessing.

Letters: R runs, N samples, I inputs, C classes or values of a regression.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.evaluation import trained_run
from mlpexp.evaluation.locate_run import Weights
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
        found: NDArray[np.float64] = outputs.softmax(-1).numpy()
        return found

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """(R, N, C) of prepared inputs (N, I)."""
        dtype = next(iter(self.weights.values())).dtype
        widest = max(self.network.sizes)
        size = max(1, MAX_NUMBERS // (len(self.runs) * widest))
        batches = [
            forward(self.network, self.weights, batch.to(dtype).expand(len(self.runs), -1, -1)).logits
            for batch in inputs.split(size)
        ]
        return torch.cat(batches, dim=1)


def load_stacks(directories: Sequence[Path], weights: Weights | None = None) -> Iterator[StackedNetworks]:
    """The networks of these runs, as few stacks as possible.

    Args:
        weights: which checkpoint; by default the one that each run was tested with.

    Raises:
        UserError: a run has no checkpoint, or it is damaged.
    """
    groups: defaultdict[object, dict[int, Network]] = defaultdict(dict)
    for run, directory in enumerate(directories):
        place, content = trained_run.checkpoint(directory, weights)
        found = load_network.network(place.checkpoint, content)
        data = found.data
        scale = tuple(data.target_shift), tuple(data.target_scale), tuple(data.target_names)
        prepared = data.digest, data.features.key, tuple(data.class_names), scale
        groups[found.network, prepared, next(iter(found.weights.values())).dtype][run] = found
    for members in groups.values():
        first, *_ = networks = list(members.values())
        yield StackedNetworks(
            runs=list(members),
            configs=[each.cfg for each in networks],
            network=first.network,
            weights={name: torch.stack([each.weights[name] for each in networks]) for name in first.network.tensors},
            data=first.data,
        )


def chosen_stacks(stacks: Sequence[StackedNetworks], places: Sequence[int]) -> list[StackedNetworks]:
    """The stacks of some of their networks; `places` gives each its new place."""
    new = {place: number for number, place in enumerate(places)}
    found = []
    for stack in stacks:
        rows = [row for row, place in enumerate(stack.runs) if place in new]
        if rows:
            found.append(
                replace(
                    stack,
                    runs=[new[stack.runs[row]] for row in rows],
                    configs=[stack.configs[row] for row in rows],
                    weights={name: values[rows] for name, values in stack.weights.items()},
                )
            )
    return found


def outputs_of_all(stacks: Sequence[StackedNetworks], inputs: Tensor) -> NDArray[np.float64]:
    """(R, N, C) probabilities or values, by places."""
    found: NDArray[np.float64] | None = None
    for stack in stacks:
        values = stack.predictions(inputs)
        if found is None:
            found = np.empty((sum(len(stack.runs) for stack in stacks), *values.shape[1:]))
        found[stack.runs] = values
    assert found is not None
    if not np.isfinite(found).all():
        raise UserError("an output of a network is not finite: an input is too large")
    return found
