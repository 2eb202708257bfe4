"""The activations of a stack in place, each run with the bits that autograd gives it alone.

torch's elementwise kernels work in vectors and finish the last few elements one by one, and for some functions
(sigmoid, silu, elu, softplus) the two paths round differently. Which elements come last depends on the tensor's
size, so such a function may be applied to many runs in one call only where every run's part is whole vectors.

Letters: R runs, B batch, H units.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from mlpexp.nn.activations import Activation
from mlpexp.nn.layers import Activate

T = TypeVar("T")

GRAIN = 32768  # elements per thread below which torch does not split an elementwise operation
VECTOR = 32  # elements in one round of the widest vectorised loop (two AVX-512 registers of float32)


class StackActivation:
    """The activation of one hidden layer of a stack: a kernel for each slice of runs that share one.

    Args:
        layers: one per run; equal ones are neighbours.
        pre, hidden, gradient: contiguous (R, B, H); `pre` is `hidden` itself where no kernel reads its input.
    """

    def __init__(self, layers: Sequence[Activate], pre: Tensor, hidden: Tensor, gradient: Tensor | None) -> None:
        self._forward: list[Callable[[], Any]] = []
        self._backward: list[Callable[[], Any]] = []
        for layer, start, stop in spans(layers):
            write, pull_back = layer.entry.kernels()
            for a, b in _shares(layer, start, stop, pre[0].numel(), on_cpu=pre.device.type == "cpu"):
                x = pre[a:b]
                h = x if pre is hidden else hidden[a:b]
                self._forward.append(partial(write, x, h))
                if gradient is not None:
                    self._backward.append(partial(pull_back, gradient[a:b], x, h))

    def forward(self) -> None:
        """Write the layer's output."""
        for write in self._forward:
            write()

    def backward(self) -> None:
        """Turn the gradient with respect to the layer's output into that with respect to its input, in place."""
        for pull_back in self._backward:
            pull_back()


def spans(values: Sequence[T]) -> list[tuple[T, int, int]]:
    """Equal neighbours as (value, start, stop)."""
    pairs = enumerate(pairwise(values), 1)  # thousands of runs share their objects
    edges = [0, *(i for i, (before, value) in pairs if value is not before and value != before), len(values)]
    return [(values[a], a, b) for a, b in pairwise(edges)]


def _shares(layer: Activate, start: int, stop: int, size: int, *, on_cpu: bool) -> list[tuple[int, int]]:
    """A division of the runs start..stop, `size` elements each, with which every run has the bits of a run alone."""
    if not on_cpu or (size > 1 and _is_the_same_everywhere(layer, layer.entry)):
        return [(start, stop)]
    if _whole_vectors(size) and size % VECTOR == 0:
        # with a few runs less, the threads' parts may begin at whole vectors
        for end in range(stop, max(start, stop - torch.get_num_threads()), -1):
            if _whole_vectors((end - start) * size):
                return [(start, end), *((i, i + 1) for i in range(end, stop))]
    return [(i, i + 1) for i in range(start, stop)]


def _whole_vectors(size: int) -> bool:
    """Whether each thread's part of an elementwise operation on `size` elements begins at a whole vector."""
    threads = min(torch.get_num_threads(), -(-size // GRAIN))
    return size < GRAIN or threads == 1 or -(-size // threads) % VECTOR == 0


@cache
def _is_the_same_everywhere(layer: Activate, entry: Activation) -> bool:
    """Whether, on this machine, the bits of an element are independent of its position in the tensor: tested once.

    Args:
        entry: of the layer; a plugin may register another one under the same name.
    """
    generator = torch.Generator().manual_seed(0)
    # a prime number of elements, few enough that all go one by one, or some do
    values = torch.randn(2, 5 * 1201, generator=generator) * 3  # x and the gradient
    expected = _apply(layer, values)
    return all(
        torch.equal(torch.cat([_apply(layer, part) for part in torch.split(values, size, 1)], 1), expected)
        for size in (5, 43)
    )


def _apply(layer: Activate, x_and_gradient: Tensor) -> Tensor:
    x, gradient = (t.clone() for t in x_and_gradient)
    hidden = torch.empty_like(x)
    write, pull_back = layer.entry.kernels()
    write(x, hidden)
    output = hidden.clone()  # a backward kernel may overwrite it
    pull_back(gradient, x, hidden)
    return torch.stack([output, gradient])
