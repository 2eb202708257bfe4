"""The kinds of layers: each knows its parameters, its module of torch, and its forward and backward pass by hand.

A layer of a stack has a leading run axis in all tensors; parameters and values of one run have none. A new kind is a
class here. The torch engine has kernels for the two kinds below, and calls the methods of any other kind as they are.

Letters: R runs (the axis may be absent), B batch, I inputs, O outputs of a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
else:
    nn = LazyModule("torch.nn")


class LayerSpec(ABC):
    """One layer as data: hashable, and equal to another one with the same fields.

    Class attributes:
        group: the attribute of the network's module that lists the layers of this kind, so that their parameters are
            named `{group}.{i}.{parameter}`; empty for kinds without parameters.
    """

    group: ClassVar[str] = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name, in the order of torch's module."""
        return {}

    def initialise_(self, parameters: Mapping[str, Tensor], generator: Generator) -> None:
        """Write the initial values into one run's parameters; those of dense layers are chosen by `model.init`."""
        if self.shapes:
            raise NotImplementedError(f"{type(self).__name__} has parameters, but no initial values")

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
    """A dense layer, h = x W' + b with W (R, O, I) and b (R, O)."""

    inputs: int
    outputs: int
    group: ClassVar[str] = "layers"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.outputs, self.inputs), "bias": (self.outputs,)}

    def module(self) -> nn.Linear:
        made: nn.Linear = nn.utils.skip_init(nn.Linear, self.inputs, self.outputs)
        return made

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return x @ parameters["weight"].mT + parameters["bias"].unsqueeze(-2)

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient @ parameters["weight"]

    def parameter_gradients(
        self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        # each weight sees its input times what arrives from above, summed over the batch
        return {"weight": gradient.mT @ x, "bias": gradient.sum(-2)}


@dataclass(frozen=True)
class Activate(LayerSpec):
    """An activation, elementwise."""

    name: str

    def module(self) -> Callable[[Tensor], Tensor]:
        return ACTIVATIONS[self.name].function

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name].function(x)

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        return gradient * ACTIVATIONS[self.name].derivative(x, h)
