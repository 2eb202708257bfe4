"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, as a LightningDataModule."""

import hashlib
import logging
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from mlpexp.config import DataConfig
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.splits import Split, noisy_labels, split

IMAGE_SHAPE = (8, 8)
EVALUATION_BATCH = 65_536  # samples; digits are evaluated in one piece

log = logging.getLogger(__name__)


class Table(NamedTuple):
    """A whole data set, unscaled."""

    inputs: NDArray[np.float32]  # (N, I)
    labels: NDArray[np.int64]  # (N,)
    class_names: list[str]
    digest: str  # SHA-256 of the bytes


@cache
def digits_table() -> Table:
    """The digits as float32 (1797, 64), values 0 to 16, and int64 labels; read once per process."""
    bunch = load_digits()
    inputs, labels = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    digest = hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest()
    return Table(inputs, labels, [str(name) for name in bunch.target_names], digest)


class DigitsDataModule(LightningDataModule):
    """Digits scaled to [0, 1] and flattened, split and batched as `cfg` says.

    Attributes after `setup`:
        inputs: (N, 64) float32; labels: (N,) int64, true; train_labels: the same with label noise.
        split: indices of the three parts.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self.inputs = self.labels = self.train_labels = torch.empty(0)
        self.split: Split | None = None

    @property
    def class_names(self) -> list[str]:
        return digits_table().class_names

    @property
    def num_features(self) -> int:
        return digits_table().inputs.shape[1]

    @property
    def digest(self) -> str:
        return digits_table().digest

    def setup(self, stage: str | None = None) -> None:
        if self.split is not None:  # fit, validate and test share one preparation
            return
        table = digits_table()
        self.split = split(table.labels, self.cfg)
        if self.cfg.batch_size > len(self.split.train):
            log.warning(
                "data.batch_size=%d is larger than the %d training samples: every epoch is one step",
                self.cfg.batch_size,
                len(self.split.train),
            )
        # fitted on the training part only, so that nothing of the test leaks into training
        scale = table.inputs[self.split.train].max()
        self.inputs = torch.from_numpy(table.inputs / scale)
        self.labels = torch.from_numpy(table.labels)
        self.train_labels = torch.from_numpy(
            noisy_labels(table.labels, self.split.train, len(table.class_names), self.cfg)
        )

    def train_dataloader(self) -> Batches:
        inputs, labels = self.part("train")
        if not self.cfg.shuffle:
            return Batches(inputs, labels, self.cfg.batch_size)

        def order() -> Tensor:
            return epoch_order(len(labels), self.seed, self.trainer.current_epoch if self.trainer else 0)

        return Batches(inputs, labels, self.cfg.batch_size, order)

    def val_dataloader(self) -> Batches:
        return Batches(*self.part("val"), EVALUATION_BATCH)

    def test_dataloader(self) -> Batches:
        return Batches(*self.part("test"), EVALUATION_BATCH)

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of `train` (with its noisy labels), `val` or `test`."""
        assert self.split is not None, "setup() comes first"
        index = torch.from_numpy(getattr(self.split, name))
        labels = self.train_labels if name == "train" else self.labels
        return self.inputs[index], labels[index]
