"""A LightningDataModule over one table: what all data sets share."""

import logging

from lightning.pytorch import LightningDataModule
from torch import Tensor

from mlpexp import data
from mlpexp.config.schema import DataConfig
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.prepared_data import Prepared, prepare
from mlpexp.data.raw_table import Table

EVALUATION_BATCH = 65_536  # samples; common data sets are evaluated in one piece

log = logging.getLogger(__name__)


class TableDataModule(LightningDataModule):
    """Samples transformed, split and batched as `cfg` says.

    Attributes:
        prepared: the tensors and the three parts.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self._prepared: Prepared | None = None

    def table(self) -> Table:
        """The whole data set."""
        return data.load(self.cfg)

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            self.setup()
        assert self._prepared is not None
        return self._prepared

    def setup(self, stage: str | None = None) -> None:
        if self._prepared is not None:  # fit, validate and test share one preparation
            return
        self._prepared = prepare(self.table(), self.cfg)
        size = len(self._prepared.split.train)
        if self.cfg.batch_size > size:
            log.warning(
                "data.batch_size=%d is larger than the %d training samples: every epoch is one step",
                self.cfg.batch_size,
                size,
            )

    def train_dataloader(self) -> Batches:
        inputs, labels = self.prepared.part("train")
        if not self.cfg.shuffle:
            return Batches(inputs, labels, self.cfg.batch_size)

        def order() -> Tensor:
            return epoch_order(len(labels), self.seed, self.trainer.current_epoch if self.trainer else 0)

        return Batches(inputs, labels, self.cfg.batch_size, order)

    def val_dataloader(self) -> Batches:
        return Batches(*self.prepared.part("val"), EVALUATION_BATCH)

    def test_dataloader(self) -> Batches:
        return Batches(*self.prepared.part("test"), EVALUATION_BATCH)
