"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, as a LightningDataModule."""

import logging
from functools import cache

import numpy as np
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from torch import Tensor

from mlpexp.config import DataConfig
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.digest import digits_digest
from mlpexp.data.prepared import Prepared, Table, prepare

IMAGE_SHAPE = (8, 8)
EVALUATION_BATCH = 65_536  # samples; digits are evaluated in one piece

log = logging.getLogger(__name__)


@cache
def digits_table() -> Table:
    """The digits as float32 (1797, 64), values 0 to 16, and int64 labels; read once per process."""
    bunch = load_digits()
    inputs, labels = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    return Table(inputs, labels, [str(name) for name in bunch.target_names], digits_digest())


class DigitsDataModule(LightningDataModule):
    """Digits scaled to [0, 1] and flattened, split and batched as `cfg` says.

    Attributes:
        prepared: the tensors and the three parts, after `setup`.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self._prepared: Prepared | None = None

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            self.setup()
        assert self._prepared is not None
        return self._prepared

    def setup(self, stage: str | None = None) -> None:
        if self._prepared is not None:  # fit, validate and test share one preparation
            return
        self._prepared = prepare(digits_table(), self.cfg)
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
