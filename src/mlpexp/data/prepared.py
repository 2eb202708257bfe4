"""The data of one run as a trainer needs it: scaled inputs, labels, and the indices of the three parts."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.config import DataConfig
from mlpexp.data.splits import Split, noisy_labels, split


class Table(NamedTuple):
    """A whole data set, unscaled."""

    inputs: NDArray[np.float32]  # (N, I)
    labels: NDArray[np.int64]  # (N,)
    class_names: list[str]
    digest: str  # SHA-256 of the bytes


class Prepared(NamedTuple):
    """What runs of equal data configuration share; not to be changed."""

    inputs: Tensor  # (N, I) float32, scaled by what the training part says
    labels: Tensor  # (N,) int64, true
    train_labels: Tensor  # (N,) int64, with label noise in the training part
    split: Split
    scale: float
    class_names: list[str]
    digest: str  # of the unscaled data

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of `train` (with its noisy labels), `val` or `test`."""
        index = torch.from_numpy(getattr(self.split, name))
        labels = self.train_labels if name == "train" else self.labels
        return self.inputs[index], labels[index]


_cache: dict[tuple[str, DataConfig], Prepared] = {}
_scaled: dict[tuple[str, float], tuple[Tensor, Tensor]] = {}


def prepare(table: Table, cfg: DataConfig) -> Prepared:
    """Split and scale `table` as `cfg` says; remembered, so that a sweep over seeds does it once.

    Raises:
        UserError: the data cannot be split as asked.
    """
    key = table.digest, replace(cfg, batch_size=1, shuffle=False)  # what does not matter here
    if key not in _cache:
        parts = split(table.labels, cfg)
        # fitted on the training part only, so that nothing of the test leaks into training
        scale = float(table.inputs[parts.train].max())
        if (table.digest, scale) not in _scaled:
            scaled = torch.from_numpy(table.inputs / np.float32(scale)), torch.from_numpy(table.labels)
            _scaled[table.digest, scale] = scaled
        inputs, labels = _scaled[table.digest, scale]
        noisy = noisy_labels(table.labels, parts.train, len(table.class_names), cfg)
        train_labels = labels if noisy is table.labels else torch.from_numpy(noisy)
        _cache[key] = Prepared(inputs, labels, train_labels, parts, scale, table.class_names, table.digest)
    return _cache[key]
