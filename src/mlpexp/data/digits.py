"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, as a LightningDataModule."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.digest import shipped_digest
from mlpexp.data.table import Table

IMAGE_SHAPE = (8, 8)


@cache
def digits_table() -> Table:
    """The digits as float32 (1797, 64), values 0 to 16, and int64 labels; read once per process."""
    bunch = load_digits()
    inputs, labels = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    names = [str(name) for name in bunch.target_names]
    return Table(inputs, labels, names, shipped_digest("digits"), list(bunch.feature_names), image_shape=IMAGE_SHAPE)


class DigitsDataModule(TableDataModule):
    """Digits scaled to [0, 1] and flattened."""
