"""Orders and initial values of many runs at once, by compiled code, with torch's bits.

A version of torch that draws otherwise is noticed: the first seed of each call is compared with torch.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mlpexp.data import batches
from mlpexp.engine.compiled import compile_cache


def permutations(seeds: Sequence[int], orders: Tensor) -> None:
    """Overwrite `orders` (R, n) int64 with `torch.randperm` for each seed of a generator."""
    compile_cache.function("random_draws", "permutations")(np.array(seeds, np.int64), orders.numpy())
    first = torch.empty_like(orders[:1])
    batches.permutations(seeds[:1], first)
    if not torch.equal(first, orders[:1]):
        batches.permutations(seeds, orders)


def uniforms(
    seeds: Sequence[int], shapes: Mapping[str, tuple[int, ...]], bounds: Mapping[str, float]
) -> dict[str, Tensor]:
    """Tensors by name, (R, *shape): `uniform_(-bound, bound)` in this order, from a generator for each seed.

    Args:
        bounds: by name, in the order in which the tensors are drawn; those with 0 are zero and not drawn.
    """
    sizes = [torch.Size(shapes[name]).numel() for name in bounds]
    ends = np.array(list(bounds.values()), np.float32)
    values = np.empty(len(seeds) * sum(sizes), np.float32)
    draw = compile_cache.function("random_draws", "uniforms")
    draw(np.array(seeds, np.int64), np.array(sizes), -ends, ends - -ends, _is_fused(), values)
    parts = torch.from_numpy(values).split([len(seeds) * size for size in sizes])
    return {name: part.view(len(seeds), *shapes[name]) for name, part in zip(bounds, parts, strict=True)}


@cache
def _is_fused() -> bool:
    """Whether torch rounds product and sum of `uniform_` once, which depends on the processor."""
    bound, drawn = 0.3, torch.empty(64).uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(0))
    draw = compile_cache.function("random_draws", "uniforms")
    values, ends = np.empty(64, np.float32), np.array([bound], np.float32)
    draw(np.zeros(1, np.int64), np.array([64]), -ends, ends - -ends, True, values)
    return bool((values == drawn.numpy()).all())
