"""A whole data set before anything was fitted to it.

Letters: N samples, J number columns, K category columns.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """Samples as they were found: numbers, categories, labels."""

    inputs: NDArray[np.floating[Any]]  # (N, J); NaN where a value is missing
    labels: NDArray[np.int64]  # (N,)
    class_names: list[str]
    digest: str  # SHA-256 of the bytes
    names: list[str]  # of the number columns, J
    categories: NDArray[np.object_] | None = None  # (N, K) texts, None where one is missing
    category_names: list[str] = []  # noqa: RUF012 - never changed
    image_shape: tuple[int, int] | None = None  # (height, width) where a sample is a picture
    given: Mapping[str, NDArray[np.int64]] = {}
