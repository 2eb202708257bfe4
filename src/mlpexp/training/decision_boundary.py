"""The decision boundary of a network with two inputs: evaluated on a grid, drawn with some samples."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlpexp import data
from mlpexp.data.data_description import Description
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.classifier import Classifier
from mlpexp.runtime.errors import UserError
from mlpexp.store import checkpoint_files
from mlpexp.tracking import figures
from mlpexp.training import load_network

GRID = 250  # points a side
SAMPLES = {"test": "test samples", "val": "validation samples"}
PIECE = 8192  # points at once: a wide network's hidden layers stay small


def is_plane(description: Description) -> bool:
    """Whether the network classifies samples of exactly two numeric features."""
    return bool(description.class_names) and description.features.num_inputs == len(description.features.names) == 2


def draw(
    module: Classifier,
    description: Description,
    inputs: NDArray[np.floating],
    labels: NDArray[np.int64],
    samples: str = "samples",
) -> Figure:
    """The predicted class over the plane, in raw units, to a tenth beyond the samples.

    Args:
        inputs: (n, 2) as the network sees them; labels: (n,).
        samples: what they are, e.g. `test samples`.
    """
    features = description.features
    points = inputs * np.asarray(features.scale) + np.asarray(features.shift)
    margin = 0.1 * np.maximum(np.ptp(points, axis=0), 1e-9)
    (left, bottom), (right, top) = points.min(0) - margin, points.max(0) + margin
    across, up = np.meshgrid(np.linspace(left, right, GRID), np.linspace(bottom, top, GRID))
    field = _predicted_classes(module, features.transform(np.stack([across.ravel(), up.ravel()], axis=1))).reshape(
        GRID, GRID
    )
    extent = float(left), float(right), float(bottom), float(top)
    names = features.names[0], features.names[1]
    return figures.boundary(points, labels, field, extent, description.class_names, names, samples)


@torch.inference_mode()
def _predicted_classes(module: Classifier, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class of each point; -1 where the network's output is not finite."""
    dtype = next(module.parameters()).dtype  # double where trained so
    logits = torch.cat([module(piece.to(dtype)) for piece in torch.from_numpy(inputs).split(PIECE)])  # (n, C)
    classes: NDArray[np.int64] = torch.where(logits.isfinite().all(-1), logits.argmax(-1), -1).numpy()
    return classes


def draw_run(checkpoint: Path, max_samples: int) -> Figure | None:
    """The decision boundary of the network in a checkpoint, with samples of its test (or validation) part.

    None where a sample is not two numbers, or where the data is not what it was trained on.

    Raises:
        UserError: the checkpoint is missing, damaged or hostile.
    """
    loaded = load_network.network(checkpoint, checkpoint_files.load(checkpoint))
    if not is_plane(loaded.data):
        return None
    try:
        prepared = data.prepare(data.locate(loaded.cfg.data, checkpoint, loaded.data.digest))
    except UserError:  # a file that has gone
        return None
    if prepared.digest != loaded.data.digest:
        return None
    inputs, labels = prepared.part(shown_part(prepared))
    words = SAMPLES[shown_part(prepared)]
    return draw(loaded.module(), loaded.data, inputs[:max_samples].numpy(), labels[:max_samples].numpy(), words)


def shown_part(data: Prepared) -> Literal["test", "val"]:
    """The part whose samples are drawn."""
    return "test" if len(data.split.test) else "val"
