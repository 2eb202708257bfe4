"""Arrays of a Python program as the data of a run: they are neither transformed nor written to files.

Letters: N samples, I inputs, T targets.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.data.data_description import Description
from mlpexp.data.prepared_data import Prepared
from mlpexp.data.preprocessing import Features
from mlpexp.data.splits import Split
from mlpexp.data.table import Table


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenArrays(Prepared):
    """Data whose inputs are those of its table, as they are."""

    @cached_property
    def inputs(self) -> Tensor:
        """(N, I) float32."""
        return torch.from_numpy(self.table.inputs)

    @property
    def inputs_key(self) -> object:
        """Hashable; equal where the inputs are."""
        return self.table.digest

    @cached_property
    def content_key(self) -> tuple[object, ...]:
        """Hashable; equal where inputs, labels and weights are."""
        weights = "" if self.sample_weights is None else _digest(self.sample_weights.numpy())
        return self.table.digest, _digest(self.labels.numpy()), weights, tuple(self.description.class_weights or ())

    @cached_property
    def key(self) -> tuple[object, ...]:
        """The same where the parts are equal, too."""
        return *self.content_key, *map(_digest, self.split)


def given_arrays(
    inputs: NDArray[np.float32],
    targets: NDArray[Any],
    split: Split,
    *,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    sample_weights: NDArray[np.float64] | None = None,
) -> GivenArrays:
    """
    Args:
        inputs: (N, I), contiguous.
        targets: classes (N,) int64 below `num_classes`, or values (N, T).
        num_classes: 0 for values.
        sample_weights: (N,).
    """
    count = inputs.shape[1]
    names = [f"x{i}" for i in range(count)]
    classes = [str(i) for i in range(num_classes)]
    values = [] if num_classes else [f"y{i}" for i in range(targets.shape[1])]
    features = Features(names=names, shift=[0.0] * count, scale=[1.0] * count)
    digest = _digest(inputs)
    labels = torch.from_numpy(targets.astype(np.int64 if num_classes else np.float32))
    return GivenArrays(
        table=Table(inputs, targets, classes, names, digest, target_names=values),
        labels=labels,
        train_labels=labels,
        split=split,
        features=features,
        sample_weights=None if sample_weights is None else torch.from_numpy(sample_weights.astype(np.float32)),
        description=Description(
            name="arrays",
            digest=digest,
            class_names=classes,
            features=features,
            class_weights=None if class_weights is None else list(class_weights),
            target_names=values,
            target_shift=[0.0] * len(values),
            target_scale=[1.0] * len(values),
        ),
    )


def _digest(array: NDArray[Any]) -> str:
    content = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
