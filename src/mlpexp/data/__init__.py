"""Data sets by name: a table in, fitted preprocessing, parts, batches of tensors out.

Nothing heavy is imported before a data set is read: `digest` is asked at the front door.
"""

from typing import TYPE_CHECKING

from mlpexp.config.schema import DataConfig

if TYPE_CHECKING:
    from mlpexp.data.datamodule import TableDataModule
    from mlpexp.data.prepared_data import Prepared
    from mlpexp.data.raw_table import Table


def load(cfg: DataConfig) -> "Table":
    """The whole data set that `cfg` names, untransformed; read once per process.

    Raises:
        UserError: it cannot be read, or is not what it has to be.
    """
    if cfg.name == "digits":
        from mlpexp.data.digits import digits_table

        return digits_table()
    if cfg.name in ("wine", "breast_cancer", "iris"):
        from mlpexp.data.sklearn_tables import ready_made_table

        return ready_made_table(cfg.name)
    if cfg.name == "csv":
        from mlpexp.data.user_table import own_table

        return own_table(cfg)
    from mlpexp.data.synthetic import generated_table

    return generated_table(cfg)


def prepare(cfg: DataConfig) -> "Prepared":
    """The same, split and transformed as `cfg` says; what runs of equal data share.

    Raises:
        UserError: see `load`; or it cannot be split as asked.
    """
    from mlpexp.data import prepared_data

    return prepared_data.prepare(load(cfg), cfg)


def module(cfg: DataConfig, seed: int) -> "TableDataModule":
    """The LightningDataModule of the data set that `cfg` names; `seed` orders the batches."""
    if cfg.name == "digits":
        from mlpexp.data.digits import DigitsDataModule

        return DigitsDataModule(cfg, seed)
    if cfg.name in ("wine", "breast_cancer", "iris"):
        from mlpexp.data.sklearn_tables import ReadyMadeDataModule

        return ReadyMadeDataModule(cfg, seed)
    if cfg.name == "csv":
        from mlpexp.data.user_table import CsvDataModule

        return CsvDataModule(cfg, seed)
    from mlpexp.data.synthetic import GeneratedDataModule

    return GeneratedDataModule(cfg, seed)
