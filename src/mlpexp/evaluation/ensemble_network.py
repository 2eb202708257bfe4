"""Several trained networks as one module of torch.

Letters: R networks of a stack, B batch, I inputs, C classes or values of a regression.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mlpexp.evaluation.stacked_networks import StackedNetworks
from mlpexp.nn.network import forward


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
        self.stacks = [_Stack(stack, [shares[place] for place in stack.runs]) for stack in stacks]
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
        tensors = {name: self.weights[own] for name, own in self.names.items()}
        stacked = inputs.to(self.dtype).unsqueeze(0).expand(len(self.shares), -1, -1)
        return forward(self.network, tensors, stacked).logits.float()
