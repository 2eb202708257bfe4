"""CRC-32C (Castagnoli), the checksum of TFRecords, in numpy; TensorBoard's own is a loop in Python.

A CRC is linear over exclusive or. So a byte's contribution depends only on the byte and on how many bytes follow it:
all contributions are looked up at once in a table with a row for each position in a block.
"""

from collections.abc import Sequence
from functools import cache
from itertools import islice

import numpy as np

POLYNOMIAL = 0x82F63B78  # bits reversed
BLOCK = 256  # bytes


def masked_crc32c(data: bytes) -> int:
    """The form that is stored: rotated and shifted, since a CRC over data and its own CRC is constant."""
    return masked_crc32cs([data])[0]


def masked_crc32cs(items: Sequence[bytes]) -> list[int]:
    """The same for each of several, at once."""
    return [(((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF for crc in crc32cs(items)]


def crc32cs(items: Sequence[bytes]) -> list[int]:
    """The CRC of each of several, of at least four bytes."""
    table, offsets = _table()  # (BLOCK * 256,), (BLOCK,)
    rows = [-(-len(data) // BLOCK) for data in items]
    # leading zeros do not change a CRC that starts with zero
    padded = b"".join([data.rjust(count * BLOCK, b"\0") for count, data in zip(rows, items, strict=True)])
    content = np.frombuffer(padded, dtype=np.uint8).astype(np.intp)
    end = 0
    for count, data in zip(rows, items, strict=True):
        end += count * BLOCK
        content[end - len(data) : end - len(data) + 4] ^= 0xFF  # instead of starting with 0xFFFFFFFF
    shares = table[content.reshape(-1, BLOCK) + offsets]  # (rows, BLOCK)
    blocks = iter(np.bitwise_xor.reduce(shares, axis=1).tolist())
    checksums = []
    for count in rows:
        crc = 0
        for block in islice(blocks, count):
            # the CRC of the blocks before is combined with the first four bytes by exclusive or
            if crc:
                for place in range(4):
                    block ^= int(table[place * 256 + (crc >> 8 * place & 0xFF)])  # noqa: PLW2901
            crc = block
        checksums.append(crc ^ 0xFFFFFFFF)
    return checksums


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    shares = np.empty((BLOCK, 256), dtype=np.uint32)
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, row >> 1 ^ POLYNOMIAL, row >> 1)
    shares[-1] = row
    for place in range(BLOCK - 2, -1, -1):
        shares[place] = row[shares[place + 1] & 0xFF] ^ shares[place + 1] >> 8
    return shares.ravel(), np.arange(BLOCK) * 256
