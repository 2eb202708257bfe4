"""scikit-learn's digits: 1,797 grey images of 8x8 pixels, as a LightningDataModule.

Read from the file that scikit-learn ships, which is quicker than to import scikit-learn by a second.
"""

import gzip
from functools import cache
from itertools import product

import numpy as np

from mlpexp.data.data_digest import shipped, shipped_digest
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.raw_table import Table

IMAGE_SHAPE = (8, 8)


@cache
def digits_table() -> Table:
    """The digits as float32 (1797, 64), values 0 to 16, and int64 labels; read once per process."""
    with gzip.open(shipped("digits"), "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, delimiter=",")  # a row: 64 pixels and the label
    inputs, labels = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64)
    names = [f"pixel_{row}_{column}" for row, column in product(*map(range, IMAGE_SHAPE))]
    return Table(inputs, labels, list("0123456789"), shipped_digest("digits"), names, image_shape=IMAGE_SHAPE)


class DigitsDataModule(TableDataModule):
    """Digits scaled to [0, 1] and flattened."""
