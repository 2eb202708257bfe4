"""Derivatives and compiled forms of activations that take more than one line, for the entries in `activations.py`.

A derivative is (x, h) -> dh/dx of tensors. A compiled form makes function and derivative from the operations `v` of
`engine/compiled/elementary.py`.
"""

from __future__ import annotations

import math
from typing import Any

from mlpexp.nn.lazy_torch import F, Tensor, torch

LEAK = 0.01  # slope of leaky_relu for x < 0, torch's default
# of selu, Klambauer et al. 2017
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
SELU_STEEPEST = SELU_SCALE * SELU_ALPHA


def gelu_derivative(x: Tensor, h: Tensor) -> Tensor:
    # of x * Phi(x), so Phi(x) + x * phi(x) with the standard normal's distribution and density
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def silu_derivative(x: Tensor, h: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(x)
    return sigmoid * (1 + x * (1 - sigmoid))


def gelu_tanh_derivative(x: Tensor, h: Tensor) -> Tensor:
    # of x * (1 + tanh(u / 2)) / 2 = x * sigmoid(u), Hendrycks & Gimpel 2016; 1 - sigmoid(u) is sigmoid(-u)
    scale, cubic = math.sqrt(8 / math.pi), 0.044715
    sigmoid, complement = torch.sigmoid(u := scale * (x + cubic * x**3)), torch.sigmoid(-u)
    return sigmoid * (1 + x * complement * scale * (1 + 3 * cubic * x * x))


def mish_derivative(x: Tensor, h: Tensor) -> Tensor:
    slope = torch.tanh(F.softplus(x))
    return slope + x * (1 - slope**2) * torch.sigmoid(x)


def compiled_leaky_relu(v: Any) -> Any:
    return lambda x: v.where(x > 0.0, x, x * LEAK), lambda x, h: v.where(h > 0.0, 1.0, LEAK)


def compiled_elu(v: Any) -> Any:
    return lambda x: v.where(x > 0.0, x, v.expm1(x)), lambda x, h: v.where(h > 0.0, 1.0, h + 1.0)


def compiled_selu(v: Any) -> Any:
    return (
        lambda x: v.where(x > 0.0, x * SELU_SCALE, v.expm1(x) * SELU_STEEPEST),
        lambda x, h: v.where(h > 0.0, SELU_SCALE, h + SELU_STEEPEST),
    )


def compiled_mish(v: Any) -> Any:
    def derivative(x: Any, h: Any) -> Any:
        slope = v.tanh(v.softplus(x))
        return v.fma(x * (1.0 - slope * slope), v.sigmoid(x), slope)

    return lambda x: x * v.tanh(v.softplus(x)), derivative


def compiled_softsign(v: Any) -> Any:
    def derivative(x: Any, h: Any) -> Any:
        complement = 1.0 - v.absolute(h)
        return complement * complement

    return lambda x: x / (1.0 + v.absolute(x)), derivative


def compiled_gelu_tanh(v: Any) -> Any:
    scale, cubic = math.sqrt(8 / math.pi), 0.044715

    def derivative(x: Any, h: Any) -> Any:
        sigmoid = v.sigmoid(x * v.fma(x * x, scale * cubic, scale))
        return sigmoid * v.fma(x * (1.0 - sigmoid), v.fma(x * x, 3.0 * scale * cubic, scale), 1.0)

    return lambda x: x * v.sigmoid(x * v.fma(x * x, scale * cubic, scale)), derivative
