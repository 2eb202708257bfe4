"""The split into training, validation and test samples: stratified by class, a pure function of the data seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpexp.config.overrides import shell_word
from mlpexp.data.data_config import DataConfig
from mlpexp.data.stratified_split import stratified_split
from mlpexp.runtime.errors import UserError

Indices = NDArray[np.int64]


class Split(NamedTuple):
    """Sorted indices into the whole data set; `test` may be empty."""

    train: Indices
    val: Indices
    test: Indices


def split(
    labels: NDArray[Any],
    cfg: DataConfig,
    separate_parts: Mapping[str, Indices] = MappingProxyType({}),
    names: Sequence[str] = (),
) -> Split:
    """Divide `labels` as `cfg` says; with `split=none` everything trains and everything validates.

    Args:
        labels: classes (N,), or values (N, T), which are divided at random.
        separate_parts: indices of `val` and `test` with files of their own; all others are of the training file.
        names: of the classes.

    Raises:
        UserError: a class is too small to be in every part; the message proposes settings with which it is not.
    """
    if has_values := labels.ndim == 2:
        labels = np.zeros(len(labels), dtype=np.int64)  # one class: nothing to stratify by
    try:
        return _split(labels, cfg, separate_parts)
    except ValueError as error:
        training_labels = labels[: len(labels) - sum(map(len, separate_parts.values()))]
        settings = f"data.folds={cfg.folds}" if cfg.folds is not None else f"data.val_fraction={cfg.val_fraction}"
        if "test" not in separate_parts:
            settings += f" and data.test_fraction={cfg.test_fraction}"
        if has_values:
            reason = f"every part needs samples, and there are only {len(training_labels)}"
        else:
            counts = np.bincount(training_labels)
            rarest = names[int(counts.argmin())] if names else counts.argmin()
            reason = (
                f"every part needs samples of every class, and class {rarest} has only {counts.min()} of "
                f"{len(training_labels)}"
            )
        raise UserError(f"{settings} cannot be: {reason}; {_remedy(labels, cfg, separate_parts)}") from error


def _split(labels: NDArray[np.int64], cfg: DataConfig, separate_parts: Mapping[str, Indices]) -> Split:
    """
    Raises:
        ValueError: some part would have no sample of some class.
    """
    everything = np.arange(len(labels) - sum(map(len, separate_parts.values())))
    if cfg.split == "none":
        return Split(everything, everything, everything[:0])
    labels = labels[: len(everything)]
    remaining, test = everything, separate_parts.get("test", everything[:0])
    if "test" not in separate_parts:
        remaining, test = _take(everything, labels, cfg.test_fraction * len(labels), cfg.seed)
    if "val" in separate_parts:
        train, val = remaining, separate_parts["val"]
    elif cfg.folds is None:
        train, val = _take(remaining, labels, cfg.val_fraction * len(labels), cfg.seed)
    else:
        if _smallest(labels, remaining) < cfg.folds:  # scikit-learn would leave it out of some folds
            raise ValueError("fewer samples of a class than folds")
        from sklearn.model_selection import StratifiedKFold  # late: a second

        folds = StratifiedKFold(cfg.folds, shuffle=True, random_state=cfg.seed)
        train, val = (remaining[part] for part in list(folds.split(remaining, labels[remaining]))[cfg.fold])
    drawn_parts = (
        [train]
        + [val] * ("val" not in separate_parts)
        + [test] * ("test" not in separate_parts and cfg.test_fraction > 0)
    )
    if any(_smallest(labels, part) == 0 for part in drawn_parts):
        raise ValueError("no sample of a class in some part")
    return Split(np.sort(train), np.sort(val), np.sort(test))


def _take(among: Indices, labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    """`among` without a stratified share (in samples) of it, and the share."""
    if share == 0:
        return among, among[:0]
    remaining, selected = stratified_split(labels[among], round(share), seed)
    return among[remaining], among[selected]


def _smallest(labels: NDArray[np.int64], part: Indices) -> int:
    """The number of samples of the rarest class in `part`."""
    return int(np.bincount(labels[part], minlength=labels.max() + 1).min())


def _remedy(labels: NDArray[np.int64], cfg: DataConfig, separate_parts: Mapping[str, Indices]) -> str:
    for changes in _other_settings(cfg, separate_parts):
        try:
            _split(labels, replace(cfg, **changes), separate_parts)
        except ValueError:
            continue
        return f"choose e.g. {' '.join(shell_word(f'data.{key}', value) for key, value in changes.items())}"
    return "add samples of the class, or remove those that there are"


def _other_settings(cfg: DataConfig, separate_parts: Mapping[str, Indices]) -> Iterator[dict[str, Any]]:
    """Settings that may work where `cfg` does not, the nearest first."""
    if cfg.folds is not None:
        yield from ({"folds": folds} | ({"fold": 0} if cfg.fold >= folds else {}) for folds in (5, 3, 2))
        yield from ({"folds": folds, "fold": 0, "test_fraction": 0.0} for folds in (5, 3, 2))
    shares = [share for share in (0.15, 0.25) if share > cfg.val_fraction]
    tests = [share for share in (0.15, 0.25) if share > cfg.test_fraction > 0]
    if "test" not in separate_parts:
        yield from ({"test_fraction": test} for test in tests)
        if cfg.test_fraction > 0:
            yield {"test_fraction": 0.0}
    yield from ({"val_fraction": share} for share in shares)
    if "test" not in separate_parts:
        yield from ({"val_fraction": share, "test_fraction": test} for share in (0.15, 0.25) for test in (0.15, 0.25))
        yield from ({"val_fraction": share, "test_fraction": 0.0} for share in shares)
    if not separate_parts:
        yield {"split": "none", "folds": None, "fold": 0} if cfg.folds is not None else {"split": "none"}


def balanced_weights(labels: NDArray[Any], num_classes: int) -> list[float]:
    """n/(k*count) for each class, (C,), as scikit-learn weights it; 0 for a class without labels."""
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.zeros(num_classes)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    listed: list[float] = weights.tolist()
    return listed


def noisy_labels(labels: NDArray[Any], train: Indices, num_classes: int, cfg: DataConfig) -> NDArray[Any]:
    """`labels` with the share `cfg.label_noise` of the training labels replaced by classes drawn at random."""
    if cfg.label_noise == 0:
        return labels
    generator = np.random.default_rng([cfg.seed, 1])  # another stream than that of the split
    chosen = generator.choice(train, size=round(cfg.label_noise * len(train)), replace=False)
    noisy = labels.copy()
    noisy[chosen] = generator.integers(num_classes, size=len(chosen))
    return noisy
