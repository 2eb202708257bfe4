"""The last hidden layer in two dimensions, and as files for TensorBoard's Projector tab.

PCA is a projection that keeps distances to scale; in t-SNE only neighbourhoods have a meaning.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlpexp.evaluation.network_outputs import Outputs

MAX_EMBEDDED = 2_000  # samples; t-SNE of more takes a minute
MAX_PROJECTED = 5_000  # points that the Projector page draws without delay
MIN_TSNE = 5  # samples of which t-SNE makes sense
SEED = 0
CONFIG = "projector_config.pbtxt"
MIN_SIDE = 24  # pixels of an image in the sprite
MAX_SIDE = 8_192  # pixels of the sprite


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Points for some of the samples.

    Attributes:
        rows: of the samples among the outputs, sorted, (n,).
        pca: (n, 2); explained: the share of the variance along its two axes.
        tsne: (n, 2); None where there are too few different samples.
    """

    rows: NDArray[np.int64]
    pca: NDArray[np.float64]
    explained: tuple[float, float]
    tsne: NDArray[np.float64] | None


def embed(outputs: Outputs) -> Embedding:
    """PCA and t-SNE; the same outputs give the same embedding."""
    rows = sample(len(outputs), MAX_EMBEDDED)
    hidden = outputs.hidden[rows].astype(np.float64)  # (n, H)
    pca, explained = _pca(hidden)
    return Embedding(rows=rows, pca=pca, explained=explained, tsne=_tsne(hidden))


def sample(total: int, limit: int) -> NDArray[np.int64]:
    """All of `total` rows, or `limit` of them drawn at random."""
    if total <= limit:
        return np.arange(total)
    return np.sort(np.random.default_rng(SEED).choice(total, limit, replace=False))


def _pca(hidden: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Points and shares of variance; the second axis is zero where there is only one unit or one sample."""
    from sklearn.decomposition import PCA

    count = min(2, *hidden.shape)
    points, shares = np.zeros((len(hidden), 2)), [0.0, 0.0]
    if np.ptp(hidden, axis=0).any():
        pca = PCA(count, svd_solver="full").fit(hidden)
        points[:, :count] = pca.transform(hidden)
        shares[:count] = pca.explained_variance_ratio_.tolist()
    return points, (shares[0], shares[1])


def _tsne(hidden: NDArray[np.float64]) -> NDArray[np.float64] | None:
    from sklearn.manifold import TSNE

    if len(hidden) < MIN_TSNE or not np.ptp(hidden, axis=0).any():
        return None
    perplexity = min(30.0, (len(hidden) - 1) / 3)
    start = "pca" if hidden.shape[1] >= 2 else "random"
    points = TSNE(2, perplexity=perplexity, init=start, random_state=SEED).fit_transform(hidden)
    return np.asarray(points, dtype=np.float64) if np.isfinite(points).all() else None


def projector_files(
    vectors: NDArray[np.floating], columns: Mapping[str, Sequence[object]], images: NDArray[np.floating] | None = None
) -> dict[str, bytes]:
    """Names and contents of the files of TensorBoard's Projector tab.

    Args:
        vectors: (n, H).
        columns: n values each, by which the tab labels and colours the points.
        images: (n, height, width), the least value black.
    """
    files = {
        "hidden.tsv": _tsv("\t".join(f"{value:.6g}" for value in row) for row in vectors),
        "labels.tsv": _tsv(
            ["\t".join(columns), *("\t".join(map(_one_line, row)) for row in zip(*columns.values(), strict=True))]
        ),
    }
    lines = ["embeddings {", '  tensor_name: "last hidden layer"', '  tensor_path: "hidden.tsv"']
    lines += ['  metadata_path: "labels.tsv"']
    if images is not None and (sprite := _sprite(images)) is not None:
        files["sprite.png"], width, height = sprite
        lines += ["  sprite {", '    image_path: "sprite.png"']
        lines += [f"    single_image_dim: {width}", f"    single_image_dim: {height}", "  }"]
    return files | {CONFIG: "\n".join([*lines, "}", ""]).encode()}  # last: TensorBoard looks for this file


def _tsv(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _one_line(value: object) -> str:
    return " ".join(str(value).split())  # a tab or a new line would begin another cell


def _sprite(images: NDArray[np.floating]) -> tuple[bytes, int, int] | None:
    """All images in a square, row by row, as PNG, with width and height of one image; None where too large."""
    zoom = max(1, -(-MIN_SIDE // max(images.shape[1:])))
    height, width = (side * zoom for side in images.shape[1:])
    per_row = math.ceil(math.sqrt(len(images)))
    if per_row * max(height, width) > MAX_SIDE:
        return None
    low, high = float(images.min()), float(images.max())
    grey = np.round((images - low) / (high - low or 1) * 255).astype(np.uint8)
    canvas = np.zeros((per_row * height, per_row * width), np.uint8)
    for index, image in enumerate(grey.repeat(zoom, axis=1).repeat(zoom, axis=2)):
        row, column = divmod(index, per_row)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, format="png")
    return content.getvalue(), width, height
