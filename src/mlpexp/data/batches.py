"""Batches as slices of tensors, in an order that is a pure function of (seed, epoch)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Generator, Tensor

from mlpexp.runtime.distributed import share


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in `epoch`, (num_samples,) int64, the same on every machine."""
    return epoch_orders(num_samples, [seed], epoch)[0]


def permutations(seeds: Sequence[int], orders: Tensor) -> None:
    """Overwrite `orders` (R, n) int64 with a permutation for each seed of a generator."""
    generator = Generator()  # one for all: seeding it sets its whole state
    for seed, order in zip(seeds, orders.unbind(), strict=True):
        torch.randperm(orders.shape[1], generator=generator.manual_seed(seed), out=order)


def epoch_orders(
    num_samples: int,
    seeds: Sequence[int],
    epoch: int,
    out: Tensor | None = None,
    draw: Callable[[Sequence[int], Tensor], None] = permutations,
) -> Tensor:
    """The order of each of these seeds, (R, num_samples) int64.

    Args:
        out: where to write them; None for a new tensor.
        draw: as `permutations`, with the same result.
    """
    places = {seed: place for place, seed in enumerate(dict.fromkeys(seeds))}  # runs of one seed share their order
    all_differ = len(places) == len(seeds)
    orders = out if out is not None and all_differ else torch.empty(len(places), num_samples, dtype=torch.int64)
    digests = (hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest() for seed in places)
    draw([int.from_bytes(digest[:8], "big", signed=True) for digest in digests], orders)
    if all_differ:
        return orders
    return torch.index_select(orders, 0, torch.tensor([places[seed] for seed in seeds]), out=out)


class Batches:
    """Iterates over `(inputs, labels)` in slices; the smaller last batch is kept. Each of several ranks gets its share.

    Args:
        inputs: (N, I).
        labels: classes (N,), or values (N, T).
        order: returns the order of the samples when an iteration begins; None keeps their order.
        weights: of the samples, (N,), as a third part of each batch.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        batch_size: int,
        order: Callable[[], Tensor] | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.inputs, self.labels, self.batch_size, self.order = inputs, labels, batch_size, order
        self.weights = weights

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        # a generator: `order` is called with the first batch, when Lightning knows its epoch
        tensors = [self.inputs, self.labels, *([] if self.weights is None else [self.weights])]
        if self.order is not None:
            order = self.order()
            tensors = [tensor[order] for tensor in tensors]
        part = share()
        # each batch is copied: the bits of a matrix product may depend on the alignment of its operands
        for start in range(0, len(self.labels), self.batch_size):
            mine = part.slice(start, min(start + self.batch_size, len(self.labels)))
            yield tuple(tensor[mine].clone() for tensor in tensors)
