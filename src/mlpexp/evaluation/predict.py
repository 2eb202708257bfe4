"""What a trained network says to samples that it has never seen, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlpexp.evaluation import image_input, sample_files, trained_run
from mlpexp.evaluation.evaluation_tables import table
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.network_outputs import classify
from mlpexp.evaluation.trained_run import Trained
from mlpexp.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Answers to m samples.

    Attributes:
        names: of the samples: their numbers from 0, or the pictures' files.
        probabilities: (m, C).
        remarks: what was done to the samples, or is odd about them.
    """

    run: Trained
    names: list[str]
    probabilities: NDArray[np.float64]
    remarks: list[str]

    def csv(self, top: int | None = None) -> str:
        """A row for each sample: its class, how sure that is, and every class's probability, or the `top` classes'."""
        classes = self.run.data.class_names
        order = np.argsort(-self.probabilities, axis=-1, kind="stable")  # (m, C)
        if top is None:
            header = ["sample", "class", "probability", *(f"probability of {name}" for name in classes)]
            rows = [
                [name, classes[best[0]], row[best[0]].item(), *row.tolist()]
                for name, best, row in zip(self.names, order, self.probabilities, strict=True)
            ]
            return table(header, rows)
        header = ["sample", *(f"{what} {k + 1}" for k in range(top) for what in ("class", "probability"))]
        return table(
            header,
            (
                [name, *(cell for c in best[:top] for cell in (classes[c], row[c].item()))]
                for name, best, row in zip(self.names, order, self.probabilities, strict=True)
            ),
        )


def predict(path: Path, files: Sequence[Path], weights: Weights | None = None, top: int | None = None) -> Predictions:
    """The answers of the network that `path` means (see `places.find`) to one CSV file, or to pictures.

    Raises:
        UserError: the network or a file cannot be used, or there are fewer classes than `top`.
    """
    run = trained_run.load(path, weights)
    if top is not None and not 1 <= top <= len(run.data.class_names):
        raise UserError(f"--top {top}: the network knows {len(run.data.class_names)} classes; give 1 to that many")
    shown = [file for file in files if file.suffix.lower() in image_input.SUFFIXES]
    if len(files) > 1 and len(shown) < len(files):
        raise UserError("give one CSV file, or one or more pictures (PNG, JPEG)")
    categories = None
    if shown:
        found = [image_input.read(file, run.data) for file in shown]
        numbers, names = np.concatenate([raw for raw, _ in found]), [str(file) for file in shown]
        remarks = [remark for _, done in found for remark in done]
    else:
        numbers, categories, _, remarks, _ = sample_files.read(files[0], run.data, run.cfg.data, labelled=False)
        names = [str(i) for i in range(len(numbers))]
    inputs = torch.from_numpy(run.data.features.transform(numbers, categories))
    remarks = [*remarks, *filter(None, [run.remark()])]
    return Predictions(run=run, names=names, probabilities=classify(run.module, inputs).numpy(), remarks=remarks)
