"""Exports a trained network to a file for other programs: raw samples in, probabilities out.

The content is compared with the network itself before it is written.

Letters: B batch, J number columns, K category columns, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp import data
from mlpexp.evaluation import ensemble, locate_run, recorded_metrics, trained_run
from mlpexp.evaluation.ensemble import Ensemble
from mlpexp.evaluation.ensemble_members import Choice
from mlpexp.evaluation.export_formats import FORMATS, Format, Raw, evaluate, make
from mlpexp.evaluation.export_module import number_type
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files

TOLERANCE = 1e-5  # of logits, relative to the largest: other programs sum in another order
CHECKED = 1_000  # samples at most


class ExportFailed(Exception):
    """The exported file computes something else than the network."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Attributes:
        difference: the largest difference between the file's logits and the network's, relative to the largest logit.
        checked: how many samples were compared.
        drawn: whether they were drawn at random, because the run's data is not available.
    """

    run: TrainedModel
    path: Path
    size: int
    difference: float
    checked: int
    drawn: bool


def export(
    path: Path,
    kind: Format,
    out: Path | None = None,
    weights: Weights | None = None,
    *,
    force: bool = False,
    choice: Choice | None = None,
) -> Exported:
    """Write the network at `path` (see `locate_run.find`) as `kind`, by default to `model.*` in the run's directory.

    Args:
        choice: of an ensemble; `path` is then a sweep's directory, and the file's name is by default `ensemble.*`.

    Raises:
        UserError: the run cannot be used, `out` cannot be written, or a package is missing.
        ExportFailed: the file's logits or classes differ from the network's; nothing was written.
    """
    _check_packages(kind)
    if choice is not None:
        target = out or path / f"ensemble{FORMATS[kind].suffix}"
        if path.is_dir():  # loading says what else it is
            locate_run.check_output_path(target, force=force)
        return export_ensemble(ensemble.load(path, choice), kind, target, force=force)
    run = trained_run.load(path, weights)
    target = out or run.location.folder / f"{run.location.stem}{FORMATS[kind].suffix}"
    locate_run.check_output_path(target, force=force)
    recorded_metrics.check(run)
    return _write(run, kind, target)


def export_ensemble(network: Ensemble, kind: Format, target: Path, *, force: bool = False) -> Exported:
    """Write an ensemble as one graph; errors as for `export`."""
    if kind == "safetensors":
        raise UserError("--format safetensors holds the weights of one network; export an ensemble as onnx or torch")
    _check_packages(kind)
    locate_run.check_output_path(target, force=force)
    return _write(network, kind, target)


def _check_packages(kind: Format) -> None:
    for package in FORMATS[kind].packages:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"--format {kind} needs the package {package}: pip install 'mlpexp[export]'") from None


def _write(run: TrainedModel, kind: Format, target: Path) -> Exported:
    raw, expected, drawn = reference_samples(run)
    content = make(kind, run, raw)
    difference = _compare(kind, content, run, raw, expected)
    atomic_files.write(target, content)
    return Exported(run=run, path=target, size=len(content), difference=difference, checked=len(expected), drawn=drawn)


def reference_samples(run: TrainedModel) -> tuple[Raw, Tensor, bool]:
    """Raw samples, the network's own logits (B, C) for them, and whether the samples were drawn at random.

    The reference preprocesses the samples with numpy, in the precision in which the data was read.
    """
    features = run.data.features
    numbers: NDArray[Any]
    categories: NDArray[np.object_] | None = None
    is_random = False
    try:
        table = data.load(run.located_data)
        if table.digest != run.data.digest:
            raise UserError("the data has changed")
        total = len(table.inputs)
        rows = np.linspace(0, total - 1, min(total, CHECKED)).astype(int)  # from the whole file, which may be sorted
        numbers, categories = table.inputs[rows], table.categories
        categories = None if categories is None else categories[rows]
    except (UserError, OSError):  # the comparison needs samples, not these
        is_random = True
        numbers, categories = _draw(run)
    inputs = torch.from_numpy(features.transform(numbers, categories)).to(next(run.module.parameters()).dtype)
    raw: Raw = (torch.from_numpy(np.array(numbers)).to(number_type(run)),)
    if categories is not None and features.values:
        raw = (*raw, torch.from_numpy(category_indices(categories, features.values, features.category_fill)))
    return raw, run.module(inputs).float(), is_random


def _draw(run: TrainedModel) -> tuple[NDArray[np.float64], NDArray[np.object_] | None]:
    """Random samples in the range of the training data, with missing values where the network allows them."""
    features, rng = run.data.features, np.random.default_rng(0)
    numbers = features.shift + rng.uniform(-1, 1, (CHECKED, len(features.names))) * features.scale
    if features.fill:
        numbers[rng.random(numbers.shape) < 0.1] = np.nan
    if not features.values:
        return numbers, None
    return numbers, np.array([[rng.choice(values) for values in features.values] for _ in numbers], dtype=object)


def category_indices(
    categories: NDArray[np.object_], values: Sequence[Sequence[str]], fill: Sequence[str]
) -> NDArray[np.int64]:
    """The index of each category among the values of its column, (B, K); -1 where it is not among them."""
    indices = np.full(categories.shape, -1, dtype=np.int64)
    for k, column_values in enumerate(values):
        index = {value: i for i, value in enumerate(column_values)}
        missing_index = index.get(fill[k], -1) if fill else -1
        indices[:, k] = [missing_index if value is None else index.get(value, -1) for value in categories[:, k]]
    return indices


def _compare(kind: Format, content: bytes, run: TrainedModel, raw: Raw, expected: Tensor) -> float:
    """The largest relative difference, in batches of several sizes.

    Raises:
        ExportFailed: it exceeds the tolerance, or a sample gets another class.
    """
    largest = max(float(expected.abs().max()), 1e-30)
    worst = 0.0
    for count in dict.fromkeys((1, min(7, len(expected)), len(expected))):
        logits = evaluate(kind, content, run, tuple(tensor[:count] for tensor in raw))
        if logits.shape != expected[:count].shape:
            raise ExportFailed(f"for {count} samples it returns shape {tuple(logits.shape)}; nothing was written")
        worst = max(worst, float((logits - expected[:count]).abs().max()) / largest)
        if run.data.target_names:
            continue
        # the network's own logit of the class that the file chooses; equal to its largest one up to rounding
        chosen_logits = expected[:count].gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        if wrong := int((expected[:count].amax(1) - chosen_logits > 2 * TOLERANCE * largest).sum()):
            raise ExportFailed(
                f"its classes differ from the network's for {wrong:,} of {count:,} samples; nothing was written"
            )
    if not worst <= TOLERANCE:  # NaN too
        raise ExportFailed(f"its answers differ from the network's by {worst:.1e} (relative); nothing was written")
    return worst
