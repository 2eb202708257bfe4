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
from typing import Literal, NamedTuple

from mlpexp.nn import dropout_masks
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.layers import Activate, Add, Dropout, Gate, LayerSpec, Linear
from mlpexp.nn.lazy_torch import Tensor
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.user_module import UserModule
from mlpexp.runtime.declared_options import Options


@dataclass(frozen=True)
class NetworkSpec:
    """The layers of a network from the inputs to the logits."""

    layers: tuple[LayerSpec, ...]

    @cached_property
    def names(self) -> tuple[dict[str, str], ...]:
        """For each layer, the full name of each of its tensors, e.g. `layers.0.weight` for `weight`."""
        count: Counter[str] = Counter()
        names = []
        for layer in self.layers:
            short = [*layer.shapes, *layer.buffers, *layer.noise]
            names.append({name: layer.full_name(count[layer.group], name) for name in short})
            count[layer.group] += 1
        return tuple(names)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of one run by its full name, in the order of the layers."""
        return {
            names[name]: shape
            for layer, names in zip(self.layers, self.names, strict=True)
            for name, shape in layer.shapes.items()
        }

    @cached_property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The same of parameters and running statistics, ordered by group as in the module's `state_dict`."""
        pairs = list(zip(self.layers, self.names, strict=True))
        return {
            names[name]: shape
            for group in dict.fromkeys(layer.group for layer in self.layers)
            for layer, names in pairs
            if layer.group == group
            for name, shape in (layer.shapes | layer.buffers).items()
        }

    @cached_property
    def stack_key(self) -> tuple[object, ...]:
        """The properties that must be equal for runs to share a stack."""
        return tuple(layer.stack_key for layer in self.layers)

    @cached_property
    def dropouts(self) -> list[tuple[int, Dropout]]:
        """The dropout layers with their places in `layers`."""
        return [(k, layer) for k, layer in enumerate(self.layers) if isinstance(layer, Dropout)]

    @cached_property
    def sources(self) -> frozenset[int]:
        """The places in `Trace.values` at which residual blocks begin."""
        return frozenset(layer.source for layer in self.layers if isinstance(layer, Add))

    @property
    def num_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def linear(self) -> list[tuple[int, Linear]]:
        """The dense layers with their places in `layers`."""
        return [(k, layer) for k, layer in enumerate(self.layers) if isinstance(layer, Linear)]

    @property
    def weight_names(self) -> list[str]:
        """The full names of the weight matrices of the layers."""
        return [self.names[k][name] for k, layer in enumerate(self.layers) for name in layer.matrices]

    @property
    def sizes(self) -> list[int]:
        """The number of inputs, then the units of each hidden layer and the outputs; of a user's module the ends."""
        if (module := self.user_module) is not None:
            return [module.inputs, module.outputs]
        linear = [layer for _, layer in self.linear]
        return [*(layer.inputs for layer in linear), linear[-1].outputs]

    @property
    def user_module(self) -> UserModule | None:
        """The user-defined module that is the whole network; None for mlpexp's networks."""
        first = self.layers[0]
        return first if isinstance(first, UserModule) else None

    @property
    def units(self) -> int:
        """Numbers that the dense layers, or the user's module, read and write for a sample."""
        if (module := self.user_module) is not None:
            return module.inputs + module.facts.units
        return sum(layer.inputs + layer.outputs for _, layer in self.linear)

    def layer_tensors(self, k: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of layer k, by their short names."""
        return {name: tensors[full] for name, full in self.names[k].items() if full in tensors}


def multilayer_perceptron(
    inputs: int,
    hidden: Sequence[int],
    classes: int,
    activation: str,
    *,
    value: float | Options | None = None,
    bias: bool = True,
    norm: str | None = None,
    norm_position: Literal["pre", "post"] = "pre",
    dropout: Sequence[float] = (),
    input_dropout: float = 0.0,
    block_depth: int | None = None,
) -> NetworkSpec:
    """Hidden layers, each dense, norm, activation, norm, dropout in this order, and a dense layer to the logits.

    Args:
        hidden: units of each hidden layer. With a gated activation the dense layer has two outputs for each of them.
        value: of the activation's own key, e.g. the negative slope of leaky_relu, or of its options.
        norm: a name in `NORMS`; `pre` is before the activation, `post` after it.
        dropout: the rate after each hidden layer; empty for none.
        block_depth: the hidden layers in a residual block, counted from the first; a block has a skip connection where
            it has as many inputs as outputs.
    """
    chunks, activate = (2, Gate) if ACTIVATIONS[activation].gated else (1, Activate)
    layers: list[LayerSpec] = [Dropout(inputs, input_dropout, 0)] if input_dropout else []
    begin, begin_units = len(layers), inputs  # of the present block
    for i, (fan_in, units) in enumerate(pairwise([inputs, *hidden]), 1):
        layers.append(Linear(fan_in, chunks * units, bias, chunks))
        if norm is not None and norm_position == "pre":
            layers.append(NORMS[norm](chunks * units))
        layers.append(activate(activation, value))
        if norm is not None and norm_position == "post":
            layers.append(NORMS[norm](units))
        if dropout and dropout[i - 1]:
            layers.append(Dropout(units, dropout[i - 1], i))
        if block_depth is not None and i % block_depth == 0:
            if units == begin_units:
                layers.append(Add(begin))
            begin, begin_units = len(layers), units
    return NetworkSpec((*layers, Linear(hidden[-1] if hidden else inputs, classes, bias)))


class Trace(NamedTuple):
    """The values of a forward pass that the backward pass reads: the inputs, then the output of each layer."""

    values: list[Tensor]

    @property
    def logits(self) -> Tensor:
        """(R, B, C)."""
        return self.values[-1]


class Gradients(NamedTuple):
    """The derivatives of a loss."""

    parameters: dict[str, Tensor]  # by full name, in the parameters' shapes
    outputs: list[Tensor]  # with respect to the output of each layer


def forward(network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor) -> Trace:
    """The output of every layer for `inputs` (R, B, I).

    Args:
        tensors: by full name, (R, ...): the parameters and, depending on what is computed, running statistics or masks
            (see `nn/layers.py`).
    """
    values = [inputs]
    for k, layer in enumerate(network.layers):
        values.append(layer.forward(_layer_arguments(network, k, tensors, values), values[-1]))
    return Trace(values)


def backward(network: NetworkSpec, tensors: Mapping[str, Tensor], trace: Trace, logits_gradient: Tensor) -> Gradients:
    """The chain rule by hand, from the logits to the inputs.

    Args:
        tensors: those of the forward pass.
        logits_gradient: the derivative of the loss with respect to the logits, (R, B, C).
    """
    gradients: dict[str, Tensor] = {}
    skipped: dict[int, Tensor] = {}  # what arrives at the beginning of a residual block past the block
    outputs = [logits_gradient]
    for k in reversed(range(len(network.layers))):
        layer = network.layers[k]
        arguments = (
            _layer_arguments(network, k, tensors, trace.values),
            trace.values[k],
            trace.values[k + 1],
            outputs[-1],
        )
        for name, gradient in layer.parameter_gradients(*arguments).items():
            gradients[network.names[k][name]] = gradient
        if isinstance(layer, Add):
            skipped[layer.source] = outputs[-1]
        if k > 0:
            gradient = layer.input_gradient(*arguments)
            outputs.append(gradient + skipped[k] if k in skipped else gradient)
    return Gradients({name: gradients[name] for name in network.shapes}, outputs[::-1])


def _layer_arguments(
    network: NetworkSpec, k: int, tensors: Mapping[str, Tensor], values: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The tensors that a layer's methods read; at the end of a residual block the skipped value is among them."""
    layer, tensors_of_layer = network.layers[k], network.layer_tensors(k, tensors)
    return tensors_of_layer | {"skip": values[layer.source]} if isinstance(layer, Add) else tensors_of_layer


def training_tensors(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, seed: int, epoch: int, step: int
) -> dict[str, Tensor]:
    """The tensors that one run's forward pass reads in a training step: the parameters, and the masks of this step.

    A batch of one sample has no statistics: it is normalised by the running statistics, which do not change.

    Args:
        tensors: parameters and running statistics by full name.
        inputs: (B, I).
        epoch, step: from 0; the step within the epoch.
    """
    names = network.tensors if len(inputs) == 1 else network.shapes
    step_tensors = {name: tensors[name] for name in names}
    for k, layer in network.dropouts:
        step_tensors[network.names[k]["mask"]] = dropout_masks.draw(layer, inputs, seed, epoch, step)
    return step_tensors


def update_statistics_(network: NetworkSpec, tensors: Mapping[str, Tensor], trace: Trace) -> None:
    """Move the running statistics towards those of a training step's batch, in place."""
    if trace.values[0].shape[-2] == 1:
        return
    for k, layer in enumerate(network.layers):
        if layer.buffers:
            layer.update_(network.layer_tensors(k, tensors), trace.values[k])
