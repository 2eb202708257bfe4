"""The layout of a run's tensors in the compiled engine's scratch memory, an array of float32 in whole vectors."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LINE = 16  # numbers in a vector; as in `vectors.py`, which imports numba

Array = NDArray[Any]


class MemoryLayout(NamedTuple):
    """The offsets of a run's tensors in a thread's scratch memory; see `kernels.py` for the columns."""

    layers: Array  # (layers, 11) int64
    places: Array  # (7,) int64
    bounds: Array  # where each of the T parameter tensors begins, weights and biases in turn, and P: (T + 1,) int64
    num_parameters: int  # P, with padding
    size: int


def memory_layout(sizes: Sequence[int], width: int) -> MemoryLayout:
    """The layout for networks of these layer sizes and batches of up to `width` samples (whole vectors)."""
    layers, end = np.zeros((len(sizes) - 1, 11), np.int64), 0
    bounds = [0]

    def take(count: int) -> int:
        nonlocal end
        end += padded(count)
        return end - padded(count)

    for row, (inputs, outputs) in zip(layers, pairwise(sizes), strict=True):
        row[:3] = inputs, outputs, padded(inputs)
        row[3] = take(outputs * padded(inputs))
        bounds.append(end)
        row[4] = take(outputs)
        bounds.append(end)
    P = end
    take(3 * P)  # gradients, optimizer state
    values = [[take(padded(units) * width) for _ in range(3)] for units in sizes]  # pre, hidden, gradient
    for row, below, above in zip(layers, values, values[1:], strict=False):
        row[5:8] = above
        row[8:] = below[1], below[0], below[2]
    counts = (width * padded(sizes[0]), width * padded(max(sizes)), width, width, width, width, LINE)
    places = np.array([take(count) for count in counts])
    return MemoryLayout(layers, places, np.array(bounds), P, end)


def padded(count: int) -> int:
    """Up to whole vectors."""
    return -(-count // LINE) * LINE


def aligned(*shape: int) -> Array:
    """float32 zeros that begin at a cache line."""
    count = math.prod(shape)
    memory = np.zeros(count + LINE, np.float32)
    start = -memory.ctypes.data // 4 % LINE
    return memory[start : start + count].reshape(shape)
