"""Which repetitions are independent: seeds; or folds and data seeds, over whose seeds the mean is taken.

N runs, C configurations, B blocks.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mlpexp.analysis.sweep_table import SweepTable, is_shared
from mlpexp.config.schema import defaults
from mlpexp.data.data_sets import DATA_SETS

NAMES = {"seed": "seeds", "data.fold": "folds", "data.seed": "data seeds"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """The independent repetitions of a sweep. Runs of one fold share their samples, so that their mean counts once."""

    study: SweepTable
    of_run: np.ndarray
    """(N,) the block of each run"""
    shared: bool
    """block b is the same in every configuration"""
    keys: tuple[str, ...]
    """what makes a block, of `NAMES`"""
    sampling: float
    """samples that are measured over training samples, where blocks are parts of one data set; else 0"""

    @property
    def name(self) -> str:
        """`seeds`, `folds`, `data seeds`, or `repetitions`."""
        return NAMES[self.keys[0]] if len(self.keys) == 1 else "repetitions"

    @property
    def are_averaged(self) -> bool:
        """Whether a block has several runs of a configuration."""
        return len(self.keys) < len(self.study.seeds)

    def table(self, metric: str) -> np.ndarray:
        """(C, B) the mean of a metric over the runs of a block that count; NaN where there is none."""
        study, values = self.study, self.study.values[metric]
        used = study.counted & np.isfinite(values)
        shape = study.num_configurations, int(self.of_run.max(initial=-1)) + 1
        cell = study.configuration[used] * shape[1] + self.of_run[used]
        count = np.bincount(cell, minlength=shape[0] * shape[1])
        total = np.bincount(cell, weights=values[used], minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore"):
            return (total / count).reshape(shape)


def independent_blocks(study: SweepTable, data: Mapping[str, Collection[str]]) -> Blocks:
    """The blocks of a sweep.

    Data seeds draw another test part, so they are the blocks where there is one; folds leave it as it is.

    Args:
        data: the values of the settings `data.*`, see `Sources.data`.
    """
    tested = any(name.startswith("test/") and np.isfinite(v).any() for name, v in study.values.items())
    varied = {key.name: key for key in study.seeds if len(key.levels) > 1}
    split_keys = [name for name in ("data.seed", "data.fold") if name in varied]
    if tested and "data.seed" in split_keys:
        split_keys = ["data.seed"]
    if not split_keys:
        keys = tuple(key.name for key in study.seeds)
        return Blocks(study=study, of_run=study.repetition, shared=study.shares_seeds, keys=keys, sampling=0.0)
    codes = np.stack([varied[name].codes for name in split_keys], axis=1)
    _, of_run = np.unique(codes, axis=0, return_inverse=True)
    of_run = of_run.reshape(-1)
    pairs = np.unique(np.stack([study.configuration, of_run], axis=1), axis=0)
    shared = is_shared(pairs[:, 0], pairs[:, 1], study.num_configurations)
    num_folds = len(varied["data.fold"].levels) if "data.fold" in varied else 0
    sampling = _sampling(data, split_keys, num_folds, tested)
    return Blocks(study=study, of_run=of_run, shared=shared, keys=tuple(split_keys), sampling=sampling)


def _sampling(data: Mapping[str, Collection[str]], split_keys: Collection[str], num_folds: int, tested: bool) -> float:
    """Samples of the measured part over those of the training part (Nadeau & Bengio 2003, Machine Learning 52)."""
    names = data.get("data.name", ())
    if (
        "data.fold" not in split_keys
        and names
        and all(name in DATA_SETS and DATA_SETS[name].generated for name in names)
    ):
        return 0.0  # each data seed draws samples of its own
    data = {f"data.{key}": {str(value)} for key, value in defaults()["data"].items()} | dict(data)
    folds = max([*_numbers(data, "data.folds"), num_folds])
    test = max(_numbers(data, "data.test_fraction"), default=0.0)
    if folds > 1:
        train = (1 - test) * (folds - 1) / folds
        measured = test if tested and "data.seed" in split_keys else (1 - test) / folds
    else:
        validation = max(_numbers(data, "data.val_fraction"), default=0.0)
        train = 1 - test - validation
        measured = test if tested else validation
    return measured / train if train > 0 else 0.0


def _numbers(data: Mapping[str, Collection[str]], key: str) -> list[float]:
    return [float(text) for text in data.get(key, ()) if text not in ("None", "null", "default")]
