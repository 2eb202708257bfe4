"""Which samples train, validate and test: stratified by class, a pure function of the data seed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from mlpexp.config import DataConfig
from mlpexp.errors import UserError

Indices = NDArray[np.int64]


class Split(NamedTuple):
    """Sorted indices into the whole data set; `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def split(labels: NDArray[np.int64], cfg: DataConfig) -> Split:
    """Divide `labels` (N,) as `cfg` says; with `split=none` everything trains and everything validates.

    Raises:
        UserError: a class is too small to be in every part.
    """
    everything = np.arange(len(labels))
    if cfg.split == "none":
        return Split(everything, everything, everything[:0])
    try:
        rest, test = _take(everything, labels, cfg.test_fraction * len(labels), cfg.seed)
        if cfg.folds is not None:
            folds = StratifiedKFold(cfg.folds, shuffle=True, random_state=cfg.seed)
            train, val = list(folds.split(rest, labels[rest]))[cfg.fold]
            train, val = rest[train], rest[val]
        else:
            train, val = _take(rest, labels, cfg.val_fraction * len(labels), cfg.seed)
    except ValueError as error:
        raise UserError(f"the data cannot be split as asked: {error}") from error
    return Split(np.sort(train), np.sort(val), np.sort(test))


def _take(among: Indices, labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    count = round(share)
    if share == 0:
        return among, among[:0]
    kept, taken = train_test_split(among, test_size=count, stratify=labels[among], random_state=seed)
    return kept, taken


def noisy_labels(
    labels: NDArray[np.int64], train: Indices, num_classes: int, cfg: DataConfig
) -> NDArray[np.int64]:
    """`labels` with the share `cfg.label_noise` of the training ones replaced by classes drawn at random."""
    if cfg.label_noise == 0:
        return labels
    generator = np.random.default_rng([cfg.seed, 1])  # another stream than the split's
    chosen = generator.choice(train, size=round(cfg.label_noise * len(train)), replace=False)
    noisy = labels.copy()
    noisy[chosen] = generator.integers(num_classes, size=len(chosen))
    return noisy
