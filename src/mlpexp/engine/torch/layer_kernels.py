"""One layer of a stack: forward and backward into buffers that are made once.

The kinds of this project have kernels that keep the bits of each run alone. Every other kind of layer is computed by
its own methods (nn/layers.py), with new tensors in every step.

Letters: R runs, B batch, I inputs, O outputs of the layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mlpexp.engine.torch.matrix_products import Affine
from mlpexp.engine.torch.norm_kernels import BatchNormKernel, LayerNormKernel, NormKernel, RmsNormKernel
from mlpexp.engine.torch.slot import Slot
from mlpexp.engine.torch.stack_activations import StackActivation, spans
from mlpexp.nn.dropout_masks import Masks
from mlpexp.nn.layers import Activate, Add, Dropout, Gate, LayerSpec, Linear
from mlpexp.nn.normalisation import BatchNorm, LayerNorm, RmsNorm


class LinearKernel:
    """A dense layer.

    Attributes:
        output, output_gradient: the buffers of the output, (R, B, O), and of its derivative.
        reads_output: the backward pass reads the output.
    """

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        weight, bias = slot.parameters["weight"], slot.parameters.get("bias")
        self.output = weight.new_empty(len(weight), slot.x.shape[1], weight.shape[1])
        self.output_gradient: Tensor | None = None
        outlets = None
        if slot.gradients is not None:
            self.output_gradient = torch.empty_like(self.output)
            outlets = (slot.gradients["weight"], slot.gradients.get("bias"), self.output_gradient, slot.x_gradient)
        product = Affine(weight, bias, slot.x, self.output, outlets)
        self.forward, self.backward = product.forward, product.backward


class ActivationKernel:
    """An activation, in place where its backward pass does not need the input; attributes as of `LinearKernel`."""

    reads_output = True

    def __init__(self, slot: Slot) -> None:
        layers = [layer for layer in slot.layers if isinstance(layer, Activate)]
        in_place = slot.overwrites_x and not any(layer.entry.reads_input for layer in set(layers))
        self.output = slot.x if in_place else torch.empty_like(slot.x)
        self.output_gradient = slot.x_gradient
        kernel = StackActivation(layers, slot.x, self.output, slot.x_gradient)
        self.forward, self.backward = kernel.forward, kernel.backward


class GateKernel:
    """A gated activation: the first half of the units times the function of the second.

    Attributes as of `LinearKernel`.

    The second half is copied, so that the activation's kernels see the tensor that a run alone gives to torch.
    """

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        layers = [layer for layer in slot.layers if isinstance(layer, Gate)]
        self._u, self._v = slot.x.chunk(2, -1)
        self._argument = torch.empty_like(self._v, memory_format=torch.contiguous_format)
        keeps_argument = any(layer.entry.reads_input for layer in set(layers))
        self._gate = torch.empty_like(self._argument) if keeps_argument else self._argument
        self.output = torch.empty_like(self._gate)
        self.output_gradient: Tensor | None = None
        gradient: Tensor | None = None
        if slot.gradients is not None:
            assert slot.x_gradient is not None
            self.output_gradient, gradient = torch.empty_like(self.output), torch.empty_like(self._gate)
            self._u_gradient, self._v_gradient = slot.x_gradient.chunk(2, -1)
            self._gate_gradient = gradient
        self._activation = StackActivation(layers, self._argument, self._gate, gradient)

    def forward(self) -> None:
        self._argument.copy_(self._v)
        self._activation.forward()
        torch.mul(self._u, self._gate, out=self.output)

    def backward(self) -> None:
        assert self.output_gradient is not None
        torch.mul(self.output_gradient, self._gate, out=self._u_gradient)
        torch.mul(self.output_gradient, self._u, out=self._gate_gradient)
        self._activation.backward()  # may overwrite the gate
        self._v_gradient.copy_(self._gate_gradient)


class DropoutKernel:
    """Dropout: in training a product with the masks; attributes as of `LinearKernel`.

    Attributes:
        masks: to be drawn before each training step; None in an evaluation.
    """

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        self.output, self.output_gradient = slot.x, slot.x_gradient
        self._x, self.masks = slot.x, None
        if slot.gradients is not None:
            layers = [layer for layer in slot.layers if isinstance(layer, Dropout)]
            self.output = slot.x.new_empty(slot.x.shape)
            values = torch.empty_like(self.output)
            self.masks = Masks([layer.rate for layer in layers], slot.seeds, layers[0].stream, values)

    def forward(self) -> None:
        if self.masks is not None:
            torch.mul(self._x, self.masks.values, out=self.output)

    def backward(self) -> None:
        assert self.masks is not None
        if self.output_gradient is not None:  # None for the inputs
            self.output_gradient.mul_(self.masks.values)


class AddKernel:
    """The end of a residual block; attributes as of `LinearKernel`.

    Attributes:
        skip_gradient: the derivative with respect to the skipped value, past the block; written by `backward`.
    """

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        assert slot.skip is not None
        self._x, self._skip = slot.x, slot.skip
        self.output = torch.empty_like(slot.x, memory_format=torch.contiguous_format)
        self.output_gradient = slot.x_gradient
        self.skip_gradient = None if slot.gradients is None else torch.empty_like(self.output)

    def forward(self) -> None:
        torch.add(self._x, self._skip, out=self.output)

    def backward(self) -> None:
        assert self.output_gradient is not None
        assert self.skip_gradient is not None
        self.skip_gradient.copy_(self.output_gradient)


class PlainKernel:
    """Any other layer, by its own methods; attributes as of `LinearKernel`."""

    reads_output = True

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._spans = spans(slot.layers)
        # running statistics are for evaluation
        names = slot.layers[0].shapes if slot.gradients is not None else slot.parameters
        self._parameters = {name: slot.parameters[name] for name in names}
        with torch.no_grad():
            shape = slot.layers[0].forward(_rows(self._parameters, 0, 1), slot.x[:1]).shape
        self.output = slot.x.new_empty(len(slot.layers), *shape[1:])
        self.output_gradient = None if slot.gradients is None else torch.empty_like(self.output)

    def forward(self) -> None:
        for layer, a, b in self._spans:
            x = self._slot.x[a:b]
            self.output[a:b].copy_(layer.forward(_rows(self._parameters, a, b), x))
            if layer.buffers and self._slot.gradients is not None:
                layer.update_(_rows(self._slot.parameters, a, b), x)

    def backward(self) -> None:
        slot = self._slot
        assert self.output_gradient is not None
        assert slot.gradients is not None
        for layer, a, b in self._spans:
            arguments = _rows(self._parameters, a, b), slot.x[a:b], self.output[a:b], self.output_gradient[a:b]
            for name, gradient in layer.parameter_gradients(*arguments).items():
                slot.gradients[name][a:b].copy_(gradient)
            if slot.x_gradient is not None:
                slot.x_gradient[a:b].copy_(layer.input_gradient(*arguments))


Norm = LayerNormKernel | BatchNormKernel | RmsNormKernel
Kernel = LinearKernel | ActivationKernel | GateKernel | DropoutKernel | AddKernel | Norm | PlainKernel
KERNELS: dict[type[LayerSpec], type[Kernel]] = {
    Linear: LinearKernel,
    Activate: ActivationKernel,
    Gate: GateKernel,
    Dropout: DropoutKernel,
    Add: AddKernel,
    LayerNorm: LayerNormKernel,
    BatchNorm: BatchNormKernel,
    RmsNorm: RmsNormKernel,
}


def make_kernel(slot: Slot) -> Kernel:
    """The kernel for the kind of the slot's layers.

    On a GPU normalisations are computed by their own methods, for all runs at once: run by run they took 60 times as
    long as the rest of a step (256 runs, H200). A batch of one, which batch normalisation treats in its own way, is
    left to the kernel.
    """
    kind = KERNELS.get(type(slot.layers[0]), PlainKernel)
    if issubclass(kind, NormKernel) and slot.x.device.type != "cpu" and slot.x.shape[1] > 1:
        kind = PlainKernel
    return kind(slot)


def _rows(parameters: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """The parameters of the runs start..stop."""
    return {name: values[start:stop] for name, values in parameters.items()}
