"""Which samples train, validate and test: stratified by class, a pure function of the data seed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.schema import DataConfig
from mlpexp.runtime.errors import UserError

Indices = NDArray[np.int64]


class Split(NamedTuple):
    """Sorted indices into the whole data set; `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def split(
    labels: NDArray[np.int64],
    cfg: DataConfig,
    given: Mapping[str, Indices] = MappingProxyType({}),
    names: Sequence[str] = (),
) -> Split:
    """Divide `labels` (N,) as `cfg` says; with `split=none` everything trains and everything validates.

    Args:
        given: `val` and `test` where they are not to be chosen.
        names: of the classes.

    Raises:
        UserError: a class is too small to be in every part.
    """
    if given:
        return _around(labels, cfg, given, names)
    everything = np.arange(len(labels))
    if cfg.split == "none":
        return Split(everything, everything, everything[:0])
    try:
        rest, test = _take(everything, labels, cfg.test_fraction * len(labels), cfg.seed)
        if cfg.folds is None:
            train, val = _take(rest, labels, cfg.val_fraction * len(labels), cfg.seed)
        else:
            if _smallest(labels, rest) < cfg.folds:  # scikit-learn would leave it out of some folds
                raise _too_few(labels, cfg, names)
            from sklearn.model_selection import StratifiedKFold  # late: a second

            folds = StratifiedKFold(cfg.folds, shuffle=True, random_state=cfg.seed)
            train, val = (rest[part] for part in list(folds.split(rest, labels[rest]))[cfg.fold])
    except ValueError as error:
        raise _too_few(labels, cfg, names) from error
    if any(_smallest(labels, part) == 0 for part in (train, val, test) if part is not test or cfg.test_fraction > 0):
        raise _too_few(labels, cfg, names)
    return Split(np.sort(train), np.sort(val), np.sort(test))


def _around(labels: NDArray[np.int64], cfg: DataConfig, given: Mapping[str, Indices], names: Sequence[str]) -> Split:
    """The parts that are not given, out of the first file's samples."""
    none = np.arange(0)
    first = np.arange(len(labels) - sum(map(len, given.values())))
    rest = replace(cfg, test_fraction=0.0) if "test" in given else cfg
    if "val" not in given:
        own = split(labels[first], rest, names=names)
        return Split(own.train, own.val, given.get("test", own.test))
    train, test = first, none
    if rest.test_fraction > 0:
        try:
            train, test = _take(first, labels, rest.test_fraction * len(first), cfg.seed)
        except ValueError as error:
            raise _too_few(labels[first], cfg, names) from error
    return Split(np.sort(train), given["val"], given.get("test", np.sort(test)))


def _smallest(labels: NDArray[np.int64], part: Indices) -> int:
    """How many samples of its rarest class `part` holds."""
    return int(np.bincount(labels[part], minlength=labels.max() + 1).min())


def _too_few(labels: NDArray[np.int64], cfg: DataConfig, names: Sequence[str]) -> UserError:
    counts = np.bincount(labels)
    if cfg.folds is None:
        asked, mend = f"data.val_fraction={cfg.val_fraction}", "larger parts, or no test, data.test_fraction=0"
    else:
        asked, mend = f"data.folds={cfg.folds}", "fewer folds, e.g. data.folds=2"
    rarest = names[int(counts.argmin())] if names else counts.argmin()
    return UserError(
        f"{asked} and data.test_fraction={cfg.test_fraction} cannot be: every part needs samples of every class, and "
        f"class {rarest} has only {counts.min()} of {len(labels)}; choose {mend}"
    )


def _take(among: Indices, labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    count = round(share)
    if share == 0:
        return among, among[:0]
    from sklearn.model_selection import train_test_split  # late: a second

    kept, taken = train_test_split(among, test_size=count, stratify=labels[among], random_state=seed)
    return kept, taken


def noisy_labels(labels: NDArray[np.int64], train: Indices, num_classes: int, cfg: DataConfig) -> NDArray[np.int64]:
    """`labels` with the share `cfg.label_noise` of the training ones replaced by classes drawn at random."""
    if cfg.label_noise == 0:
        return labels
    generator = np.random.default_rng([cfg.seed, 1])  # another stream than the split's
    chosen = generator.choice(train, size=round(cfg.label_noise * len(train)), replace=False)
    noisy = labels.copy()
    noisy[chosen] = generator.integers(num_classes, size=len(chosen))
    return noisy
