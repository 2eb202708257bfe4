"""The data of one run as a trainer needs it: inputs, labels, and the indices of the three parts."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from mlpexp.config.schema import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.data.fit_preprocessing import balanced_weights, fit
from mlpexp.data.preprocessing import Features
from mlpexp.data.raw_table import Table
from mlpexp.data.splits import Split, noisy_labels, split

KEPT = 16  # transformed data sets at once: all that a stack of k folds uses, and no more than memory can hold


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """What runs of equal data configuration share; not to be changed.

    Attributes:
        labels: true ones, (N,) int64.
        train_labels: with label noise in the training part, (N,) int64.
        features: fitted to the training part only, so that nothing of the test leaks into training.
        description: what a checkpoint says of the data.
    """

    table: Table
    labels: Tensor
    train_labels: Tensor
    split: Split
    features: Features
    description: Description

    @property
    def inputs(self) -> Tensor:
        """(N, I) float32; one tensor for all whose features were fitted to the same values."""
        return _inputs(_Transformed(self.table, self.features))

    @property
    def inputs_key(self) -> object:
        """Equal where the inputs are; can be hashed."""
        return self.digest, self.features.key

    @property
    def num_inputs(self) -> int:
        return self.features.num_inputs

    @property
    def class_names(self) -> list[str]:
        return self.table.class_names

    @property
    def num_classes(self) -> int:
        return len(self.table.class_names)

    @property
    def digest(self) -> str:
        """Of the data before it was transformed."""
        return self.table.digest

    @property
    def image_shape(self) -> tuple[int, int] | None:
        return self.table.image_shape

    def class_counts(self) -> list[int]:
        """Training samples of each class, with label noise where there is any."""
        counts: list[int] = self.part("train")[1].bincount(minlength=self.num_classes).tolist()
        return counts

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of `train` (with its noisy labels), `val` or `test`."""
        index = torch.from_numpy(getattr(self.split, name))
        labels = self.train_labels if name == "train" else self.labels
        return self.inputs[index], labels[index]


class _Transformed:
    """A table under features, equal where the outcome is."""

    def __init__(self, table: Table, features: Features) -> None:
        self.table, self.features = table, features

    def __hash__(self) -> int:
        return hash((self.table.digest, self.features.key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Transformed) and (self.table.digest, self.features.key) == (
            other.table.digest,
            other.features.key,
        )


@lru_cache(maxsize=KEPT)
def _inputs(wanted: _Transformed) -> Tensor:
    return torch.from_numpy(wanted.features.transform(wanted.table.inputs, wanted.table.categories))


_cache: dict[tuple[str, DataConfig], Prepared] = {}


def prepare(table: Table, cfg: DataConfig) -> Prepared:
    """Split `table` as `cfg` says and fit its features; remembered, so that a sweep over seeds does it once.

    Raises:
        UserError: the data cannot be split as asked.
    """
    key = table.digest, replace(cfg, batch_size=1, shuffle=False)  # what does not matter here
    if key not in _cache:
        parts = split(table.labels, cfg, table.given, table.class_names)
        features = fit(table, parts.train, cfg.missing)
        labels = torch.from_numpy(table.labels)
        noisy = noisy_labels(table.labels, parts.train, len(table.class_names), cfg)
        _cache[key] = Prepared(
            table=table,
            labels=labels,
            train_labels=labels if noisy is table.labels else torch.from_numpy(noisy),
            split=parts,
            features=features,
            description=Description(
                name=cfg.name,
                digest=table.digest,
                class_names=table.class_names,
                features=features,
                image_shape=table.image_shape,
                class_weights=(
                    balanced_weights(noisy[parts.train], len(table.class_names)) if cfg.class_weight else None
                ),
            ),
        )
    return _cache[key]
