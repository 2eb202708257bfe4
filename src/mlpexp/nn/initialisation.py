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
        bounds: where all values are uniform: (I, O) -> bound of the weight, and I -> bound of the bias, or None for a
            bias of zero; they are what `weight` and `bias` draw from.
    """

    weight: Callable[[Tensor, Generator, float], object]
    bias: Callable[[Tensor, int, Generator, float], object] | None = None
    keys: tuple[str, ...] = ()
    scales_with_fan_in: bool = False
    bounds: tuple[Callable[[int, int], float], Callable[[int], float] | None] | None = None


def _uniform(
    weight_bound: Callable[[int, int], float],
    bias_bound: Callable[[int], float] | None = None,
    *,
    scales_with_fan_in: bool = False,
) -> Initialiser:
    def draw_bias(bias: Tensor, fan_in: int, generator: Generator, _: float) -> None:
        assert bias_bound is not None
        _fill(bias, bias_bound(fan_in), generator)

    return Initialiser(
        weight=lambda weight, generator, _: _fill(weight, weight_bound(*weight.shape[::-1]), generator),
        bias=None if bias_bound is None else draw_bias,
        scales_with_fan_in=scales_with_fan_in,
        bounds=(weight_bound, bias_bound),
    )


def _fill(values: Tensor, bound: float, generator: Generator) -> None:
    # not `init.uniform_`, which takes twice as long: a stack initialises thousands of small networks
    values.uniform_(-bound, bound, generator=generator)


def _by_fan_in(fan_in: int, *_: int) -> float:
    return 1 / math.sqrt(fan_in)


@lru_cache
def _as_torch_does(fan_in: int, *_: int) -> float:
    """The bound of `init.kaiming_uniform_(weight, a=math.sqrt(5))`."""
    return math.sqrt(3.0) * (init.calculate_gain("leaky_relu", math.sqrt(5)) / math.sqrt(fan_in))


INITIALISERS: Registry[Initialiser] = Registry(
    "init",
    {
        # what nn.Linear.reset_parameters does, in its order
        "torch": _uniform(_as_torch_does, _by_fan_in, scales_with_fan_in=True),
        # the notebook draws (inputs, outputs); here rows are outputs
        "notebook": Initialiser(
            weight=lambda weight, generator, _: weight.copy_(torch.randn(weight.shape[::-1], generator=generator).mT)
        ),
        # Glorot & Bengio 2010: equation 1, the "standard initialization" of its time, and equation 16, with gain 1
        "fan_in_uniform": _uniform(_by_fan_in, scales_with_fan_in=True),
        "xavier_uniform": _uniform(lambda fan_in, fan_out: math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + fan_out))),
        "xavier_normal": Initialiser(
            weight=lambda weight, generator, _: init.xavier_normal_(weight, generator=generator)
        ),
        # He et al. 2015, equation 10: gain sqrt(2), whatever the activation
        "kaiming_uniform": _uniform(
            lambda fan_in, _: math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(fan_in)), scales_with_fan_in=True
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


def uniform_bounds(network: NetworkSpec, settings: InitialSettings) -> dict[str, float] | None:
    """The bound of the distribution of each parameter by name, in the order in which `initialise` draws them.

    A bound of 0 is that of a parameter that is zero and not drawn. None where not all are uniform, or where a layer has
    initial values of its own. Factors of the parametrisation come later.
    """
    bounds = INITIALISERS.entry_with(settings.init, settings.options).bounds
    others = [layer for layer in network.layers if not isinstance(layer, Linear)]
    if bounds is None or any(layer.shapes or layer.buffers for layer in others):
        return None
    weight_bound, bias_bound = bounds
    result: dict[str, float] = {}
    for names, layer in zip(network.names, network.layers, strict=True):
        if isinstance(layer, Linear):
            result[names["weight"]] = weight_bound(layer.inputs, layer.outputs // layer.chunks)
            if layer.bias:
                result[names["bias"]] = 0.0 if bias_bound is None else bias_bound(layer.inputs)
    return result
