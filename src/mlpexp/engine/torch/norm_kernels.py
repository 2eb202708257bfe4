"""The normalisations of a stack: each run with the bits that torch's module gives it alone.

Torch's kernels sum and vectorise by the size of what they are given. So, as with matrix products, a kernel is applied
to all runs at once where a test of this shape shows that every run then has the bits of a run alone, and run by run
elsewhere. RMS normalisation, which torch composes of elementwise operations and sums over units, is composed of the
same operations on all runs at once.

Letters: R runs, B batch, H units.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from mlpexp.engine.torch.slot import Slot
from mlpexp.nn.normalisation import EPS, MOMENTUM

ATEN = torch.ops.aten


class NormKernel:
    """Attributes as of `layer_kernels.LinearKernel`."""

    reads_output = False

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.output = torch.empty_like(slot.x, memory_format=torch.contiguous_format)
        self.output_gradient = None if slot.gradients is None else torch.empty_like(self.output)

    def _by_run(self, *tensors: Tensor | None) -> list[tuple[Tensor, ...]]:
        """The rows of each run; None where there is no tensor."""
        runs = range(len(self.output))
        return [tuple(None if tensor is None else tensor[r] for tensor in tensors) for r in runs]  # type: ignore[misc]

    def _gradient(self, name: str) -> Tensor:
        assert self._slot.gradients is not None
        return self._slot.gradients[name]


class LayerNormKernel(NormKernel):
    """The forward pass may be torch's without weights, then a product and a sum; the backward pass is run by run."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        x, weight, bias = slot.x, slot.parameters["weight"], slot.parameters["bias"]
        runs, batch, units = x.shape
        self._shape = [units]
        self._together = _layer_norm_together(batch, units, x.dtype, torch.get_num_threads()) and x.is_contiguous()
        self._weight, self._bias, self._flat = weight.unsqueeze(1), bias.unsqueeze(1), x.reshape(-1, units)
        self._mean, self._factor = (x.new_empty(runs, batch, 1) for _ in range(2))
        self._forward = self._by_run(x, weight, bias, self.output, self._mean, self._factor)
        if slot.gradients is not None:
            self._wanted = [slot.x_gradient is not None, True, True]
            self._outlets = slot.x_gradient, self._gradient("weight"), self._gradient("bias")
            self._backward = self._by_run(self.output_gradient, x, weight, bias)

    def forward(self) -> None:
        if self._together:
            z, mean, factor = ATEN.native_layer_norm(self._flat, self._shape, None, None, EPS)
            torch.addcmul(self._bias, z.view(self.output.shape), self._weight, out=self.output)
            self._mean, self._factor = mean.view(self._mean.shape), factor.view(self._mean.shape)
            return
        for x, weight, bias, h, mean, factor in self._forward:
            ATEN.native_layer_norm.out(x, self._shape, weight, bias, EPS, out0=h, out1=mean, out2=factor)

    def backward(self) -> None:
        rows = zip(self._backward, self._mean.unbind(), self._factor.unbind(), strict=True)
        gradients = [
            ATEN.native_layer_norm_backward(gradient, x, self._shape, mean, factor, weight, bias, self._wanted)
            for (gradient, x, weight, bias), mean, factor in rows
        ]
        _stack(gradients, self._outlets)


