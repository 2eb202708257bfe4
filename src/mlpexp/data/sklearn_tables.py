"""scikit-learn's small tables: wine, breast_cancer, iris."""

from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine

from mlpexp.data.data_digest import shipped_digest
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.raw_table import Table

LOADERS = {"wine": load_wine, "breast_cancer": load_breast_cancer, "iris": load_iris}


@cache
def ready_made_table(name: str) -> Table:
    """Float64 inputs as they were measured, int64 labels; read once per process."""
    bunch = LOADERS[name]()
    classes, columns = ([str(each) for each in names] for names in (bunch.target_names, bunch.feature_names))
    return Table(bunch.data, bunch.target.astype(np.int64), classes, shipped_digest(name), columns)


class ReadyMadeDataModule(TableDataModule):
    """One of scikit-learn's tables, standardised."""
