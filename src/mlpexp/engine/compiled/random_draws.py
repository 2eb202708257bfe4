"""Permutations and uniform numbers as torch's CPU generator draws them, for many seeds in one call.

The generator is MT19937 (Matsumoto & Nishimura 1998, mt19937ar.c), seeded with the lower 32 bits of the seed.
`draws.py` calls these functions and compares them with torch.
"""

import math

import numpy as np
from numba import njit, types

WORDS, SHIFT = 624, 397  # of its state
WORD = np.uint32
TWENTY_FOUR_BITS = WORD((1 << 24) - 1)


def permutations(seeds, orders):
    """`torch.randperm` for each seed: Fisher and Yates' shuffle from the left. `orders` (R, n) is overwritten."""
    n = orders.shape[1]
    state, words, partners = np.empty(WORDS, WORD), np.empty(n, WORD), np.empty(n, np.int64)
    for run in range(len(seeds)):
        _seed(state, seeds[run])
        _draw(state, words, n - 1)
        for i in range(n - 1):  # a vector at a time; exact in double precision, since both are below 2^32
            word, count = np.float64(words[i]), np.float64(n - i)
            partners[i] = i + np.int64(word - math.floor(word / count) * count)
        order = orders[run]
        for i in range(n):
            order[i] = i
        for i in range(n - 1):
            partner = partners[i]
            order[i], order[partner] = order[partner], order[i]


def uniforms(seeds, sizes, lows, spans, fused, values):
    """`tensor.uniform_(low, low + span)` for tensors of these sizes, one after the other, for each seed.

    `values`: of the first tensor for all seeds, of the second, and so on. A span of 0 draws nothing and writes zeros.
    `fused`: the product and the sum are rounded once, as torch does where the processor can.
    """
    total, count = 0, 0
    for k in range(len(sizes)):
        total += sizes[k]
        count += sizes[k] if spans[k] > 0 else 0
    state, words = np.empty(WORDS, WORD), np.empty(count, WORD)
    for run in range(len(seeds)):
        _seed(state, seeds[run])
        _draw(state, words, count)
        begin, drawn = 0, 0
        for k in range(len(sizes)):
            size, low, span = sizes[k], lows[k], spans[k]
            start = begin * len(seeds) + run * size
            begin += size
            if span == 0:
                values[start : start + size] = 0
                continue
            for i in range(size):
                share = np.float32(words[drawn + i] & TWENTY_FOUR_BITS) * np.float32(2**-24)
                if fused:  # the sum is exact in double precision: it has less than 53 bits
                    values[start + i] = np.float32(np.float64(share) * np.float64(span) + np.float64(low))
                else:
                    values[start + i] = share * span + low
            drawn += size


@njit(nogil=True, error_model="numpy")
def _seed(state, seed):
    word = WORD(seed)
    state[0] = word
    for i in range(1, WORDS):
        word = WORD(WORD(1812433253) * WORD(word ^ (word >> WORD(30))) + WORD(i))
        state[i] = word


@njit(nogil=True, error_model="numpy")
def _draw(state, words, count):
    """The next `count` words; the generator has just been seeded."""
    for start in range(0, count, WORDS):
        _renew(state)
        for i in range(min(WORDS, count - start)):
            word = state[i]
            word ^= word >> WORD(11)
            word ^= (word << WORD(7)) & WORD(0x9D2C5680)
            word ^= (word << WORD(15)) & WORD(0xEFC60000)
            words[start + i] = word ^ (word >> WORD(18))


@njit(nogil=True, error_model="numpy")
def _renew(state):
    ahead = WORDS - SHIFT
    for i in range(ahead):  # each loop reads what it has not written yet, or what the one before has
        state[i] = _mixed(state[i], state[i + 1], state[i + SHIFT])
    for i in range(ahead, WORDS - 1):
        state[i] = _mixed(state[i], state[i + 1], state[i - ahead])
    state[WORDS - 1] = _mixed(state[WORDS - 1], state[0], state[SHIFT - 1])


@njit(nogil=True, error_model="numpy")
def _mixed(word, next_word, other):
    joined = (word & WORD(0x80000000)) | (next_word & WORD(0x7FFFFFFF))
    return WORD(other ^ (joined >> WORD(1)) ^ ((WORD(0) - (next_word & WORD(1))) & WORD(0x9908B0DF)))


_VECTOR, _FLOATS = types.int64[::1], types.float32[::1]
SIGNATURES = {
    "permutations": types.void(_VECTOR, types.int64[:, ::1]),
    "uniforms": types.void(_VECTOR, _VECTOR, _FLOATS, _FLOATS, types.boolean, _FLOATS),
}
