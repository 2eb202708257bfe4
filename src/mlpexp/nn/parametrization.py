"""How initial weights and learning rates follow the width: the standard way, or maximal update (muP).

In the standard parametrization the update of a layer's outputs grows with the width, so that the best learning
rate moves; in muP every layer learns at a rate that no longer depends on it, and the best rate of a narrow network
is that of a wide one. The scalings are those of Yang et al. 2022, "Tensor Programs V", table 3, which needs no
multipliers in the forward pass. With m the width of a layer over `base_width`:

    weight           initial deviation    rate, sgd      rate, adam and adamw
    inputs           1                    m_out          1
    hidden           1                    m_out / m_in   1 / m_in
    logits           1 / sqrt(m_in)       1 / m_in       1 / m_in
    biases           sqrt(m_in)           m_out          1

beside what the initialisation and `optimizer.lr` say, so that at the base width nothing changes. Biases: an
initialisation that draws them by their fan-in would let them vanish in wide networks. `weight_decay` is divided by
a rate's factor, as in the authors' own code: the product of both is what shrinks a weight.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from mlpexp.nn.optimizers import OPTIMIZERS

PARAMETRIZATIONS = ("standard", "mup")


class Factors(NamedTuple):
    """What a layer's weight and bias, or their learning rates, are multiplied by."""

    weight: float
    bias: float


class WidthSettings(Protocol):
    """What a parametrization reads of the configuration (`ModelConfig` has it)."""

    @property
    def parametrization(self) -> str: ...
    @property
    def base_width(self) -> int: ...


def initial_factors(model: WidthSettings, sizes: Sequence[int]) -> list[Factors] | None:
    """Of the initial values of each layer; None where nothing changes.

    Args:
        sizes: units of inputs, hidden layers, classes.
    """
    scales = _width_scales(model, sizes)
    if scales is None:
        return None
    last = len(sizes) - 2
    return [
        Factors(1 / math.sqrt(scales[i]) if i == last else 1.0, math.sqrt(scales[i])) for i in range(len(sizes) - 1)
    ]


def rate_factors(model: WidthSettings, optimizer: str, sizes: Sequence[int]) -> list[Factors] | None:
    """Of the learning rates of each layer; None where nothing changes."""
    scales = _width_scales(model, sizes)
    if scales is None:
        return None
    if OPTIMIZERS[optimizer].is_adaptive:
        return [Factors(1 / m_in, 1.0) for m_in, _ in pairwise(scales)]
    return [Factors(m_out / m_in, m_out) for m_in, m_out in pairwise(scales)]


def _width_scales(model: WidthSettings, sizes: Sequence[int]) -> list[float] | None:
    """Width over base width of each layer, where inputs and classes do not grow; None for the standard one."""
    match model.parametrization:
        case "standard":
            return None
        case "mup":
            return [1.0, *(width / model.base_width for width in sizes[1:-1]), 1.0]
    raise ValueError(f"unknown parametrization {model.parametrization!r}; choose one of {', '.join(PARAMETRIZATIONS)}")
