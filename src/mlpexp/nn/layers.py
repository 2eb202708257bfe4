"""The kinds of layers: each defines its parameters, its module of torch, and its forward and backward pass by hand.

A layer of a stack has a leading run axis in all tensors; parameters and values of one run have none. A new kind is a
class here or in another module (`normalisation.py`). The torch engine has kernels for the kinds of this project,
and calls the methods of any other kind as they are.

Some kinds behave differently in training. The tensors that are passed to the methods distinguish the cases:

    evaluation          parameters and running statistics
    a training step     parameters and masks; the running statistics stay out
    gradient check, diagnostics    parameters, masks if there are any

Letters: R runs (the axis may be absent), B batch, I inputs, O outputs of a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from mlpexp.nn.activations import ACTIVATIONS, Activation
from mlpexp.nn.lazy_torch import Generator, Tensor, nn, torch
from mlpexp.runtime.declared_options import Options


class LayerSpec(ABC):
    """One layer as data: hashable, and equal to another one with the same fields.

    Class attributes:
        group: the attribute of the network's module that lists the layers of this kind, so that their parameters are
            named `{group}.{i}.{parameter}`; empty for kinds without tensors.
        noise: the names of tensors that are drawn in each training step.
    """

    group: ClassVar[str] = ""
    noise: ClassVar[tuple[str, ...]] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name, in the order of torch's module."""
        return {}

    @property
    def buffers(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor that training changes without a gradient, such as running statistics, by name."""
        return {}

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the weight matrices, (O, I)."""
        return ()

    def full_name(self, number: int, name: str) -> str:
        """The name of a tensor in a network of which this is the layer `number` of its group."""
        return f"{self.group}.{number}.{name}"

    @property
    def stack_key(self) -> object:
        """The properties that must be equal for runs to share a stack; by default the whole layer."""
        return self

    def initialise_(self, parameters: Mapping[str, Tensor], generator: Generator) -> None:
        """Write the initial values into one run's tensors; those of dense layers are chosen by `model.init`."""
        if self.shapes or self.buffers:
            raise NotImplementedError(f"{type(self).__name__} has parameters, but no initial values")

    def update_(self, tensors: Mapping[str, Tensor], x: Tensor) -> None:
        """Change the buffers after a training step's forward pass of `x`, in place."""
        raise NotImplementedError(f"{type(self).__name__} has buffers, but no rule for them")

    @abstractmethod
    def module(self) -> Callable[[Tensor], Tensor]:
        """Torch's own layer, (B, I) -> (B, O): an `nn.Module`, or a function where there are no parameters."""

    @abstractmethod
    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The layer's output, (R, B, I) -> (R, B, O)."""

    @abstractmethod
    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        """The derivative of the loss with respect to the input, (R, B, I).

        Args:
            x, h: input and output of the forward pass.
            gradient: the derivative with respect to the output, (R, B, O).
        """

    def parameter_gradients(
        self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        """The derivatives with respect to the parameters, by their short names; arguments as of `input_gradient`."""
        return {}


@dataclass(frozen=True)
class Linear(LayerSpec):
    """A dense layer, h = x W' + b with W (R, O, I) and b (R, O), or without b.

    Attributes:
        chunks: the number of dense layers, with O / chunks outputs each, that read the same inputs and stand one below
            the other in W; each is initialised by itself.
    """

    inputs: int
    outputs: int
    bias: bool = True
    chunks: int = field(default=1, repr=False)
    group: ClassVar[str] = "layers"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.outputs, self.inputs)} | ({"bias": (self.outputs,)} if self.bias else {})

    @property
    def matrices(self) -> tuple[str, ...]:
        return ("weight",)

    def module(self) -> nn.Linear:
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, self.inputs, self.outputs, bias=self.bias)
        return linear

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        h = x @ parameters["weight"].mT
        return h + parameters["bias"].unsqueeze(-2) if self.bias else h

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient @ parameters["weight"]

    def parameter_gradients(
        self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        # of each weight: its input times the derivative of its output, summed over the batch
        return {"weight": gradient.mT @ x} | ({"bias": gradient.sum(-2)} if self.bias else {})


@dataclass(frozen=True)
class Activate(LayerSpec):
    """An activation, elementwise.

    Attributes:
        name: of its entry.
        value: of the entry's key, e.g. the negative slope of leaky_relu, or of its options; None for the defaults.
    """

    name: str
    value: float | Options | None = None

    @property
    def entry(self) -> Activation:
        if isinstance(self.value, Options):
            return ACTIVATIONS.entry_with(self.name, self.value)
        entry = ACTIVATIONS[self.name]
        return entry if self.value is None else entry.with_value(self.value)

    @property
    def stack_key(self) -> object:
        return type(self)

    def module(self) -> Callable[[Tensor], Tensor]:
        return self.entry.function

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self.entry.function(x)

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient * self.entry.derivative(x, h)

    def argument(self, x: Tensor) -> Tensor:
        """That of the entry's function, where the layer's input is x."""
        return x

    def slope(self, x: Tensor, h: Tensor) -> Tensor:
        """The derivative of the entry's function at that argument; h is the layer's output."""
        return self.entry.derivative(x, h)


@dataclass(frozen=True)
class Gate(Activate):
    """A gated activation, h = u * f(v) with u and v the two halves of the input, (R, B, 2 O) -> (R, B, O)."""

    def module(self) -> Callable[[Tensor], Tensor]:
        return self._product

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._product(x)

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        u, f = x.chunk(2, -1)[0], self.entry.function(self.argument(x))
        return torch.cat([gradient * f, gradient * u * self.slope(x, h)], -1)

    def argument(self, x: Tensor) -> Tensor:
        return x.chunk(2, -1)[1].contiguous()  # the bits of some functions depend on the layout

    def slope(self, x: Tensor, h: Tensor) -> Tensor:
        v = self.argument(x)
        return self.entry.derivative(v, self.entry.function(v))

    def _product(self, x: Tensor) -> Tensor:
        return x.chunk(2, -1)[0] * self.entry.function(self.argument(x))


@dataclass(frozen=True)
class Dropout(LayerSpec):
    """Inverted dropout (Srivastava et al. 2014): in training, each value is 0 or divided by the share that is kept.

    Attributes:
        rate: the share that is set to 0.
        stream: the number of the random stream: 0 after the inputs, i after the i-th hidden layer.
    """

    units: int
    rate: float
    stream: int
    group: ClassVar[str] = "dropouts"
    noise: ClassVar[tuple[str, ...]] = ("mask",)

    @property
    def stack_key(self) -> object:
        return type(self), self.units, self.stream

    def module(self) -> Callable[[Tensor], Tensor]:
        from mlpexp.nn.torch_modules import DropoutModule

        return DropoutModule(self)

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return x * parameters["mask"] if "mask" in parameters else x

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient * parameters["mask"] if "mask" in parameters else gradient


@dataclass(frozen=True)
class Add(LayerSpec):
    """The end of a residual block: the value at the block's beginning is added, h = x + skip (He et al. 2016).

    The derivative with respect to the skipped value is that with respect to the output, too; `network.backward` adds
    it where the block begins.

    Attributes:
        source: the place of the skipped value in `network.Trace.values`.
    """

    source: int

    def module(self) -> Callable[[Tensor, Tensor], Tensor]:  # type: ignore[override]
        return torch.add

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return x + parameters["skip"]

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient
