"""A network as data, and its forward and backward pass by hand.

The description drives everything that has to know the layers: the module of torch, the two implementations by hand,
the stacked engines, initial values, diagnostics, gradient check, checkpoints and the count of parameters.

Letters: R runs (the axis may be absent), B batch, I inputs, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from mlpexp.nn.layers import Activate, LayerSpec, Linear

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NetworkSpec:
    """The layers of a network from the inputs to the logits."""

    layers: tuple[LayerSpec, ...]

    @cached_property
    def names(self) -> tuple[dict[str, str], ...]:
        """For each layer, the full name of each of its parameters, e.g. `layers.0.weight` for `weight`."""
        count: Counter[str] = Counter()
        found = []
        for layer in self.layers:
            found.append({name: f"{layer.group}.{count[layer.group]}.{name}" for name in layer.shapes})
            count[layer.group] += 1
        return tuple(found)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of one run by its full name, in the order of the layers."""
        return {
            names[name]: shape
            for layer, names in zip(self.layers, self.names, strict=True)
            for name, shape in layer.shapes.items()
        }

    @property
    def num_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def linear(self) -> list[tuple[int, Linear]]:
        """The dense layers with their places in `layers`."""
        return [(k, layer) for k, layer in enumerate(self.layers) if isinstance(layer, Linear)]

    @property
    def sizes(self) -> list[int]:
        """The number of inputs, then the units of each dense layer."""
        linear = [layer for _, layer in self.linear]
        return [linear[0].inputs, *(layer.outputs for layer in linear)]

    def of_layer(self, k: int, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of one layer by their short names."""
        return {name: parameters[full] for name, full in self.names[k].items()}


def multilayer_perceptron(inputs: int, hidden: Sequence[int], classes: int, activation: str) -> NetworkSpec:
    """Dense layers with an activation between them; without hidden layers a linear classifier."""
    layers: list[LayerSpec] = []
    for fan_in, units in pairwise([inputs, *hidden]):
        layers += [Linear(fan_in, units), Activate(activation)]
    return NetworkSpec((*layers, Linear(hidden[-1] if hidden else inputs, classes)))


class Trace(NamedTuple):
    """What a forward pass leaves for the backward pass: the inputs, then the output of each layer."""

    values: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """(R, B, C)."""
        return self.values[-1]


class Gradients(NamedTuple):
    """The derivatives of a loss."""

    parameters: dict[str, Tensor]  # by full name, in the parameters' shapes
    outputs: list[Tensor]  # with respect to the output of each layer


def forward(network: NetworkSpec, parameters: Mapping[str, Tensor], inputs: Tensor) -> Trace:
    """The output of every layer for `inputs` (R, B, I).

    Args:
        parameters: by full name, (R, ...).
    """
    values = [inputs]
    for k, layer in enumerate(network.layers):
        values.append(layer.forward(network.of_layer(k, parameters), values[-1]))
    return Trace(values)


def backward(
    network: NetworkSpec, parameters: Mapping[str, Tensor], trace: Trace, logits_gradient: Tensor
) -> Gradients:
    """The chain rule by hand, from the logits to the inputs.

    Args:
        logits_gradient: the derivative of the loss with respect to the logits, (R, B, C).
    """
    found: dict[str, Tensor] = {}
    outputs = [logits_gradient]
    for k in reversed(range(len(network.layers))):
        layer = network.layers[k]
        arguments = network.of_layer(k, parameters), trace.values[k], trace.values[k + 1], outputs[-1]
        for name, gradient in layer.parameter_gradients(*arguments).items():
            found[network.names[k][name]] = gradient
        if k > 0:
            outputs.append(layer.input_gradient(*arguments))
    return Gradients({name: found[name] for name in network.shapes}, outputs[::-1])
