"""What a checkpoint stores about the data that its network was trained on, as plain builtins."""

from typing import Annotated, Any

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
        class_weights: weight of each class in the training loss; None where all are 1.

    Raises:
        ValidationError: a value has another type, or does not fit the others.
    """

    name: Annotated[str, Field(strict=True)]
    digest: Annotated[str, Field(strict=True)]
    class_names: Annotated[Texts, Field(min_length=1)]
    features: Features
    image_shape: tuple[_Side, _Side] | None = None
    class_weights: Numbers | None = None

    def __post_init__(self) -> None:
        shape, weights = self.image_shape, self.class_weights
        if shape is not None and shape[0] * shape[1] != self.features.num_inputs:
            raise ValueError(f"image_shape={shape} does not fit {self.features.num_inputs} inputs")
        if weights is not None and (len(weights) != len(self.class_names) or min(weights) < 0):
            raise ValueError("one weight >= 0 for each class")

    def to_plain(self) -> dict[str, Any]:
        """Dictionaries, lists, texts and numbers only."""
        return {
            "name": self.name,
            "digest": self.digest,
            "class_names": list(self.class_names),
            "features": self.features.to_plain(),
            "image_shape": list(self.image_shape) if self.image_shape else None,
            "class_weights": self.class_weights,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> "Description":
        """From the result of `to_plain`, every value checked: it may come from a file.

        Raises:
            ValueError: it is not what `to_plain` gives; in one line.
        """
        try:
            return _ADAPTER.validate_python(plain)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "as a whole"
            raise ValueError(f"the description of the data is damaged ({where}: {first['msg']})") from None


_ADAPTER = TypeAdapter(Description)
