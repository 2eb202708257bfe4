"""An image file as one sample of a network that was trained on small grey images.

The size that a file claims in its header is checked before anything is decoded.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlpexp.data.data_description import Description
from mlpexp.evaluation.sample_files import contents
from mlpexp.runtime.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # no other decoder of the library is tried on a file
MAX_PIXELS = 50_000_000  # of a file, and of the image after padding: less than 1 GiB while it is decoded


def read(path: Path, data: Description) -> tuple[NDArray[np.float64], list[str]]:
    """One sample (1, J) in the raw units of the training data, and what was done to the image.

    Raises:
        UserError: it is not such an image or too large, or the network was not trained on images.
    """
    if data.image_shape is None:
        raise UserError(f"{path} is an image, but the network was trained on {data.name}, which has none; give a CSV")
    height, width = data.image_shape
    grey, remarks = _grey(path, height / width)
    background = _background(grey)
    grey = _padded(grey, height / width, background)
    if background > 0.5:  # training images are light on dark
        grey = 1 - grey
        remarks.append("inverted, for it is dark on light")
    if grey.shape != (height, width):
        remarks.append(f"resized from {grey.shape[1]}x{grey.shape[0]} to {width}x{height} pixels")
        image = Image.fromarray(grey)
        # each new pixel is the mean of those that it covers
        grey = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    # black is what became 0 in training, white what became 1
    raw = np.asarray(data.features.shift) + grey.reshape(-1).astype(np.float64) * np.asarray(data.features.scale)
    return raw[None], [f"{path.name}: {', '.join(remarks)}"] if remarks else []


def _grey(path: Path, ratio: float) -> tuple[NDArray[np.float32], list[str]]:
    """Brightness (height, width), black 0 and white 1; transparent pixels are white."""
    content = contents(path)
    remarks = []
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            sides = _padded_sides(image.height, image.width, ratio)
            if max(image.height * image.width, sides[0] * sides[1]) > MAX_PIXELS:
                raise UserError(
                    f"{path} claims {image.width}x{image.height} pixels; padded to the shape of the training images "
                    f"at most {MAX_PIXELS:,} pixels are read: give a smaller one"
                )
            if image.mode.startswith(("I", "F")):  # 16 bits for each pixel
                grey = np.asarray(image, dtype=np.float32) / np.float32(65_535)
            else:
                opaque: Image.Image = image
                if "A" in image.getbands() or "transparency" in image.info:
                    opaque = Image.new("RGBA", image.size, "white")
                    opaque.alpha_composite(image.convert("RGBA"))
                if image.mode not in ("L", "1"):
                    remarks.append("made grey")
                grey = np.asarray(opaque.convert("L"), dtype=np.float32) / np.float32(255)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise UserError(f"{path} is not a PNG or JPEG image, or is damaged ({type(error).__name__})") from None
    return grey, remarks


def _background(grey: NDArray[np.float32]) -> float:
    """The median brightness of the border."""
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))


def _padded_sides(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Height and width, of which one has grown, so that height / width is `ratio`."""
    return max(height, round(width * ratio)), max(width, round(height / ratio))


def _padded(grey: NDArray[np.float32], ratio: float, background: float) -> NDArray[np.float32]:
    """With background on two sides, so that height / width is `ratio` and nothing is distorted."""
    height, width = grey.shape
    new_height, new_width = _padded_sides(height, width, ratio)
    top_margin, left_margin = (new_height - height) // 2, (new_width - width) // 2
    sides = ((top_margin, new_height - height - top_margin), (left_margin, new_width - width - left_margin))
    return np.pad(grey, sides, constant_values=background)
