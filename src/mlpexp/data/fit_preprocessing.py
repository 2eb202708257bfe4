"""Preprocessing fitted to the training part by scikit-learn's own transformers, kept as plain numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.data.preprocessing import Features
from mlpexp.data.raw_table import Table
from mlpexp.runtime.errors import UserError


def fit(table: Table, train: NDArray[np.int64], missing: str) -> Features:
    """Pictures are divided by their greatest value, numbers get mean 0 and deviation 1, categories are one-hot.

    Args:
        missing: scikit-learn's strategy for what stands for a missing number, or `error`.

    Raises:
        UserError: the training part has no value at all in some column.
    """
    numbers = table.inputs[train]
    if table.image_shape is not None:
        greatest = float(numbers.max())
        return Features(names=table.names, shift=[0.0] * len(table.names), scale=[greatest or 1.0] * len(table.names))
    from sklearn.impute import SimpleImputer  # late: pictures need none of it, and it takes a second
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    found: dict[str, Any] = {"names": table.names, "shift": [], "scale": []}
    if table.names:
        _refuse_hollow(np.isnan(numbers), table.names)
        if missing != "error":
            imputer = SimpleImputer(strategy=missing).fit(numbers)
            numbers, found["fill"] = imputer.transform(numbers), imputer.statistics_.tolist()
        scaler = StandardScaler().fit(numbers)
        found |= {"shift": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}
    if table.categories is not None:
        texts = table.categories[train]
        _refuse_hollow(texts == None, table.category_names)  # noqa: E711 - entry by entry
        if missing != "error":
            filler = SimpleImputer(strategy="most_frequent", missing_values=None).fit(texts)
            texts, found["category_fill"] = filler.transform(texts), filler.statistics_.tolist()
        encoder = OneHotEncoder(handle_unknown="ignore").fit(texts)
        found |= {
            "category_names": table.category_names,
            "values": [values.tolist() for values in encoder.categories_],
        }
    return Features(**found)


def balanced_weights(labels: NDArray[np.int64], num_classes: int) -> list[float]:
    """scikit-learn's: n/(k*count) for each class among the training labels; 0 for one that is not among them."""
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.zeros(num_classes)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    found: list[float] = weights.tolist()
    return found


def _refuse_hollow(missing: NDArray[np.bool_], names: list[str]) -> None:
    if (hollow := missing.all(axis=0)).any():
        name = names[int(hollow.argmax())]
        raise UserError(f"column {name} has no value at all in the training part; leave it out with data.drop=[{name}]")
