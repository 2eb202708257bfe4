"""Initial weights: a pure function of the seed and the architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mlpexp.nn.layers import Linear
from mlpexp.nn.lazy_torch import Generator, Tensor, init, torch
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.parametrization import WidthSettings, initial_factors
from mlpexp.runtime.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Initialiser:
    """One rule for initial weights and biases.

    Attributes:
        weight: (weight (O, I), generator, sigma_w) fills the weight in place.
        bias: (bias (O,), fan-in I, generator, sigma_b) fills the bias in place; None leaves it zero.
        keys: of the model's configuration that only this rule reads.
        scales_with_fan_in: the weight's variance is a constant over I, which muP requires.
    """

    weight: Callable[[Tensor, Generator, float], object]
    bias: Callable[[Tensor, int, Generator, float], object] | None = None
    keys: tuple[str, ...] = ()
    scales_with_fan_in: bool = False


def _uniform_by_fan_in(values: Tensor, fan_in: int, generator: Generator) -> None:
    # not `init.uniform_`, which takes twice as long: a stack initialises thousands of small networks
    values.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)


def _as_torch_does(weight: Tensor, generator: Generator) -> None:
    """`init.kaiming_uniform_(weight, a=math.sqrt(5))`, whose bound is computed once."""
    bound = _torch_bound(weight.shape[-1])
    weight.uniform_(-bound, bound, generator=generator)


@lru_cache
def _torch_bound(fan_in: int) -> float:
    return math.sqrt(3.0) * (init.calculate_gain("leaky_relu", math.sqrt(5)) / math.sqrt(fan_in))


INITIALISERS: Registry[Initialiser] = Registry(
    "init",
    {
        # what nn.Linear.reset_parameters does, in its order
        "torch": Initialiser(
            weight=lambda weight, generator, _: _as_torch_does(weight, generator),
            bias=lambda bias, fan_in, generator, _: _uniform_by_fan_in(bias, fan_in, generator),
            scales_with_fan_in=True,
        ),
        # the notebook draws (inputs, outputs); here rows are outputs
        "notebook": Initialiser(
            weight=lambda weight, generator, _: weight.copy_(torch.randn(weight.shape[::-1], generator=generator).mT)
        ),
        # Glorot & Bengio 2010: equation 1, the "standard initialization" of its time, and equation 16, with gain 1
        "fan_in_uniform": Initialiser(
            weight=lambda weight, generator, _: _uniform_by_fan_in(weight, weight.shape[-1], generator),
            scales_with_fan_in=True,
        ),
        "xavier_uniform": Initialiser(
            weight=lambda weight, generator, _: init.xavier_uniform_(weight, generator=generator)
        ),
        "xavier_normal": Initialiser(
            weight=lambda weight, generator, _: init.xavier_normal_(weight, generator=generator)
        ),
        # He et al. 2015, equation 10: gain sqrt(2), whatever the activation
        "kaiming_uniform": Initialiser(
            weight=lambda weight, generator, _: init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator),
            scales_with_fan_in=True,
        ),
        "kaiming_normal": Initialiser(
            weight=lambda weight, generator, _: init.kaiming_normal_(weight, nonlinearity="relu", generator=generator),
            scales_with_fan_in=True,
        ),
        # Saxe et al. 2014
        "orthogonal": Initialiser(weight=lambda weight, generator, _: init.orthogonal_(weight, generator=generator)),
        # Poole et al. 2016, "Exponential expressivity in deep neural networks", section 2
        "scaled_normal": Initialiser(
            weight=lambda weight, generator, sigma_w: init.normal_(
                weight, 0.0, sigma_w / math.sqrt(weight.shape[-1]), generator=generator
            ),
            bias=lambda bias, _, generator, sigma_b: init.normal_(bias, 0.0, sigma_b, generator=generator),
            keys=("sigma_w", "sigma_b"),
            scales_with_fan_in=True,
        ),
    },
)


class InitialSettings(WidthSettings, Protocol):
    """The settings of initial values; `ModelConfig` has them."""

    @property
    def init(self) -> str: ...
    @property
    def sigma_w(self) -> float: ...
    @property
    def sigma_b(self) -> float: ...
    @property
    def options(self) -> Mapping[str, object]: ...


def initialise(network: NetworkSpec, settings: InitialSettings, seed: int) -> dict[str, Tensor]:
    """The initial parameters and running statistics of a network by name, float32.

    The values are drawn from a new generator; torch's global generator is not changed. With init=torch they equal those
    of `nn.Linear` modules after `torch.manual_seed(seed)`.
    """
    parameters = {name: torch.empty(shape) for name, shape in network.tensors.items()}
    initialise_(parameters, network, settings, seed)
    return parameters


def initialise_(parameters: Mapping[str, Tensor], network: NetworkSpec, settings: InitialSettings, seed: int) -> None:
    """The same, into existing float32 CPU tensors, such as one run's slices of a stack."""
    initialiser, generator = (
        INITIALISERS.entry_with(settings.init, settings.options),
        torch.Generator().manual_seed(seed),
    )
    with torch.no_grad():
        for k, layer in enumerate(network.layers):
            tensors = network.layer_tensors(k, parameters)
            if not isinstance(layer, Linear):
                layer.initialise_(tensors, generator)
                continue
            for weight in tensors["weight"].chunk(layer.chunks):
                initialiser.weight(weight, generator, settings.sigma_w)
            if not layer.bias:
                continue
            if initialiser.bias is None:
                init.zeros_(tensors["bias"])
            else:
                for bias in tensors["bias"].chunk(layer.chunks):
                    initialiser.bias(bias, layer.inputs, generator, settings.sigma_b)
        for name, factor in (initial_factors(settings, network) or {}).items():
            parameters[name].mul_(factor)
