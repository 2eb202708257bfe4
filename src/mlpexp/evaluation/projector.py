"""The last hidden layer for TensorBoard's Projector tab: vectors, labels, pictures, and the file that names them."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CONFIG = "projector_config.pbtxt"
MOST = 5_000  # points that the page draws fluently
ENLARGED = 24  # pixels a picture has at least, so that it can be recognised
LARGEST = 8_192  # pixels a side of the sprite may have


def files(
    vectors: NDArray[np.floating], columns: Mapping[str, Sequence[object]], pictures: NDArray[np.floating] | None = None
) -> dict[str, bytes]:
    """The files' names and contents.

    Args:
        vectors: (n, H).
        columns: what is known of each sample, n values each; the tab colours by them.
        pictures: (n, height, width), least value black.
    """
    found = {
        "hidden.tsv": _tsv(["\t".join(f"{value:.6g}" for value in row) for row in vectors]),
        "labels.tsv": _tsv(["\t".join(columns), *("\t".join(map(_cell, row)) for row in zip(*columns.values()))]),  # noqa: B905
    }
    lines = ["embeddings {", '  tensor_name: "last hidden layer"', '  tensor_path: "hidden.tsv"']
    lines += ['  metadata_path: "labels.tsv"']
    if pictures is not None and (sprite := _sprite(pictures)) is not None:
        found["sprite.png"], width, height = sprite
        lines += ["  sprite {", '    image_path: "sprite.png"']
        lines += [f"    single_image_dim: {width}", f"    single_image_dim: {height}", "  }"]
    return found | {CONFIG: "\n".join([*lines, "}", ""]).encode()}  # last: by it the tab knows that all is there


def _tsv(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _cell(value: object) -> str:
    return " ".join(str(value).split())  # a tab or a new line would begin another cell


def _sprite(pictures: NDArray[np.floating]) -> tuple[bytes, int, int] | None:
    """All pictures in a square, row by row, as PNG, and one picture's width and height; None where too large."""
    times = max(1, -(-ENLARGED // max(pictures.shape[1:])))
    height, width = (side * times for side in pictures.shape[1:])
    across = math.ceil(math.sqrt(len(pictures)))
    if across * max(height, width) > LARGEST:
        return None
    low, high = float(pictures.min()), float(pictures.max())
    grey = np.round((pictures - low) / (high - low or 1) * 255).astype(np.uint8)
    canvas = np.zeros((across * height, across * width), np.uint8)
    for place, picture in enumerate(grey.repeat(times, axis=1).repeat(times, axis=2)):
        row, column = divmod(place, across)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, format="png")
    return content.getvalue(), width, height
