"""The LightningDataModule of every data set."""

import logging

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from mlpexp import data
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.data_config import DataConfig
from mlpexp.data.prepared_data import Prepared

EVALUATION_BATCH = 65_536  # samples; most data sets are evaluated in one piece

log = logging.getLogger(__name__)


class TableDataModule(LightningDataModule):
    """The data set that `cfg` names: transformed, split and batched.

    Args:
        seed: determines the order of the training samples in each epoch.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self._prepared: Prepared | None = None

    @property
    def prepared(self) -> Prepared:
        """The tensors and the three parts."""
        if self._prepared is None:
            self.setup()
        assert self._prepared is not None
        return self._prepared

    def setup(self, stage: str | None = None) -> None:
        if self._prepared is not None:  # fit, validate and test share one preparation
            return
        self._prepared = data.prepare(self.cfg)
        size = len(self._prepared.split.train)
        if self.cfg.batch(size) > size:
            log.warning(
                "data.batch_size=%d is larger than the %d training samples: every epoch is one step",
                self.cfg.batch_size,
                size,
            )

    def train_dataloader(self) -> Batches:
        inputs, labels = self.prepared.part("train")
        weights = self.prepared.sample_weights
        weights = None if weights is None else weights[torch.from_numpy(self.prepared.split.train)]
        if not self.cfg.shuffle:
            return Batches(inputs, labels, self.cfg.batch(len(labels)), weights=weights)

        def order() -> Tensor:
            return epoch_order(len(labels), self.seed, self.trainer.current_epoch if self.trainer else 0)

        return Batches(inputs, labels, self.cfg.batch(len(labels)), order, weights)

    def val_dataloader(self) -> Batches:
        return Batches(*self.prepared.part("val"), EVALUATION_BATCH)

    def test_dataloader(self) -> Batches:
        return Batches(*self.prepared.part("test"), EVALUATION_BATCH)
