"""A whole data set as it was read, before anything is fitted to it.

Letters: N samples, J number columns, K category columns.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """Samples in their own units: numbers, categories, labels.

    A loader leaves `digest` and `image_shape` to `data.load`, unless it knows better.
    """

    inputs: NDArray[np.floating[Any]]  # (N, J); NaN where a value is missing
    labels: NDArray[np.int64]  # (N,)
    class_names: list[str]
    names: list[str]  # of the number columns, J
    digest: str = ""  # SHA-256 of what determines the content
    categories: NDArray[np.object_] | None = None  # (N, K) texts, None where one is missing
    category_names: list[str] = []  # noqa: RUF012 - never changed
    image_shape: tuple[int, int] | None = None  # (height, width) where a sample is an image
    given: Mapping[str, NDArray[np.int64]] = {}  # indices of `val` and `test` where they have files of their own

    def content_digest(self) -> str:
        """SHA-256 of the arrays and names, for data sets that state no digest of their own."""
        content = hashlib.sha256(repr((self.class_names, self.names, self.category_names, self.image_shape)).encode())
        for array in (self.inputs, self.labels):
            content.update(f"{array.dtype.str}{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        if self.categories is not None:
            content.update(repr(self.categories.tolist()).encode())
        return content.hexdigest()
