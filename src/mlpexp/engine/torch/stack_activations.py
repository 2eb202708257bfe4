"""Activations and their backward kernels in place, over a stack, with the bits that autograd gives a run alone.

torch's elementwise kernels work in vectors and finish the last few elements one by one, and for some functions
(sigmoid, silu, elu, softplus) the two paths round differently. Which elements come last depends on the tensor's
size, so such a function may be applied to many runs at once only where every run's share is whole vectors.

Letters: R runs, B batch, H units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mlpexp.nn.activations import LEAK

aten: Any = torch.ops.aten

GRAIN = 32768  # elements per thread below which torch does not split an elementwise operation
VECTOR = 32  # elements in one round of the widest vectorised loop (two AVX-512 registers of float32)


@dataclass(frozen=True)
class Kernel:
    """One activation in place.

    Attributes:
        forward: (x, h) writes h = f(x); h may be x itself unless `needs_input`.
        backward: (gradient, x, h) turns dL/dh into dL/dx in place.
        needs_input: the backward reads x, so h must not overwrite it.
    """

    forward: Callable[[Tensor, Tensor], Any]
    backward: Callable[[Tensor, Tensor, Tensor], Any]
    needs_input: bool = True


KERNELS: dict[str, Kernel] = {
    "tanh": Kernel(
        lambda x, h: torch.tanh(x, out=h),
        lambda g, x, h: aten.tanh_backward.grad_input(g, h, grad_input=g),
        needs_input=False,
    ),
    "relu": Kernel(
        lambda x, h: torch.clamp_min(x, 0, out=h),
        lambda g, x, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
        needs_input=False,
    ),
    "leaky_relu": Kernel(
        lambda x, h: aten.leaky_relu.out(x, LEAK, out=h),
        lambda g, x, h: aten.leaky_relu_backward.grad_input(g, h, LEAK, True, grad_input=g),
        needs_input=False,
    ),
    "sigmoid": Kernel(
        lambda x, h: torch.sigmoid(x, out=h),
        lambda g, x, h: aten.sigmoid_backward.grad_input(g, h, grad_input=g),
        needs_input=False,
    ),
    "gelu": Kernel(
        lambda x, h: aten.gelu.out(x, out=h),
        lambda g, x, h: aten.gelu_backward.grad_input(g, x, grad_input=g),
    ),
    "silu": Kernel(
        lambda x, h: aten.silu.out(x, out=h),
        lambda g, x, h: aten.silu_backward.grad_input(g, x, grad_input=g),
    ),
    "elu": Kernel(
        lambda x, h: aten.elu.out(x, out=h),
        lambda g, x, h: aten.elu_backward.grad_input(g, 1.0, 1.0, 1.0, False, x, grad_input=g),
    ),
    "softplus": Kernel(
        lambda x, h: aten.softplus.out(x, out=h),
        lambda g, x, h: aten.softplus_backward.grad_input(g, x, 1.0, 20.0, grad_input=g),
    ),
    # autograd multiplies by the cosine; h has done its service in the step when the backward comes
    "sine": Kernel(lambda x, h: torch.sin(x, out=h), lambda g, x, h: g.mul_(torch.cos(x, out=h))),
    # a copy onto itself costs nothing
    "identity": Kernel(lambda x, h: h.copy_(x), lambda g, x, h: None, needs_input=False),
}


class StackActivation:
    """The activation of one hidden layer of a stack: a kernel for each slice of runs that share a name.

    Args:
        names: one per run; equal names stand together.
        pre, hidden, gradient: contiguous (R, B, H); `pre` is `hidden` itself where no run's kernel needs its input.
        exact: keep the bits of a run alone.
    """

    def __init__(
        self, names: Sequence[str], pre: Tensor, hidden: Tensor, gradient: Tensor | None, *, exact: bool
    ) -> None:
        self._parts: list[tuple[Kernel, Tensor, Tensor, Tensor | None]] = []
        for name, start, stop in spans(names):
            for a, b in _shares(name, start, stop, pre[0].numel(), exact=exact and pre.device.type == "cpu"):
                x = pre[a:b]
                h = x if pre is hidden else hidden[a:b]
                self._parts.append((KERNELS[name], x, h, None if gradient is None else gradient[a:b]))

    def forward(self) -> None:
        for kernel, pre, hidden, _ in self._parts:
            kernel.forward(pre, hidden)

    def backward(self) -> None:
        """Turn the gradient by the layer's output into that by its input, in place."""
        for kernel, pre, hidden, gradient in self._parts:
            assert gradient is not None
            kernel.backward(gradient, pre, hidden)


def needs_input(names: Sequence[str]) -> bool:
    """Whether a stack with these activations keeps each layer's values from before the activation."""
    return any(KERNELS[name].needs_input for name in names)


def spans(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal names, as (name, start, stop)."""
    edges = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    return [(names[a], a, b) for a, b in pairwise(edges)]


def _shares(name: str, start: int, stop: int, size: int, *, exact: bool) -> list[tuple[int, int]]:
    """How to cut the runs start..stop, `size` elements each, so that every run has the bits it has alone."""
    if not exact or name == "identity" or (size > 1 and _is_the_same_everywhere(name)):
        return [(start, stop)]
    if _whole_vectors(size) and size % VECTOR == 0:
        # a few runs less may let the threads' shares begin at whole vectors
        for end in range(stop, max(start, stop - torch.get_num_threads()), -1):
            if _whole_vectors((end - start) * size):
                return [(start, end), *((i, i + 1) for i in range(end, stop))]
    return [(i, i + 1) for i in range(start, stop)]


def _whole_vectors(size: int) -> bool:
    """Whether each thread's share of an elementwise operation on `size` elements begins at a whole vector."""
    threads = min(torch.get_num_threads(), -(-size // GRAIN))
    return size < GRAIN or threads == 1 or -(-size // threads) % VECTOR == 0


@cache
def _is_the_same_everywhere(name: str) -> bool:
    """Whether an element's bits do not depend on its place in the tensor, on this machine: tried out."""
    generator = torch.Generator().manual_seed(0)
    # a prime number of elements, few enough that all go one by one, or some do
    whole = torch.randn(2, 5 * 1201, generator=generator) * 3  # x and the gradient
    expected = _apply(name, whole)
    return all(
        torch.equal(torch.cat([_apply(name, part) for part in torch.split(whole, size, 1)], 1), expected)
        for size in (5, 43)
    )


def _apply(name: str, x_and_gradient: Tensor) -> Tensor:
    x, gradient = (t.clone() for t in x_and_gradient)
    hidden = torch.empty_like(x)
    kernel = KERNELS[name]
    kernel.forward(x, hidden)
    kept = hidden.clone()  # sine's backward overwrites it
    kernel.backward(gradient, x, hidden)
    return torch.stack([kept, gradient])
