"""CRC-32C (Castagnoli), the checksum of TFRecords, in numpy; TensorBoard's own is a loop in Python.

A CRC is linear over exclusive or. So a byte's contribution depends only on the byte and on how many bytes follow it:
all contributions are looked up at once in a table with a row for each position in a block.
"""

from functools import cache

import numpy as np

POLYNOMIAL = 0x82F63B78  # bits reversed
BLOCK = 256  # bytes


def masked_crc32c(data: bytes) -> int:
    """The form that is stored: rotated and shifted, since a CRC over data and its own CRC is constant."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC of at least four bytes."""
    table, offsets = _table()  # (BLOCK * 256,), (BLOCK,)
    rows = -(-len(data) // BLOCK)
    padded = np.zeros(rows * BLOCK, dtype=np.intp)  # leading zeros do not change a CRC that starts with zero
    content = padded[-len(data) :]
    content[:] = np.frombuffer(data, dtype=np.uint8)
    content[:4] ^= 0xFF  # instead of starting with 0xFFFFFFFF
    shares = table[padded.reshape(rows, BLOCK) + offsets]  # (rows, BLOCK)
    crc = 0
    for block in np.bitwise_xor.reduce(shares, axis=1).tolist():
        # the CRC of the blocks before is combined with the first four bytes by exclusive or
        for place in range(4):
            block ^= int(table[place * 256 + (crc >> 8 * place & 0xFF)])  # noqa: PLW2901
        crc = block
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    shares = np.empty((BLOCK, 256), dtype=np.uint32)
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, last >> 1 ^ POLYNOMIAL, last >> 1)
    shares[-1] = last
    for place in range(BLOCK - 2, -1, -1):
        shares[place] = last[shares[place + 1] & 0xFF] ^ shares[place + 1] >> 8
    return shares.ravel(), np.arange(BLOCK) * 256
