"""Preprocessing fitted to the training part by scikit-learn's own transformers, kept as plain numbers."""

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from mlpexp.data.features import Features
from mlpexp.data.table import Table


def fit(table: Table, train: NDArray[np.int64]) -> Features:
    """Pictures are divided by their greatest value, numbers get mean 0 and standard deviation 1."""
    numbers = table.inputs[train]
    if table.image_shape is not None:
        greatest = float(numbers.max())
        return Features(names=table.names, shift=[0.0] * len(table.names), scale=[greatest or 1.0] * len(table.names))
    scaler = StandardScaler().fit(numbers)
    return Features(names=table.names, shift=scaler.mean_.tolist(), scale=scaler.scale_.tolist())
