"""A whole data set as it was read, before anything is fitted to it.

Letters: N samples, J number columns, K category columns, T targets.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """Samples in their own units: numbers, categories, classes or values to predict.

    A loader leaves `digest` and `image_shape` to `data.load`, unless it sets them itself.
    """

    inputs: NDArray[np.floating[Any]]  # (N, J); NaN where a value is missing
    labels: NDArray[Any]  # classes (N,) int64; in a regression values (N, T) float64
    class_names: list[str]  # empty in a regression
    names: list[str]  # of the number columns, J
    digest: str = ""  # SHA-256 of what determines the content
    categories: NDArray[np.object_] | None = None  # (N, K) texts, None where one is missing
    category_names: list[str] = []  # noqa: RUF012 - never changed
    image_shape: tuple[int, int] | None = None  # (height, width) where a sample is an image
    separate_parts: Mapping[str, NDArray[np.int64]] = {}  # indices of `val` and `test` with files of their own
    target_names: list[str] = []  # noqa: RUF012 - of the values, T; empty in a classification
    weights: NDArray[np.float64] | None = None  # of the samples, (N,)

    @property
    def num_outputs(self) -> int:
        """The outputs of a network: classes, or values."""
        return len(self.target_names or self.class_names)

    def content_digest(self) -> str:
        """SHA-256 of the arrays and names, for data sets without another digest."""
        content = hashlib.sha256(repr((self.class_names, self.names, self.category_names, self.image_shape)).encode())
        for array in (self.inputs, self.labels):
            content.update(f"{array.dtype.str}{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        if self.target_names:
            content.update(repr(self.target_names).encode())
        if self.weights is not None:
            content.update(self.weights.tobytes())
        if self.categories is not None:
            content.update(repr(self.categories.tolist()).encode())
        return content.hexdigest()
