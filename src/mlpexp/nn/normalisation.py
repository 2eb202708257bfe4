"""The kinds of normalisation: a registry of layers that hold a unit's mean and size, by hand and by torch's modules.

Letters: R runs (the axis may be absent), B batch, H units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.lazy_torch import Generator, Tensor, nn, torch
from mlpexp.runtime.registry import Registry

EPS = 1e-5  # torch's default of layer and batch normalisation
MOMENTUM = 0.1  # the weight of a batch in the running statistics, torch's default


@dataclass(frozen=True)
class Norm(LayerSpec):
    """A normalisation z of the input, then a factor and a shift for each unit: h = z * weight + bias.

    Class attributes:
        axis: over which mean and size are taken.
        is_centred: the mean is removed.
    """

    units: int
    group: ClassVar[str] = "norms"
    axis: ClassVar[int] = -1
    is_centred: ClassVar[bool] = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.units,), "bias": (self.units,)}

    def initialise_(self, parameters: Mapping[str, Tensor], generator: Generator) -> None:
        for name, values in parameters.items():
            values.fill_(1 if name in ("weight", "running_var") else 0)

    def normalise(self, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised input z (R, B, H), and the factor of the input in it, (R, B, 1) or (R, 1, H)."""
        raise NotImplementedError

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        z, _ = self.normalise(parameters, x)
        h = z * parameters["weight"].unsqueeze(-2)
        return h + parameters["bias"].unsqueeze(-2) if "bias" in self.shapes else h

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        z, factor = self.normalise(parameters, x)
        g = gradient * parameters["weight"].unsqueeze(-2)
        if "running_mean" in parameters:  # constants
            return factor * g
        # mean and size are removed from z, and so from its gradient
        centred = g - g.mean(self.axis, keepdim=True) if self.is_centred else g
        return factor * (centred - z * (g * z).mean(self.axis, keepdim=True))

    def parameter_gradients(
        self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        z, _ = self.normalise(parameters, x)
        gradients = {"weight": (gradient * z).sum(-2)}
        return gradients | {"bias": gradient.sum(-2)} if "bias" in self.shapes else gradients


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Each sample's units have mean 0 and variance 1 (Ba et al. 2016)."""

    def module(self) -> nn.Module:
        return nn.LayerNorm(self.units, eps=EPS)

    def normalise(self, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(-1, keepdim=True)
        factor = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
        return centred * factor, factor


@dataclass(frozen=True)
class RmsNorm(Norm):
    """Each sample's units have mean square 1; no shift (Zhang & Sennrich 2019)."""

    is_centred: ClassVar[bool] = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.units,)}

    def module(self) -> nn.Module:
        return nn.RMSNorm(self.units)

    def normalise(self, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        # torch's default of eps
        factor = (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).rsqrt()
        return x * factor, factor


@dataclass(frozen=True)
class BatchNorm(Norm):
    """Each unit has mean 0 and variance 1 over the batch in training, by running statistics in evaluation.

    Ioffe & Szegedy 2015. A batch of one sample has no variance: it is normalised by the running statistics.
    """

    axis: ClassVar[int] = -2

    @property
    def buffers(self) -> dict[str, tuple[int, ...]]:
        return {"running_mean": (self.units,), "running_var": (self.units,)}

    def module(self) -> nn.Module:
        from mlpexp.nn.torch_modules import BatchNormModule

        return BatchNormModule(self.units, EPS, MOMENTUM)

    def normalise(self, parameters: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        if "running_mean" in parameters:
            mean, variance = parameters["running_mean"].unsqueeze(-2), parameters["running_var"].unsqueeze(-2)
        else:
            mean, variance = x.mean(-2, keepdim=True), x.var(-2, correction=0, keepdim=True)
        factor = (variance + EPS).rsqrt()
        return (x - mean) * factor, factor

    def update_(self, tensors: Mapping[str, Tensor], x: Tensor) -> None:
        tensors["running_mean"].lerp_(x.mean(-2), MOMENTUM)
        tensors["running_var"].lerp_(x.var(-2), MOMENTUM)


NORMS: Registry[type[Norm]] = Registry("norm", {"layer": LayerNorm, "batch": BatchNorm, "rms": RmsNorm})
