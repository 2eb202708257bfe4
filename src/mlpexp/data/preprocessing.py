"""What was fitted to the training part: how raw samples become a network's inputs.

Held as plain builtins, so that a checkpoint can carry it; applied with numpy alone. A test holds it against
scikit-learn's own `transform`.

Letters: m samples, J number columns, K category columns, I inputs of the network.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Features:
    """Numbers are filled, shifted and scaled; categories become one input for each value (one-hot), after them.

    Attributes:
        names: of the number columns, J.
        shift, scale: what a number becomes is (number - shift) / scale.
        fill: what stands for a missing number; empty where none may be missing.
        category_names: of the category columns, K.
        values: of each category column, sorted; any other value gives zeros.
        category_fill: what stands for a missing category; empty where none may be missing.
    """

    names: list[str]
    shift: list[float]
    scale: list[float]
    fill: list[float] = field(default_factory=list)
    category_names: list[str] = field(default_factory=list)
    values: list[list[str]] = field(default_factory=list)
    category_fill: list[str] = field(default_factory=list)

    @property
    def num_inputs(self) -> int:
        """I, the inputs of the network."""
        return len(self.names) + sum(map(len, self.values))

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal where raw samples become the same inputs; can be hashed."""
        return tuple(
            tuple(map(tuple, value)) if name == "values" else tuple(value)
            for name, value in ((name, getattr(self, name)) for name in _FIELDS)
        )

    @property
    def input_names(self) -> list[str]:
        """One name for each input of the network: `age`, `colour=red`."""
        one_hot = zip(self.category_names, self.values, strict=True)
        return self.names + [f"{name}={value}" for name, values in one_hot for value in values]

    def transform(
        self, numbers: NDArray[np.floating[Any]], categories: NDArray[np.object_] | None = None
    ) -> NDArray[np.float32]:
        """Raw samples as inputs: numbers (m, J) and categories (m, K), in the order of the names -> (m, I) float32.

        Raises:
            ValueError: a value is missing and nothing was fitted to stand for it.
        """
        columns = np.asarray(numbers, dtype=np.float64).reshape(len(numbers), len(self.names))
        missing = np.isnan(columns)
        if missing.any():
            if not self.fill:
                row, column = np.argwhere(missing)[0]
                raise ValueError(f"sample {row} has no value for {self.names[column]}")
            columns = np.where(missing, self.fill, columns)
        parts = [(columns - self.shift) / self.scale]
        for k, values in enumerate(self.values):
            assert categories is not None
            parts.append(self._one_hot(categories[:, k], k, values))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _one_hot(self, column: NDArray[np.object_], k: int, values: Sequence[str]) -> NDArray[np.float64]:
        place = {value: i for i, value in enumerate(values)}
        found = np.zeros((len(column), len(values)))
        for row, value in enumerate(column):
            if value is None:
                if not self.category_fill:
                    raise ValueError(f"sample {row} has no value for {self.category_names[k]}")
                found[row, place[self.category_fill[k]]] = 1.0
            elif value in place:
                found[row, place[value]] = 1.0
        return found

    def to_plain(self) -> dict[str, Any]:
        """Dictionaries, lists, texts and floats only."""
        return {name: list(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_plain(cls, plain: Any) -> "Features":
        """What `to_plain` gave, every value checked: it may come from a file.

        Raises:
            ValueError: it is not what `to_plain` gives.
        """
        if not isinstance(plain, Mapping) or set(plain) != set(_FIELDS):
            raise ValueError("the description of the features is incomplete")
        found = cls(**{name: plain[name] for name in _FIELDS})
        if not (_texts(found.names) and _texts(found.category_names) and _texts(found.category_fill)):
            raise ValueError("the names of the features are not texts")
        if not (_numbers(found.shift) and _numbers(found.scale) and _numbers(found.fill)) or 0 in found.scale:
            raise ValueError("shift, scale and fill of the features are not finite numbers")
        if not isinstance(found.values, list) or not all(map(_texts, found.values)):
            raise ValueError("the values of the categories are not texts")
        wanted = {"shift": len(found.names), "scale": len(found.names), "values": len(found.category_names)}
        optional = {"fill": len(found.names), "category_fill": len(found.category_names)}
        if any(len(getattr(found, name)) != count for name, count in wanted.items()) or any(
            len(getattr(found, name)) not in (0, count) for name, count in optional.items()
        ):
            raise ValueError("the description of the features has lists of different lengths")
        return found


_FIELDS = ("names", "shift", "scale", "fill", "category_names", "values", "category_fill")


def _texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(item, str) for item in found)


def _numbers(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(item, float) and math.isfinite(item) for item in found)
