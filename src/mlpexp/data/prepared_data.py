"""The data of one run as a trainer needs it: inputs, labels, and the indices of the three parts.

Letters: N samples, I inputs of the network, T targets of a regression.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from mlpexp.config.overrides import shell_word
from mlpexp.data import leak_checks
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.data.file_table import listed
from mlpexp.data.preprocessing import Features, fit, fit_targets
from mlpexp.data.splits import Split, balanced_weights, noisy_labels, split
from mlpexp.data.table import Table
from mlpexp.runtime import portable
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.object_cache import ByObject

KEPT = 16  # transformed data sets in memory at once: all that a stack of k folds uses


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """Shared by all runs of equal data configuration; never changed.

    Attributes:
        labels: true labels, (N,) int64; in a regression standardised values, (N, T) float32.
        train_labels: the same with label noise in the training part.
        sample_weights: in the training loss, (N,) float32; None where all are 1.
        features: preprocessing, fitted to the training part only.
        description: what a checkpoint stores about the data.
    """

    table: Table
    labels: Tensor
    train_labels: Tensor
    split: Split
    features: Features
    description: Description
    sample_weights: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """(N, I) float32; one tensor for all runs whose preprocessing is equal."""
        return _inputs(_Transformed(self.inputs_key, self.table, self.features))

    @property
    def inputs_key(self) -> object:
        """Hashable; equal where the inputs are."""
        return self.digest, self.features.key

    @property
    def num_inputs(self) -> int:
        return self.features.num_inputs

    @property
    def class_names(self) -> list[str]:
        return self.table.class_names

    @property
    def num_classes(self) -> int:
        """The outputs of a network: classes, or the values of a regression."""
        return self.table.num_outputs

    @property
    def target_scale(self) -> Tensor | None:
        """The standard deviation of each target in the training part, (T,) float64; None in a classification."""
        scale = self.description.target_scale
        return torch.tensor(scale, dtype=torch.float64) if scale else None

    @property
    def digest(self) -> str:
        """The digest of the data before it was transformed."""
        return self.table.digest

    @property
    def image_shape(self) -> tuple[int, int] | None:
        return self.table.image_shape

    @property
    def summary(self) -> str:
        """One line: samples, features and classes."""
        numbers, categories = len(self.features.names), len(self.features.category_names)
        kinds = [f"{numbers} of numbers"] * (numbers > 0) + [f"{categories} of categories"] * (categories > 0)
        sizes = [f"{len(part):,} {name}" for name, part in zip(("train", "val", "test"), self.split, strict=True)]
        inputs = f" ({self.num_inputs:,} inputs)" if categories else ""
        features = f"{numbers + categories:,} features: {' and '.join(kinds)}{inputs}"
        if self.table.target_names:
            predicted = f"to predict: {listed(self.table.target_names, 5)}"
        else:
            predicted = f"{self.num_classes:,} classes: {listed(self.class_names, 5)}"
        line = f"data: {len(self.labels):,} rows ({', '.join(sizes)}), {features}, {predicted}"
        return f"{line}; no sample {'; '.join(absent)}" if (absent := self._absent_classes()) else line

    def _absent_classes(self) -> list[str]:
        """E.g. `of x, y in val`, for each part that has samples, but not of every class."""
        if self.table.target_names:
            return []
        descriptions = []
        for name, part in zip(("train", "val", "test"), self.split, strict=True):
            counts = self.labels[torch.from_numpy(part)].bincount(minlength=self.num_classes).tolist()
            absent = [label for label, count in zip(self.class_names, counts, strict=True) if not count]
            if absent and len(part):
                descriptions.append(f"of {listed(absent, 5)} in {name}")
        return descriptions

    @cached_property
    def class_counts(self) -> list[int]:
        """Training samples of each class, (C,), counted after label noise; in a regression of all, (1,)."""
        if self.table.target_names:
            return [len(self.split.train)]
        labels = self.train_labels[torch.from_numpy(self.split.train)]
        counts: list[int] = labels.bincount(minlength=self.num_classes).tolist()
        return counts

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of `train` (with its noisy labels), `val` or `test`."""
        index = torch.from_numpy(getattr(self.split, name))
        labels = self.train_labels if name == "train" else self.labels
        return self.inputs[index], labels[index]


@dataclass(frozen=True)
class _Transformed:
    """A table and its preprocessing, equal where the resulting inputs are."""

    key: object
    table: Table = field(compare=False)
    features: Features = field(compare=False)


@lru_cache(maxsize=KEPT)
def _inputs(transformed: _Transformed) -> Tensor:
    _check_memory(transformed.table, transformed.features)
    return torch.from_numpy(transformed.features.transform(transformed.table.inputs, transformed.table.categories))


def _check_memory(table: Table, features: Features) -> None:
    """
    Raises:
        UserError: the one-hot encoded inputs are too large for this machine.
    """
    # float32 inputs, a selection of them for each part, float64 numbers while they are transformed
    needed = len(table.labels) * (8 * features.num_inputs + 16 * len(features.names))
    memory = portable.total_memory()
    if needed <= memory:
        return
    advice = "give fewer samples"
    if features.values:
        values, name = max(zip(map(len, features.values), features.category_names, strict=True))
        advice = f"column {name} alone makes {values:,} of them; leave it out with {shell_word('data.drop', [name])}"
    raise UserError(
        f"{len(table.labels):,} samples of {features.num_inputs:,} inputs need about {needed / 2**30:,.1f} GiB of "
        f"memory, and this machine has {memory / 2**30:,.1f}; {advice}"
    )


_cache: dict[tuple[str, DataConfig], Prepared] = {}
_split_config = ByObject(lambda cfg: replace(cfg, batch_size=1, shuffle=False))  # two keys that do not change the data


def prepare(table: Table, cfg: DataConfig) -> Prepared:
    """Split `table` as `cfg` says and fit the preprocessing; cached, so that a sweep over seeds does it once.

    Raises:
        UserError: the data cannot be split as asked, or is too large.
    """
    key = table.digest, _split_config(cfg)
    if key not in _cache:
        indices = split(table.labels, cfg, table.separate_parts, table.class_names)
        if table.weights is not None and not table.weights[indices.train].any():
            raise UserError(
                f"data.sample_weight={cfg.sample_weight} is 0 in the whole training part, so nothing would be trained; "
                "choose another column or another data.seed"
            )
        features = fit(table, indices.train, cfg.missing)
        _check_memory(table, features)
        targets = fit_targets(table, indices.train)
        if cfg.targets:
            leak_checks.warn(table, indices, features, cfg.targets)
        values = table.labels if targets is None else targets.transform(table.labels)
        labels = torch.from_numpy(values)
        noisy = values if targets is not None else noisy_labels(values, indices.train, len(table.class_names), cfg)
        weighted = cfg.class_weight is not None
        _cache[key] = Prepared(
            table=table,
            labels=labels,
            train_labels=labels if noisy is values else torch.from_numpy(noisy),
            sample_weights=None if table.weights is None else torch.from_numpy(table.weights.astype(np.float32)),
            split=indices,
            features=features,
            description=Description(
                name=cfg.name,
                digest=table.digest,
                class_names=table.class_names,
                features=features,
                image_shape=table.image_shape,
                class_weights=balanced_weights(noisy[indices.train], len(table.class_names)) if weighted else None,
                target_names=table.target_names,
                target_shift=[] if targets is None else targets.shift,
                target_scale=[] if targets is None else targets.scale,
            ),
        )
    return _cache[key]
