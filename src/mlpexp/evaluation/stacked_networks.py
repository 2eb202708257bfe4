"""Trained networks of many runs as stacked tensors, one stack for each architecture and preprocessing.

Letters: R runs, N samples, I inputs, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mlpexp.data.data_description import Description
from mlpexp.evaluation import trained_run
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.trained_run import Trained
from mlpexp.nn.network import NetworkSpec, forward

MAX_NUMBERS = 2**25  # in one tensor of a forward pass, 128 MiB


@dataclass(frozen=True, kw_only=True)
class StackedNetworks:
    """Networks of equal layers whose inputs are prepared in the same way.

    Attributes:
        runs: the place of each among the directories that were loaded, R.
        weights: by full name, (R, ...).
        data: what the networks were trained on.
        first: the first of them.
    """

    runs: list[int]
    network: NetworkSpec
    weights: dict[str, Tensor]
    data: Description
    first: Trained

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """(R, N, C), on the device of the weights, of prepared inputs (N, I)."""
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
    groups: dict[object, list[tuple[int, Trained]]] = {}
    threads = torch.get_num_threads()
    try:
        for place, directory in enumerate(directories):
            run = trained_run.load(directory, weights)
            dtype = next(run.module.parameters()).dtype
            key = run.module.network, run.data.features.key, tuple(run.data.class_names), dtype
            groups.setdefault(key, []).append((place, run))
    finally:
        torch.set_num_threads(threads)  # `load` sets those of the run
    for members in groups.values():
        first = members[0][1]
        states = [run.module.state_dict() for _, run in members]
        yield StackedNetworks(
            runs=[place for place, _ in members],
            network=first.module.network,
            weights={name: torch.stack([state[name] for state in states]) for name in first.module.network.shapes},
            data=first.data,
            first=first,
        )
