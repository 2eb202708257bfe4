"""The samples that a run is evaluated on: a part of its own data, or a file that the user gives."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp import data
from mlpexp.evaluation import sample_files
from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.runtime.errors import UserError

Part = Literal["train", "val", "test", "all"]
PART_NAMES = {"train": "training part", "val": "validation part", "test": "test part", "all": "all data"}


@dataclass(frozen=True, kw_only=True)
class EvaluationSamples:
    """Labelled samples, transformed as in training.

    Attributes:
        inputs: (N, I) float32; labels: (N,); index: their places in the whole data set, (N,).
        part: of the run's own data; None for a file.
    """

    inputs: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    part: str | None
    digest: str
    file: str | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return PART_NAMES[self.part] if self.part else str(self.file)


def load_samples(run: TrainedModel, part: Part | None = None, file: Path | None = None) -> EvaluationSamples:
    """A part of the data that the run was trained on, or the samples of a CSV or Parquet file.

    Args:
        part: by default the test part, or the validation part where there is none.

    Raises:
        UserError: that data has changed since, the part is empty, or the file does not fit the network.
    """
    return _samples_of_part(run, part) if file is None else _samples_of_file(run, file, part)


def _samples_of_part(run: TrainedModel, part: Part | None) -> EvaluationSamples:
    prepared = data.prepare(run.located_data)
    if prepared.digest != run.data.digest:
        raise UserError(
            f"the data of {run.title} has changed since it was trained: its digest was {run.data.digest[:12]}…, and "
            f"is {prepared.digest[:12]}… now; to evaluate on what is there now, give it with --data FILE"
        )
    remarks = []
    if part is None:
        part = "test" if len(prepared.split.test) else "val"
        if part == "val":
            remarks.append("the run kept no test part (data.test_fraction=0): these samples chose its best epoch")
    if part == "all":
        index = np.arange(len(prepared.labels))
        inputs, labels = prepared.inputs, prepared.labels
        remarks.append("all data: most of it was used in training")
    else:
        index = getattr(prepared.split, part)
        if not len(index):
            raise UserError(f"{run.title} has no {part} part; choose another, e.g. --part val")
        inputs, labels = prepared.part(part)
        if part == "train" and run.cfg.data.label_noise:
            remarks.append(f"labels as in training, with data.label_noise={run.cfg.data.label_noise}")
    return EvaluationSamples(
        inputs=inputs, labels=labels, index=index, part=part, digest=prepared.digest, remarks=remarks
    )


def _samples_of_file(run: TrainedModel, path: Path, part: Part | None) -> EvaluationSamples:
    if part is not None:
        raise UserError("--part chooses from the run's own data, and --data gives another: leave one of them out")
    samples = sample_files.read(path, run.data, run.cfg.data, labelled=True)
    assert samples.labels is not None
    return EvaluationSamples(
        inputs=torch.from_numpy(run.data.features.transform(samples.numbers, samples.categories)),
        labels=torch.from_numpy(samples.labels),
        index=np.arange(len(samples.labels)),
        part=None,
        digest=hashlib.sha256(samples.content).hexdigest(),
        file=str(path),
        remarks=samples.remarks,
    )
