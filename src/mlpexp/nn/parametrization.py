"""Initial weights and learning rates as functions of the width: the standard rule, or maximal update (muP).

In the standard parametrization the update of a layer's outputs grows with the width, so that the best learning
rate depends on it. In muP it does not, and the best rate of a narrow network is that of a wide one. The scalings are
those of Yang et al. 2022, "Tensor Programs V", table 3, which needs no multipliers in the forward pass. With m the
width of a layer over `base_width`:

    weight           initial deviation    rate, sgd      rate, adam and adamw
    inputs           1                    m_out          1
    hidden           1                    m_out / m_in   1 / m_in
    logits           1 / sqrt(m_in)       1 / m_in       1 / m_in
    biases           sqrt(m_in)           m_out          1
    norms            1                    m_out          1

These multiply what the initialisation and `optimizer.lr` give, so that at the base width nothing changes. Biases: an
initialisation that draws them by their fan-in would let them vanish in wide networks. Norms: a factor and a shift per
unit are vectors over the width, as biases are, and start at 1 and 0.

Weight decay is divided by a rate's factor, so that the product of rate and decay, by which sgd and adamw shrink a
weight in a step, does not depend on the width. For these two that is what microsoft/mup does. For adam, whose decay
is a part of the gradient (coupled L2), it is the same in every layer but the last: microsoft/mup leaves the decay of
the logits' weight alone and divides the logits by m_in instead, which in the parametrization used here is a decay
multiplied by m_in squared, where this module multiplies by m_in. Neither keeps the balance of penalty and gradient
over widths, because adam normalises their sum. Use adamw to transfer a weight decay between widths.
"""

import math
from collections.abc import Iterator
from typing import Protocol

from mlpexp.nn.layers import Linear
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.normalisation import Norm
from mlpexp.nn.optimizers import OPTIMIZERS

PARAMETRIZATIONS = ("standard", "mup")


class WidthSettings(Protocol):
    """The settings of a parametrization; `ModelConfig` has them."""

    @property
    def parametrization(self) -> str: ...
    @property
    def base_width(self) -> int: ...


class StepSettings(Protocol):
    """The settings of the rates and decays of parameters; `OptimizerConfig` has them."""

    @property
    def name(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def decay(self) -> str | None: ...
    @property
    def decay_bias(self) -> bool: ...


def initial_factors(settings: WidthSettings, network: NetworkSpec) -> dict[str, float] | None:
    """The factor of each initial parameter by name; None where nothing changes."""
    if (scales := _width_scales(settings, network)) is None:
        return None
    factors = {}
    for name, i, kind in _roles(network):
        logits_factor = 1 / math.sqrt(scales[i]) if i == len(scales) - 2 else 1.0
        factors[name] = {"weight": logits_factor, "bias": math.sqrt(scales[i]), "norm": 1.0}[kind]
    return factors


def rate_factors(settings: WidthSettings, optimizer: str, network: NetworkSpec) -> dict[str, float] | None:
    """The factor of each parameter's learning rate by name; None where nothing changes."""
    if (scales := _width_scales(settings, network)) is None:
        return None
    if (adaptive := OPTIMIZERS[optimizer].is_adaptive) is None:
        raise ValueError(f"muP has no rule for the optimizer {optimizer}")
    factors = {}
    for name, i, kind in _roles(network):
        m_in, m_out = scales[i], scales[i + 1]
        matrix = 1 / m_in if adaptive else m_out / m_in
        vector = 1.0 if adaptive else m_out
        factors[name] = {"weight": matrix, "bias": vector, "norm": vector}[kind]
    return factors


def parameter_settings(
    model: WidthSettings, optimizer: StepSettings, network: NetworkSpec
) -> dict[str, tuple[float, float]] | None:
    """Learning rate before its schedule and weight decay of each parameter, by name; None where all are alike."""
    rule = OPTIMIZERS[optimizer.name]
    scales = rate_factors(model, optimizer.name, network)
    skips_vectors = not optimizer.decay_bias and optimizer.weight_decay > 0
    special_rates = rule.own_rates(optimizer, network)
    if scales is None and not skips_vectors and not special_rates:
        return None
    settings_by_name = {}
    for name, shape in network.shapes.items():
        factor = 1.0 if scales is None else scales[name]
        decay = optimizer.weight_decay / factor if optimizer.decay_bias or len(shape) > 1 else 0.0
        settings_by_name[name] = special_rates.get(name, optimizer.lr * factor), decay
    return settings_by_name


def is_decoupled(optimizer: StepSettings) -> bool:
    """Whether the decay shrinks the parameters themselves, instead of adding to the gradient."""
    return OPTIMIZERS[optimizer.name].decoupled_decay if optimizer.decay is None else optimizer.decay == "decoupled"


def has_own_decay(optimizer: StepSettings) -> bool:
    """Whether torch's class applies the decay; otherwise it is of the other kind."""
    rule = OPTIMIZERS[optimizer.name]
    return rule.has_decay and is_decoupled(optimizer) == rule.decoupled_decay


def _roles(network: NetworkSpec) -> Iterator[tuple[str, int, str]]:
    """Name, layer number and kind (weight, bias, norm) of each parameter; a norm has the number of the layer below."""
    i = -1
    for layer, names in zip(network.layers, network.names, strict=True):
        if isinstance(layer, Linear):
            i += 1
            yield from ((names[short], i, short) for short in layer.shapes)
        elif isinstance(layer, Norm):
            yield from ((names[short], i, "norm") for short in layer.shapes)
        elif layer.shapes:
            raise ValueError(f"muP has no rule for the parameters of {type(layer).__name__}")


def _width_scales(settings: WidthSettings, network: NetworkSpec) -> list[float] | None:
    """Width over base width of inputs, hidden layers and classes, where the ends do not grow; None if standard."""
    match settings.parametrization:
        case "standard":
            return None
        case "mup":
            return [1.0, *(width / settings.base_width for width in network.sizes[1:-1]), 1.0]
    raise ValueError(
        f"unknown parametrization {settings.parametrization!r}; choose one of {', '.join(PARAMETRIZATIONS)}"
    )
