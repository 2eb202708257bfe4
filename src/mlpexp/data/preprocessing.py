"""Preprocessing of raw samples to a network's inputs: fitted to the training part by scikit-learn, kept as numbers.

A checkpoint carries the fitted values as builtins; they are applied with numpy alone. A test compares the result with
scikit-learn's own `transform`.

Letters: m samples, J number columns, K category columns, I inputs of the network.
"""

from dataclasses import fields
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlpexp.config.overrides import shell_word
from mlpexp.data.table import Table
from mlpexp.runtime.errors import UserError


def fit(table: Table, train: NDArray[np.int64], missing: str) -> "Features":
    """Fit to the training part: images are divided by their maximum, numbers standardised, categories one-hot encoded.

    Args:
        train: indices of the training part.
        missing: scikit-learn's imputation strategy for numbers, or `error`.

    Raises:
        UserError: the training part has no value at all in some column, or values of a size that cannot be squared.
    """
    numbers = table.inputs[train]
    if table.image_shape is not None:
        maximum = float(numbers.max())
        return Features(names=table.names, shift=[0.0] * len(table.names), scale=[maximum or 1.0] * len(table.names))
    from sklearn.impute import SimpleImputer  # late: images need none of it, and the import takes a second
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    fitted: dict[str, Any] = {"names": table.names, "shift": [], "scale": []}
    if table.names:
        _refuse_empty_columns(np.isnan(numbers), table.names)
        if missing != "error":
            imputer = SimpleImputer(strategy=missing).fit(numbers)
            numbers, fitted["fill"] = imputer.transform(numbers), imputer.statistics_.tolist()
        _refuse_sizes(numbers, table.names, "column")
        scaler = StandardScaler().fit(numbers)
        fitted |= {"shift": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}
    if table.categories is not None:
        texts = table.categories[train]
        _refuse_empty_columns(texts == None, table.category_names)  # noqa: E711 - element by element
        if missing != "error":
            filler = SimpleImputer(strategy="most_frequent", missing_values=None).fit(texts)
            texts, fitted["category_fill"] = filler.transform(texts), filler.statistics_.tolist()
        encoder = OneHotEncoder(handle_unknown="ignore").fit(texts)
        values = [values.tolist() for values in encoder.categories_]
        fitted |= {"category_names": table.category_names, "values": values}
    return Features(**fitted)