class BatchNormKernel(NormKernel):
    """All units of all runs may be the units of one normalisation, (B, R H), because no sum is taken over units."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        x, weight, bias = slot.x, slot.parameters["weight"], slot.parameters["bias"]
        running = slot.parameters["running_mean"], slot.parameters["running_var"]
        runs, batch, units = x.shape
        self._by_batch = slot.gradients is not None and batch > 1
        together = _batch_norm_together(batch, units, self._by_batch, x.dtype, torch.get_num_threads())
        self._forward_together, self._backward_together = together
        self._vectors = [tensor.view(-1) for tensor in (weight, bias, *running)]  # (R H,)
        self._wide = x.new_empty(batch, runs, units)
        self._forward = self._by_run(x, weight, bias, *running, self.output)
        self._saved: list[tuple[Tensor, Tensor]] = []
        if slot.gradients is not None:
            self._wide_gradient = torch.empty_like(self._wide)
            self._wanted = [slot.x_gradient is not None, True, True]
            self._outlets = slot.x_gradient, self._gradient("weight"), self._gradient("bias")
            self._backward = self._by_run(self.output_gradient, x, weight, *running)

    def forward(self) -> None:
        if self._forward_together:
            x = self._wide.copy_(self._slot.x.transpose(0, 1)).flatten(1)
            out, *saved = ATEN.native_batch_norm(x, *self._vectors, self._by_batch, MOMENTUM, EPS)
            self.output.copy_(out.view(self._wide.shape).transpose(0, 1))
            self._saved_together = saved
            if self._by_batch and not self._backward_together:
                self._saved = list(zip(*(s.view(self._wide.shape[1:]).unbind() for s in saved), strict=True))
            return
        self._saved.clear()
        for x, weight, bias, mean, variance, h in self._forward:
            out, *saved = ATEN.native_batch_norm(x, weight, bias, mean, variance, self._by_batch, MOMENTUM, EPS)
            h.copy_(out)
            self._saved.append((saved[0], saved[1]))

    def backward(self) -> None:
        if self._backward_together:
            assert self.output_gradient is not None
            gradient = self._wide_gradient.copy_(self.output_gradient.transpose(0, 1)).flatten(1)
            weight, _, *running = self._vectors
            gradients = ATEN.native_batch_norm_backward(
                gradient,
                self._wide.flatten(1),
                weight,
                *running,
                *self._saved_together,
                self._by_batch,
                EPS,
                self._wanted,
            )
            if self._outlets[0] is not None:
                self._outlets[0].copy_(gradients[0].view(self._wide.shape).transpose(0, 1))
            for values, outlet in zip(gradients[1:], self._outlets[1:], strict=True):
                outlet.copy_(values.view(outlet.shape))
            return
        rows = zip(self._backward, self._saved, strict=True)
        gradients = [
            ATEN.native_batch_norm_backward(
                gradient, x, weight, mean, variance, *saved, self._by_batch, EPS, self._wanted
            )
            for (gradient, x, weight, mean, variance), saved in rows
        ]
        _stack(gradients, self._outlets)


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


def _stack(run_gradients: Sequence[Sequence[Tensor]], outlets: Sequence[Tensor | None]) -> None:
    """Write the gradients of all runs."""
    for i, outlet in enumerate(outlets):
        if outlet is not None:
            torch.stack([gradients[i] for gradients in run_gradients], out=outlet)


TESTED_RUNS = 5


@cache
def _layer_norm_together(batch: int, units: int, dtype: torch.dtype, threads: int) -> bool:
    """Whether runs that are normalised together have the bits of a run alone: tried once, on one thread."""
    if threads > 1:  # the threads' parts begin anywhere
        return False
    x, weight, bias = _random(batch, units, dtype)
    z = ATEN.native_layer_norm(x.view(-1, units), [units], None, None, EPS)[0].view(x.shape)
    together = torch.addcmul(bias.unsqueeze(1), z, weight.unsqueeze(1))
    alone = [ATEN.native_layer_norm(x[r].clone(), [units], weight[r], bias[r], EPS)[0] for r in range(TESTED_RUNS)]
    return torch.equal(together, torch.stack(alone))


@cache
def _batch_norm_together(batch: int, units: int, by_batch: bool, dtype: torch.dtype, threads: int) -> tuple[bool, bool]:
    """The same of batch normalisation, for the forward and for the backward pass."""
    if threads > 1:
        return False, False
    x, weight, bias = _random(batch, units, dtype)
    mean, variance = bias.flip(0), weight.abs() + 0.1
    gradient = x.flip(1)

    def passes(x: Tensor, gradient: Tensor, *vectors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        weight, bias, *running = (vector.flatten().clone() for vector in vectors)
        out, *saved = ATEN.native_batch_norm(x, weight, bias, *running, by_batch, MOMENTUM, EPS)
        gradients = ATEN.native_batch_norm_backward(
            gradient, x, weight, *running, *saved, by_batch, EPS, [True, True, True]
        )
        return [out, *running, *(saved if by_batch else [])], list(gradients)

    vectors = weight, bias, mean, variance
    together = passes(x.transpose(0, 1).flatten(1), gradient.transpose(0, 1).flatten(1), *vectors)
    alone = [passes(x[r].clone(), gradient[r].clone(), *(v[r] for v in vectors)) for r in range(TESTED_RUNS)]
    are_equal = []
    for i, wide in enumerate(together):
        joined = [torch.cat([run[i][k] for run in alone], -1) for k in range(len(wide))]
        are_equal.append(all(map(torch.equal, wide, joined)))
    return are_equal[0], are_equal[0] and are_equal[1]


def _random(batch: int, units: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (R, B, H), factors and shifts (R, H)."""
    generator = torch.Generator().manual_seed(0)
    shapes = (TESTED_RUNS, batch, units), (TESTED_RUNS, units), (TESTED_RUNS, units)
    x, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes)
    return x, weight, bias
