"""The non-linearities: each name with its function and its derivative, both elementwise.

The derivative is written from the pre-activation `x` and the activation's output `h`, whichever is cheaper.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEAK = 0.01  # slope of leaky_relu for x < 0, as in torch


@dataclass(frozen=True)
class Activation:
    """One non-linearity.

    Attributes:
        function: x -> h, any shape.
        derivative: (x, h) -> dh/dx, the same shape.
        steepest: the largest |dh/dx|; a unit is called saturated where its slope is a small share of it.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    steepest: float = 1.0


def _gelu_derivative(x: Tensor, h: Tensor) -> Tensor:
    # x * Phi(x), so Phi(x) + x * phi(x) with the standard normal's distribution and density
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _silu_derivative(x: Tensor, h: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda x, h: 1 - h * h),
    "relu": Activation(F.relu, lambda x, h: (x > 0).to(x.dtype)),
    "leaky_relu": Activation(
        lambda x: F.leaky_relu(x, LEAK), lambda x, h: torch.where(x > 0, torch.ones_like(x), LEAK)
    ),
    "sigmoid": Activation(torch.sigmoid, lambda x, h: h * (1 - h), steepest=0.25),
    "gelu": Activation(F.gelu, _gelu_derivative, steepest=1.13),
    "silu": Activation(F.silu, _silu_derivative, steepest=1.1),
    "elu": Activation(F.elu, lambda x, h: torch.where(x > 0, torch.ones_like(x), h + 1)),
    # torch's softplus is the identity beyond 20, so its slope there is exactly 1
    "softplus": Activation(F.softplus, lambda x, h: torch.where(x > 20, 1.0, torch.sigmoid(x))),
    "sine": Activation(torch.sin, lambda x, h: torch.cos(x)),
    "identity": Activation(lambda x: x, lambda x, h: torch.ones_like(x)),
}
