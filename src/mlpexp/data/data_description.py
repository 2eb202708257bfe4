"""What a checkpoint says of the data that its network was trained on, as plain builtins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlpexp.data.preprocessing import Features


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that is needed to give raw samples to a trained network and to name its answers.

    Attributes:
        name: the data set's, e.g. `digits`.
        digest: SHA-256 of the data's bytes.
        image_shape: (height, width) where a sample is a picture.
        class_weights: what each class counted in the loss; None where all counted alike.
    """

    name: str
    digest: str
    class_names: list[str]
    features: Features
    image_shape: tuple[int, int] | None = None
    class_weights: list[float] | None = None

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
        """What `to_plain` gave, every value checked: it may come from a file.

        Raises:
            ValueError: it is not what `to_plain` gives.
        """
        if not isinstance(plain, Mapping):
            raise ValueError("there is no description of the data")
        names, shape, weights = plain.get("class_names"), plain.get("image_shape"), plain.get("class_weights")
        if not isinstance(plain.get("name"), str) or not isinstance(plain.get("digest"), str):
            raise ValueError("the data has no name or no digest")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("the names of the classes are not texts")
        features = Features.from_plain(plain.get("features"))
        if shape is not None and not (
            isinstance(shape, list)
            and len(shape) == 2
            and all(type(side) is int and side >= 1 for side in shape)
            and shape[0] * shape[1] == features.num_inputs
        ):
            raise ValueError(f"image_shape={shape} does not fit {features.num_inputs} inputs")
        if weights is not None and not (
            isinstance(weights, list)
            and len(weights) == len(names)
            and all(isinstance(weight, float) and 0 <= weight < float("inf") for weight in weights)
        ):
            raise ValueError("the weights of the classes are not one number for each class")
        return cls(
            name=plain["name"],
            digest=plain["digest"],
            class_names=names,
            features=features,
            image_shape=(shape[0], shape[1]) if shape else None,
            class_weights=weights,
        )
