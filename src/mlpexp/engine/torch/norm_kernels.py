"""The normalisations of a stack: each run with the bits that torch's module gives it alone.

Layer and batch normalisation call torch's kernels run by run, because each run has weights of its own and torch's sums
over a batch depend on its size. RMS normalisation, which torch composes of elementwise operations and sums over units,
is composed of the same operations on all runs at once.

Letters: R runs, B batch, H units.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mlpexp.engine.torch.slot import Slot
from mlpexp.nn.normalisation import EPS, MOMENTUM

ATEN = torch.ops.aten


class NormKernel(ABC):
    """Attributes as of `layer_kernels.LinearKernel`."""

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.output = torch.empty_like(slot.x, memory_format=torch.contiguous_format)
        self.output_gradient = None if slot.gradients is None else torch.empty_like(self.output)

    @abstractmethod
    def forward(self) -> None:
        """Write the output."""

    @abstractmethod
    def backward(self) -> None:
        """Write the gradients; that of the output has been written."""

    def _by_run(self, *tensors: Tensor | None) -> list[tuple[Tensor, ...]]:
        """The rows of each run; None where there is no tensor."""
        runs = range(len(self.output))
        return [tuple(None if tensor is None else tensor[r] for tensor in tensors) for r in runs]  # type: ignore[misc]

    def _gradient(self, name: str) -> Tensor:
        assert self._slot.gradients is not None
        return self._slot.gradients[name]


class LayerNormKernel(NormKernel):
    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        weight, bias = slot.parameters["weight"], slot.parameters["bias"]
        self._mean, self._factor = (slot.x.new_empty(*slot.x.shape[:2], 1) for _ in range(2))
        self._shape = [slot.x.shape[2]]
        self._forward = self._by_run(slot.x, weight, bias, self.output, self._mean, self._factor)
        if slot.gradients is None:
            return
        outlets = slot.x_gradient, self._gradient("weight"), self._gradient("bias")
        self._backward = self._by_run(self.output_gradient, slot.x, self._mean, self._factor, weight, bias, *outlets)
        self._wanted = [slot.x_gradient is not None, True, True]

    def forward(self) -> None:
        for x, weight, bias, h, mean, factor in self._forward:
            ATEN.native_layer_norm.out(x, self._shape, weight, bias, EPS, out0=h, out1=mean, out2=factor)

    def backward(self) -> None:
        for gradient, x, mean, factor, weight, bias, *outlets in self._backward:
            found = ATEN.native_layer_norm_backward(gradient, x, self._shape, mean, factor, weight, bias, self._wanted)
            _copy(found, outlets)


class BatchNormKernel(NormKernel):
    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        weight, bias = slot.parameters["weight"], slot.parameters["bias"]
        running = slot.parameters["running_mean"], slot.parameters["running_var"]
        self._own_statistics = slot.gradients is not None and slot.x.shape[1] > 1
        self._forward = self._by_run(slot.x, weight, bias, *running, self.output)
        self._saved: list[tuple[Tensor, Tensor]] = []
        if slot.gradients is None:
            return
        outlets = slot.x_gradient, self._gradient("weight"), self._gradient("bias")
        self._backward = self._by_run(self.output_gradient, slot.x, weight, *running, *outlets)
        self._wanted = [slot.x_gradient is not None, True, True]

    def forward(self) -> None:
        self._saved.clear()
        for x, weight, bias, mean, variance, h in self._forward:
            out, *saved = ATEN.native_batch_norm(x, weight, bias, mean, variance, self._own_statistics, MOMENTUM, EPS)
            h.copy_(out)
            self._saved.append(saved)

    def backward(self) -> None:
        for saved, (gradient, x, weight, mean, variance, *outlets) in zip(self._saved, self._backward, strict=True):
            found = ATEN.native_batch_norm_backward(
                gradient, x, weight, mean, variance, *saved, self._own_statistics, EPS, self._wanted
            )
            _copy(found, outlets)


class RmsNormKernel(NormKernel):
    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self._weight = slot.parameters["weight"].unsqueeze(1)
        self._eps = torch.finfo(slot.x.dtype).eps

    def forward(self) -> None:
        x = self._slot.x
        self._factor = x.pow(2).mean(-1, keepdim=True).add_(self._eps).rsqrt_()  # (R, B, 1)
        self._z = x * self._factor
        torch.mul(self._z, self._weight, out=self.output)

    def backward(self) -> None:
        assert self.output_gradient is not None
        for terms, outlet in zip(self.output_gradient * self._z, self._gradient("weight"), strict=True):
            torch.sum(terms, 0, out=outlet)
        if self._slot.x_gradient is None:
            return
        x, gradient, factor = self._slot.x, self.output_gradient * self._weight, self._factor
        by_factor = (gradient * x).sum(-1, keepdim=True)
        by_mean = by_factor.mul_(-0.5).mul_(factor.pow(3)).div_(x.shape[-1])
        torch.add(gradient.mul_(factor), by_mean * x.mul(2), out=self._slot.x_gradient)


def _copy(found: tuple[Tensor, ...], outlets: list[Tensor]) -> None:
    for tensor, outlet in zip(found, outlets, strict=True):
        if outlet is not None:
            outlet.copy_(tensor)
