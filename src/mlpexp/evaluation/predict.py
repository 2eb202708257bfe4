"""Predictions of a trained network for new samples, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlpexp.evaluation import ensemble, image_input, recorded_metrics, sample_files, trained_run
from mlpexp.evaluation.ensemble_members import Choice
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.runtime.errors import UserError
from mlpexp.store.csv_tables import csv_text


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions for m samples.

    Attributes:
        names: of the samples: their numbers from 0, or the image files.
        outputs: probabilities (m, C), or in a regression values (m, T) in the units of the targets.
        remarks: how the samples were converted, and what is unusual about them.
    """

    run: TrainedModel
    names: list[str]
    outputs: NDArray[np.float64]
    remarks: list[str]

    def csv(self, top: int | None = None) -> str:
        """A row per sample: the most probable class, its probability, and all probabilities; or the `top` classes.

        In a regression the value of each target.
        """
        if self.run.data.target_names:
            values = ([name, *row.tolist()] for name, row in zip(self.names, self.outputs, strict=True))
            return csv_text(["sample", *self.run.data.target_names], values)
        classes = self.run.data.class_names
        if top is None:
            header = ["sample", "class", "probability", *(f"probability of {name}" for name in classes)]
        else:
            header = ["sample", *(f"{column} {k + 1}" for k in range(top) for column in ("class", "probability"))]
        rows = []
        for name, probabilities in zip(self.names, self.outputs, strict=True):
            order = np.argsort(-probabilities, kind="stable")[: top or 1]
            best = [cell for c in order for cell in (classes[c], probabilities[c].item())]
            rows.append([name, *best, *(probabilities.tolist() if top is None else [])])
        return csv_text(header, rows)


def predict(
    path: Path,
    files: Sequence[Path],
    weights: Weights | None = None,
    top: int | None = None,
    choice: Choice | None = None,
) -> Predictions:
    """Predictions of the network at `path` (see `locate_run.find`) for one table of samples, or for images.

    Args:
        choice: of an ensemble; `path` is then a sweep's directory.

    Raises:
        UserError: the network or a file cannot be used, or there are fewer classes than `top`.
    """
    run = trained_run.load(path, weights) if choice is None else ensemble.load(path, choice)
    if top is not None and run.data.target_names:
        raise UserError(f"--top {top} is for classes, and the network predicts values; leave it out")
    if isinstance(run, trained_run.TrainedRun):
        recorded_metrics.check(run)
    if top is not None and not 1 <= top <= len(run.data.class_names):
        raise UserError(f"--top {top}: the network knows {len(run.data.class_names)} classes; give 1 to that many")
    images = [file for file in files if file.suffix.lower() in image_input.SUFFIXES]
    if len(files) > 1 and len(images) < len(files):
        raise UserError("give one CSV file, or one or more pictures (PNG, JPEG)")
    categories = None
    if images:
        images_read = [image_input.read(file, run.data) for file in images]
        numbers, names = np.concatenate([raw for raw, _ in images_read]), [str(file) for file in images]
        remarks = [remark for _, image_remarks in images_read for remark in image_remarks]
    else:
        numbers, categories, _, remarks, _ = sample_files.read(files[0], run.data, run.cfg.data, labelled=False)
        names = [str(i) for i in range(len(numbers))]
    inputs = torch.from_numpy(run.data.features.transform(numbers, categories))
    remarks = [*remarks, *filter(None, [run.remark()])]
    return Predictions(run=run, names=names, outputs=run.outputs(inputs), remarks=remarks)
