"""Batched matrix products whose bits do not depend on a matrix's place in the batch.

The library behind `torch.bmm` chooses its order of summation by the address of a matrix, so by its place in a stack.
While `ExactProducts` is entered, each kind of product (shapes and strides) is tested once: it is batched where every
place gives the bits of the matrices alone in new tensors, and computed run by run otherwise.

Letters: R runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mlpexp.engine.torch.matrix_products import LARGE_PRODUCT

PLACES = 18  # addresses of float32 matrices repeat after at most 16, modulo 64 bytes
_batched: dict[tuple[object, ...], bool] = {}  # by kind of product


class ExactProducts(TorchDispatchMode):
    """Replaces `bmm` and `baddbmm` while it is entered; for a CPU and one thread."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.bmm.default:
            return _product(torch.bmm, torch.mm, args)
        if func is torch.ops.aten.baddbmm.default and not kwargs:
            return _product(torch.baddbmm, torch.addmm, args)
        return func(*args, **(kwargs or {}))


def _product(batched: Callable[..., Tensor], single: Callable[..., Tensor], operands: Sequence[Tensor]) -> Tensor:
    key = batched, *((tuple(operand.shape[1:]), operand.stride()) for operand in operands)
    if key not in _batched:
        _batched[key] = _is_exact(batched, single, operands)
    return batched(*operands) if _batched[key] else _one_by_one(single, operands)


def _one_by_one(single: Callable[..., Tensor], operands: Sequence[Tensor]) -> Tensor:
    return torch.stack([single(*map(_fresh, rows)) for rows in zip(*operands, strict=True)])


def _fresh(matrix: Tensor) -> Tensor:
    """A copy in a new tensor, with the same order of the axes."""
    if matrix.ndim == 2 and matrix.stride(1) != 1 and matrix.stride(0) == 1:
        return matrix.mT.clone(memory_format=torch.contiguous_format).mT
    return matrix.clone(memory_format=torch.contiguous_format)


def _is_exact(batched: Callable[..., Tensor], single: Callable[..., Tensor], operands: Sequence[Tensor]) -> bool:
    *_, left, right = operands  # `baddbmm` has a summand before them
    if left.shape[1] * left.shape[2] * right.shape[2] > LARGE_PRODUCT:
        return False
    generator = torch.Generator().manual_seed(0)

    def drawn(like: Tensor) -> Tensor:
        shape = (PLACES, *like.shape[1:])
        extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, like.stride(), strict=True))
        return torch.randn(extent, generator=generator, dtype=like.dtype).as_strided(shape, like.stride())

    random_operands = [drawn(operand) for operand in operands]
    return torch.equal(batched(*random_operands), _one_by_one(single, random_operands))
