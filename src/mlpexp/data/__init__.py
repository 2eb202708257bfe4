"""Data sets by name, their preprocessing and splits, and batches of tensors.

Importing this package imports nothing heavy: the digest of a data set is needed before anything is trained.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from mlpexp.data.prepared_data import Prepared
    from mlpexp.data.table import Table


def digest(cfg: DataConfig) -> str:
    """SHA-256 of what determines the data set that `cfg` names: the bytes of its files, or how it is generated.

    Raises:
        UserError: a file cannot be read.
    """
    entry = DATA_SETS[cfg.name]
    return entry.digest(cfg) if entry.digest is not None else _load(cfg.reading, "").digest


def locate(cfg: DataConfig, run: "Path", trained_digest: str) -> DataConfig:
    """`cfg` with the present paths of the files that a run was trained on, which are recognised by their digest.

    Args:
        run: the run's directory.
        trained_digest: the digest of the data that the run was trained on.

    Returns:
        `cfg` itself where no such files are found.
    """
    for candidate in (cfg, *cfg.elsewhere(run)):
        try:
            if digest(candidate) == trained_digest:
                return candidate
        except UserError:
            continue
    return cfg


def load(cfg: DataConfig) -> "Table":
    """The whole data set that `cfg` names, untransformed; read once per process.

    Raises:
        UserError: it cannot be read, or is not as it has to be.
    """
    entry = DATA_SETS[cfg.name]
    return _load(cfg.reading, entry.digest(cfg) if entry.digest is not None else "")


@lru_cache(maxsize=128)
def _load(cfg: DataConfig, expected_digest: str) -> "Table":
    """`expected_digest` is part of the cache's key, so that a file that was written to is read again."""
    entry = DATA_SETS.entry_with(cfg.name, cfg.options)
    table = entry.load(cfg)
    if not table.digest:
        table = table._replace(digest=expected_digest or table.content_digest())
    if expected_digest and table.digest != expected_digest:
        raise UserError(f"data.path={cfg.path} is being written to; try again when it is complete")
    return table if entry.image_shape is None else table._replace(image_shape=entry.image_shape)


def prepare(cfg: DataConfig) -> "Prepared":
    """The same, split and transformed as `cfg` says; runs with equal data share it.

    Raises:
        UserError: see `load`; or it cannot be split as asked.
    """
    from mlpexp.data import prepared_data

    return prepared_data.prepare(load(cfg), cfg)


def clear_cache() -> None:
    """Clear the cache of data sets, because the code that loads one has changed."""
    _load.cache_clear()
