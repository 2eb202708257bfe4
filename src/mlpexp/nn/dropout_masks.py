"""The random masks of dropout: a pure function of seed, epoch, step, layer, position in the batch, and unit.

A mask is a hash of these numbers and no state of a generator, so a run has the same masks alone and in a stack, after a
resume, with any number of threads, and on any device. The hash is integer arithmetic that wraps: the 64-bit finaliser
of splitmix64 (Steele et al. 2014) for the key of a step, and twice the 32-bit one of Mueller and Wellons ("lowbias32")
for an element.

Letters: R runs, B batch, H units.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlpexp.nn.layers import Dropout
from mlpexp.nn.lazy_torch import Tensor, torch

GOLDEN = 0x9E3779B97F4A7C15
BITS_64 = (1 << 64) - 1


def draw(layer: Dropout, inputs: Tensor, seed: int, epoch: int, step: int) -> Tensor:
    """The mask of one run's training step for a batch of inputs (B, I): (B, H), in the type of the inputs.

    Args:
        epoch, step: from 0; the step within the epoch.
    """
    values = torch.empty(1, len(inputs), layer.units, dtype=inputs.dtype, device=inputs.device)
    return Masks([layer.rate], [seed], layer.stream, values).draw(epoch, step).squeeze(0)


class Masks:
    """The masks of one layer of a stack for batches of one size.

    Args:
        rates: of each run, the share that is set to 0.
        seeds: of each run.
        stream: see `Dropout`.
        values: where the masks are written, (R, B, H): 0, or 1 / (1 - rate).
    """

    def __init__(self, rates: Sequence[float], seeds: Sequence[int], stream: int, values: Tensor) -> None:
        self.values = values
        self._seeds, self._stream = seeds, stream
        self._epoch: int | None = None  # that of the keys
        self._keys = torch.empty(len(seeds), dtype=torch.int64, device=values.device)
        device, (_, batch, units) = values.device, values.shape
        drop_rates = torch.tensor(rates, dtype=torch.float64, device=device).view(-1, 1, 1)
        # compared with signed integers
        self._limits = (drop_rates * 2**32).long().sub_(1 << 31).to(torch.int32)
        self._scales = (1 - drop_rates).to(values.dtype).reciprocal_()
        self._counter = torch.arange(batch * units, dtype=torch.int32, device=device).view(1, batch, units)
        self._bits, self._shifted = (torch.empty(values.shape, dtype=torch.int32, device=device) for _ in range(2))
        self._is_kept = torch.empty(values.shape, dtype=torch.bool, device=device)

    def begin_epoch(self, epoch: int) -> None:
        """Compute the keys of an epoch, from 0; the rest depends on the step within the epoch only."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._keys.copy_(torch.tensor([_stream_key(seed, self._stream, epoch) for seed in self._seeds]))

    def draw(self, epoch: int, step: int) -> Tensor:
        """Write the masks of a training step, counted from 0 within its epoch, and return them."""
        self.begin_epoch(epoch)
        keys = _mix_64(self._keys + _signed((step + 1) * GOLDEN, 64)).view(torch.int32).view(-1, 2, 1, 1)
        bits = torch.add(self._counter, keys[:, 0], out=self._bits)
        _mix_32(bits, self._shifted)
        bits.bitwise_xor_(keys[:, 1])
        _mix_32(bits, self._shifted)
        return torch.mul(torch.ge(bits, self._limits, out=self._is_kept), self._scales, out=self.values)


def _stream_key(seed: int, stream: int, epoch: int) -> int:
    """The key of a run's masks of one layer in one epoch."""
    key = 0
    for number in (seed, stream, epoch):
        key = (key ^ number) + GOLDEN & BITS_64
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & BITS_64
        key = (key ^ key >> 27) * 0x94D049BB133111EB & BITS_64
        key ^= key >> 31
    return _signed(key, 64)


def _mix_64(keys: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64; shifts are made logical by masks."""
    keys = (keys ^ (keys >> 30 & (1 << 34) - 1)) * _signed(0xBF58476D1CE4E5B9, 64)
    keys = (keys ^ (keys >> 27 & (1 << 37) - 1)) * _signed(0x94D049BB133111EB, 64)
    return keys ^ (keys >> 31 & (1 << 33) - 1)


def _mix_32(bits: Tensor, shifted: Tensor) -> None:
    """The finaliser lowbias32 on int32, in place; `shifted` is overwritten."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        torch.bitwise_right_shift(bits, shift, out=shifted).bitwise_and_((1 << 32 - shift) - 1)
        bits.bitwise_xor_(shifted)
        if factor != 1:
            bits.mul_(_signed(factor, 32))


def _signed(number: int, bits: int) -> int:
    """The signed integer with the same bits, modulo 2 ** bits."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> bits - 1 else number
