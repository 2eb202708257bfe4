"""One layer of a stack: forward and backward into buffers that are made once.

Dense layers and activations have kernels that work in place and keep the bits of each run alone. Every other kind of
layer is computed by its own methods (nn/layers.py), with new tensors in every step.

Letters: R runs, B batch, I inputs, O outputs of the layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlpexp.engine.torch.matrix_products import Affine
from mlpexp.engine.torch.stack_activations import StackActivation, spans
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.layers import Activate, LayerSpec, Linear


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What a kernel is made from.

    Attributes:
        layers: of each run; one kind, equal ones are neighbours.
        parameters, gradients: by short name, (R, ...); no gradients for a pass that only goes forward.
        x: the input buffer, (R, B, I).
        x_gradient: the buffer of its derivative; None where none is needed.
        overwrites_x: nothing needs x after this layer's forward pass, other than this layer.
    """

    layers: Sequence[LayerSpec]
    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] | None
    x: Tensor
    x_gradient: Tensor | None
    overwrites_x: bool


class LinearKernel:
    """A dense layer.

    Attributes:
        output, output_gradient: the buffers of the output, (R, B, O), and of its derivative.
        reads_output: the backward pass reads the output.
    """

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        weight, bias = slot.parameters["weight"], slot.parameters["bias"]
        self.output = weight.new_empty(len(weight), slot.x.shape[1], weight.shape[1])
        self.output_gradient: Tensor | None = None
        outlets = None
        if slot.gradients is not None:
            self.output_gradient = torch.empty_like(self.output)
            outlets = (slot.gradients["weight"], slot.gradients["bias"], self.output_gradient, slot.x_gradient)
        product = Affine(weight, bias, slot.x, self.output, outlets)
        self.forward, self.backward = product.forward, product.backward


class ActivationKernel:
    """An activation, in place where its backward pass does not need the input; attributes as of `LinearKernel`."""

    reads_output = True

    def __init__(self, slot: Slot) -> None:
        names = [layer.name for layer in slot.layers if isinstance(layer, Activate)]
        in_place = slot.overwrites_x and not any(ACTIVATIONS[name].reads_input for name in set(names))
        self.output = slot.x if in_place else torch.empty_like(slot.x)
        self.output_gradient = slot.x_gradient
        kernel = StackActivation(names, slot.x, self.output, slot.x_gradient)
        self.forward, self.backward = kernel.forward, kernel.backward


class PlainKernel:
    """Any other layer, by its own methods; attributes as of `LinearKernel`."""

    reads_output = True

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._spans = spans(slot.layers)
        with torch.no_grad():
            shape = slot.layers[0].forward(_rows(slot.parameters, 0, 1), slot.x[:1]).shape
        self.output = slot.x.new_empty(len(slot.layers), *shape[1:])
        self.output_gradient = None if slot.gradients is None else torch.empty_like(self.output)

    def forward(self) -> None:
        for layer, a, b in self._spans:
            self.output[a:b].copy_(layer.forward(_rows(self._slot.parameters, a, b), self._slot.x[a:b]))

    def backward(self) -> None:
        slot = self._slot
        assert self.output_gradient is not None
        assert slot.gradients is not None
        for layer, a, b in self._spans:
            own = _rows(slot.parameters, a, b), slot.x[a:b], self.output[a:b], self.output_gradient[a:b]
            for name, gradient in layer.parameter_gradients(*own).items():
                slot.gradients[name][a:b].copy_(gradient)
            if slot.x_gradient is not None:
                slot.x_gradient[a:b].copy_(layer.input_gradient(*own))


Kernel = LinearKernel | ActivationKernel | PlainKernel
KERNELS: dict[type[LayerSpec], type[Kernel]] = {Linear: LinearKernel, Activate: ActivationKernel}


def make_kernel(slot: Slot) -> Kernel:
    """The kernel for the kind of the slot's layers."""
    return KERNELS.get(type(slot.layers[0]), PlainKernel)(slot)


def _rows(parameters: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    return {name: values[start:stop] for name, values in parameters.items()}
