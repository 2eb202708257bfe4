"""A picture file as one sample of a network that was trained on small grey pictures."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlpexp.data.data_description import Description
from mlpexp.evaluation.sample_files import contents
from mlpexp.runtime.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # and no other decoder of the library's is let near the file
MOST_PIXELS = 50_000_000


def read(path: Path, data: Description) -> tuple[NDArray[np.float64], list[str]]:
    """One sample (1, J) in the raw units of the training's, and what was done to the picture to get there.

    Raises:
        UserError: it is no such picture, or the network does not know pictures.
    """
    if data.image_shape is None:
        raise UserError(f"{path} is a picture, but the network was trained on {data.name}, which has none; give a CSV")
    grey, done = _grey(path)
    height, width = data.image_shape
    ground = _ground(grey)
    grey = _padded(grey, height / width, ground)
    if ground > 0.5:  # the training's pictures are light on dark
        grey = 1 - grey
        done.append("inverted, for it is dark on light")
    if grey.shape != (height, width):
        done.append(f"resized from {grey.shape[1]}x{grey.shape[0]} to {width}x{height} pixels")
        image = Image.fromarray(grey.astype(np.float32))
        # each new pixel is the mean of those that it covers
        grey = np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.float64)
    # black is what became 0 in training, white what became 1
    raw = np.asarray(data.features.shift) + grey.reshape(-1) * np.asarray(data.features.scale)
    return raw[None], [f"{path.name}: {', '.join(done)}"] if done else []


def _grey(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Brightness (height, width), black 0 and white 1; what is transparent is white."""
    content = contents(path)
    done = []
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{path} has {image.width}x{image.height} pixels; give a smaller one")
            deep = image.mode.startswith(("I", "F"))  # 16 bits for each pixel
            if deep:
                grey = np.asarray(image, dtype=np.float64) / 65_535
            else:
                solid: Image.Image = image
                if "A" in image.getbands() or "transparency" in image.info:
                    solid = Image.new("RGBA", image.size, "white")
                    solid.alpha_composite(image.convert("RGBA"))
                if image.mode not in ("L", "1"):
                    done.append("made grey")
                grey = np.asarray(solid.convert("L"), dtype=np.float64) / 255
    except UserError:
        raise
    except Exception as error:  # a damaged file makes the decoders raise nearly anything
        raise UserError(f"{path} is no PNG or JPEG picture, or is damaged ({type(error).__name__})") from None
    return grey, done


def _ground(grey: NDArray[np.float64]) -> float:
    """The brightness of the background: what lies along the border, mostly."""
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))


def _padded(grey: NDArray[np.float64], ratio: float, ground: float) -> NDArray[np.float64]:
    """With background on two sides, so that height / width is `ratio` and nothing is distorted."""
    height, width = grey.shape
    more_height, more_width = max(0, round(width * ratio) - height), max(0, round(height / ratio) - width)
    above, left = more_height // 2, more_width // 2
    sides = ((above, more_height - above), (left, more_width - left))
    return np.pad(grey, sides, constant_values=ground)
