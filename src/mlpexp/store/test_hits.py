"""`test_hits.txt`: which test samples a run has classified right, so that runs can be compared sample by sample.

One line, one character for each sample of the data, in its order: `1` right, `0` wrong, `-` not in the test part. So
the same position is the same sample in every run on the same data, also where the runs have other test parts.
"""

import numpy as np
from numpy.typing import NDArray

_CODES = np.frombuffer(b"01-", np.uint8)


def encode(hits: NDArray[np.bool_], tested: NDArray[np.int64], samples: int) -> str:
    """
    Args:
        hits: (m,) of the first m samples of the test part.
        tested: the test part, as indices into the data.
        samples: of the whole data.
    """
    codes = np.full(samples, 2, np.uint8)
    codes[tested[: len(hits)]] = hits
    return _CODES[codes].tobytes().decode() + "\n"


def decode(text: str) -> NDArray[np.float64] | None:
    """(N,) 1 right, 0 wrong, NaN not tested; None where the text is none that `encode` writes."""
    if not text.endswith("\n") or not text[:-1].isascii():
        return None
    codes = np.frombuffer(text[:-1].encode(), np.uint8)
    if not np.isin(codes, _CODES).all():
        return None
    return np.where(codes == _CODES[2], np.nan, codes == _CODES[1])
