"""The description of the training data that a checkpoint stores, as plain builtins."""

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mlpexp.data.preprocessing import CHECKED, Features, Numbers, Texts

_Side = Annotated[int, Field(ge=1, strict=True)]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Description:
    """All that is needed to give raw samples to a trained network and to name its predictions.

    Attributes:
        name: of the data set, e.g. `digits`.
        digest: SHA-256 of what determines the data.
        image_shape: (height, width) where a sample is an image.
        class_names: empty in a regression.
        class_weights: weight of each class in the training loss; None where all are 1.
        target_names: of the values that a regression predicts; empty in a classification.
        target_shift, target_scale: a value becomes (value - shift) / scale, by which outputs are turned back.

    Raises:
        ValidationError: a value has another type, or does not fit the others.
    """

    name: Annotated[str, Field(strict=True)]
    digest: Annotated[str, Field(strict=True)]
    class_names: Texts
    features: Features
    image_shape: tuple[_Side, _Side] | None = None
    class_weights: Numbers | None = None
    target_names: Texts = Field(default_factory=list)
    target_shift: Numbers = Field(default_factory=list)
    target_scale: Numbers = Field(default_factory=list)

    def __post_init__(self) -> None:
        shape, weights = self.image_shape, self.class_weights
        if shape is not None and shape[0] * shape[1] != self.features.num_inputs:
            raise ValueError(f"image_shape={shape} does not fit {self.features.num_inputs} inputs")
        if weights is not None and (len(weights) != len(self.class_names) or min(weights) < 0):
            raise ValueError("one weight >= 0 for each class")
        if bool(self.class_names) == bool(self.target_names):
            raise ValueError("either classes or values are predicted")
        if not len(self.target_names) == len(self.target_shift) == len(self.target_scale):
            raise ValueError("one shift and scale for each value")
        if any(scale <= 0 for scale in self.target_scale):
            raise ValueError("a scale that is not positive")

    @property
    def num_outputs(self) -> int:
        """The outputs of a network: classes, or values."""
        return len(self.class_names or self.target_names)

    def in_target_units(self, outputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Outputs (m, T) of a regression as values in the units of the data."""
        values: NDArray[np.float64] = outputs.astype(np.float64) * self.target_scale + self.target_shift
        return values

    def to_plain(self) -> dict[str, Any]:
        """Dictionaries, lists, texts and numbers only."""
        plain = asdict(self) | {"image_shape": list(self.image_shape) if self.image_shape else None}
        return {name: value for name, value in plain.items() if self.target_names or not name.startswith("target_")}

    @classmethod
    def from_plain(cls, plain: Any) -> "Description":
        """From the result of `to_plain`, every value checked: it may come from a file.

        Raises:
            ValueError: it is not what `to_plain` gives; in one line.
        """
        try:
            return _ADAPTER.validate_python(plain)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            location = ".".join(map(str, problem["loc"])) or "as a whole"
            raise ValueError(f"the description of the data is damaged ({location}: {problem['msg']})") from None


_ADAPTER = TypeAdapter(Description)