class TargetScale(NamedTuple):
    """The standardisation of a regression's values: each becomes (value - shift) / scale."""

    shift: list[float]
    scale: list[float]

    def transform(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """(N, T) -> (N, T)."""
        standardised: NDArray[np.float32] = ((values - self.shift) / self.scale).astype(np.float32)
        return standardised


def fit_targets(table: Table, train: NDArray[np.int64]) -> TargetScale | None:
    """Mean and standard deviation of the values in the training part; None in a classification.

    Raises:
        UserError: a target is constant in the training part, or has values of a size that cannot be squared.
    """
    if not table.target_names:
        return None
    values = table.labels[train]
    _refuse_sizes(values, table.target_names, "target")
    scale = values.std(0)
    for name, spread, largest in zip(table.target_names, scale, np.abs(values).max(0), strict=True):
        if not spread > 1e-12 * largest:
            raise UserError(
                f"the target {name} has the same value in the whole training part, so there is nothing to learn; "
                "choose another target or another data.seed"
            )
    return TargetScale(values.mean(0).tolist(), scale.tolist())


LARGEST = 1e100  # of a number that is standardised; the squares of all of them have a finite sum


def _refuse_sizes(numbers: NDArray[np.floating[Any]], names: list[str], kind: str) -> None:
    """
    Args:
        numbers: of the training part, (m, J), NaN where one is missing.
        names: of the columns.
        kind: what messages call a column.

    Raises:
        UserError: the standard deviation of a column is not a finite number, or is 0 although its values differ.
    """
    least, largest = np.nanmin(numbers, 0), np.nanmax(numbers, 0)
    size = np.maximum(np.abs(least), np.abs(largest)).astype(np.float64)  # LARGEST is no number in single precision
    for name, high, differ in zip(names, size, least < largest, strict=True):
        if high > LARGEST or (differ and high < 1 / LARGEST):
            raise UserError(
                f"the {kind} {name} has values of the size {high:.0e}, of which no standard deviation can be computed; "
                f"give it in another unit, in which they are below {LARGEST:.0e} and above {1 / LARGEST:.0e}"
            )


def _refuse_empty_columns(missing: NDArray[np.bool_], names: list[str]) -> None:
    if (empty := missing.all(axis=0)).any():
        name = names[int(empty.argmax())]
        drop = shell_word("data.drop", [name])
        raise UserError(f"column {name} has no value at all in the training part; leave it out with {drop}")


Texts = list[Annotated[str, Field(strict=True)]]
Numbers = list[Annotated[float, Field(strict=True, allow_inf_nan=False)]]
CHECKED = ConfigDict(extra="forbid")  # values may come from a checkpoint that anybody has written


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Features:
    """Numbers are imputed, shifted and scaled; after them, categories are one-hot encoded.

    Attributes:
        names: of the number columns, J.
        shift, scale: a number becomes (number - shift) / scale.
        fill: replacements of missing numbers, J; empty where none may be missing.
        category_names: of the category columns, K.
        values: of each category column, sorted; any other value becomes zeros.
        category_fill: replacements of missing categories, K; empty where none may be missing.

    Raises:
        ValidationError: a value has another type, is not finite, or the lengths do not fit.
    """

    names: Texts
    shift: Numbers
    scale: Numbers
    fill: Numbers = Field(default_factory=list)
    category_names: Texts = Field(default_factory=list)
    values: list[Texts] = Field(default_factory=list)
    category_fill: Texts = Field(default_factory=list)

    def __post_init__(self) -> None:
        numbers, categories = len(self.names), len(self.category_names)
        if (len(self.shift), len(self.scale), len(self.values)) != (numbers, numbers, categories):
            raise ValueError("one shift and scale for each number column, and values for each category column")
        if len(self.fill) not in (0, numbers) or len(self.category_fill) not in (0, categories):
            raise ValueError("a replacement of missing values for all columns or for none")
        if 0 in self.scale:
            raise ValueError("a scale of zero")

    @property
    def num_inputs(self) -> int:
        """I, the inputs of the network."""
        return len(self.names) + sum(map(len, self.values))

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Hashable; equal where raw samples become the same inputs."""
        return *(tuple(getattr(self, name)) for name in _FIELDS if name != "values"), *map(tuple, self.values)

    def transform(
        self, numbers: NDArray[np.floating[Any]], categories: NDArray[np.object_] | None = None
    ) -> NDArray[np.float32]:
        """Raw samples as inputs: numbers (m, J) and categories (m, K), in the order of the names -> (m, I) float32.

        Raises:
            ValueError: a value is missing and no replacement was fitted.
        """
        columns = np.asarray(numbers, dtype=np.float64).reshape(len(numbers), len(self.names))
        missing = np.isnan(columns)
        if missing.any():
            if not self.fill:
                row, column = np.argwhere(missing)[0]
                raise ValueError(f"sample {row} has no value for {self.names[column]}")
            columns = np.where(missing, self.fill, columns)
        inputs = np.zeros((len(columns), self.num_inputs), dtype=np.float32)
        inputs[:, : len(self.names)] = (columns - self.shift) / self.scale
        offset = len(self.names)
        for k, values in enumerate(self.values):
            assert categories is not None
            place: dict[str | None, int] = {value: offset + i for i, value in enumerate(values)}
            if self.category_fill:
                place[None] = place[self.category_fill[k]]
            for row, value in enumerate(categories[:, k]):
                if value in place:
                    inputs[row, place[value]] = 1.0
                elif value is None:
                    raise ValueError(f"sample {row} has no value for {self.category_names[k]}")
            offset += len(values)
        return inputs

    def to_plain(self) -> dict[str, Any]:
        """Dictionaries, lists, texts and floats only; `Features(**plain)` gives the same again."""
        return {name: list(getattr(self, name)) for name in _FIELDS}


_FIELDS = tuple(field.name for field in fields(Features))
