"""The figures of one finished run: PNG files below `figures`, and the same in TensorBoard."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mlpexp.data.prepared_data import Prepared
from mlpexp.models.classifier import Classifier
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.losses import softmax
from mlpexp.nn.metric_columns import columns, headline, is_share, title
from mlpexp.store import atomic_files, file_names
from mlpexp.tracking import figures
from mlpexp.tracking.event_files import EventLog
from mlpexp.tracking.events import image
from mlpexp.training import decision_boundary
from mlpexp.training.decision_boundary import shown_part

GALLERY = [42, 64, 1337]  # those that the course notebook shows


def draw(module: Classifier, data: Prepared, record: RunRecord, directory: Path, events: EventLog | None) -> None:
    """Draw the run; `module` holds the weights that the result names."""
    atomic_files.make_directory(directory / file_names.FIGURES)
    step = max(0, len(record.history) - 1)
    for name, figure in _figures(module, data, record):
        content, width, height = figures.png(figure)
        atomic_files.write(directory / file_names.FIGURES / f"{name}.png", content)
        if events is not None:
            events.add(image(f"visual/{name}", step, content, width, height, wall_time=time.time()))


def _figures(module: Classifier, data: Prepared, record: RunRecord) -> Iterator[tuple[str, Figure]]:
    yield "curves", _curves(module, record)
    yield from (_class_figures if data.class_names else _value_figures)(module, data)
    if record.layer_rows:
        rows = record.layer_rows
        start = int(rows[0][0])  # earlier versions did not record the state before training, epoch -1
        epochs = len({row[0] for row in rows})
        norms = np.array([row[2] for row in rows], dtype=float).reshape(epochs, -1)
        yield "gradient_norms", figures.layer_lines(norms, "gradient norm", "L2", first_epoch=start)
        saturated = np.array([row[4] for row in rows if row[4] != ""], dtype=float)
        if saturated.size:
            shares = saturated.reshape(epochs, -1)
            yield "saturation", figures.layer_lines(shares, "saturated share", axis="share", first_epoch=start)


def _curves(module: Classifier, record: RunRecord) -> Figure:
    cfg = module.cfg
    metric = headline(record.history[-1].keys() if record.history else columns("val", names=cfg.metric_names))
    loss_title = title("loss", [cfg.loss_function.name])
    best = record.progress.best_epoch
    return figures.learning_curves(record.history, best, loss_title, metric, title(metric), is_share=is_share(metric))


def _value_figures(module: Classifier, data: Prepared) -> Iterator[tuple[str, Figure]]:
    part = shown_part(data)
    inputs, targets = data.part(part)
    outputs = _outputs(module, inputs)  # (n, T)
    if torch.isfinite(outputs).all():
        predicted, true = (data.description.in_target_units(values.numpy()) for values in (outputs, targets))
        names = data.description.target_names
        yield f"predicted_{part}", figures.predicted_values(predicted, true, names, decision_boundary.SAMPLES[part])


def _class_figures(module: Classifier, data: Prepared) -> Iterator[tuple[str, Figure]]:
    if data.image_shape is not None:
        pictures = data.inputs.numpy().reshape(-1, *data.image_shape)
        names = np.array(data.class_names)[data.labels.numpy()]
        yield "samples", figures.sample_gallery(pictures, names, [i for i in GALLERY if i < len(pictures)])
    part = shown_part(data)
    inputs, labels = data.part(part)
    probabilities = softmax(_outputs(module, inputs))  # (n, C)
    if torch.isfinite(probabilities).all():
        confidence, predicted = probabilities.max(-1)
        classes = probabilities.shape[-1]
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
        yield f"confusion_{part}", figures.confusion_matrix(counts.numpy(), data.class_names)
        if data.image_shape is not None:
            shown = inputs.numpy().reshape(-1, *data.image_shape)
            guesses = labels.numpy(), predicted.numpy(), confidence.numpy()
            yield f"mistakes_{part}", figures.mistakes(shown, *guesses, class_names=data.class_names)
            if module.network.user_module is None:
                first = module.parameter_values()["layers.0.weight"].float().numpy()  # (width, I)
                yield "first_layer", figures.first_layer_weights(first, data.image_shape)
        if decision_boundary.is_plane(data.description):
            plane = inputs.numpy(), labels.numpy(), decision_boundary.SAMPLES[part]
            yield "decision_boundary", decision_boundary.draw(module, data.description, *plane)


@torch.no_grad()
def _outputs(module: Classifier, inputs: Tensor) -> Tensor:
    """The outputs (n, C) in single precision, computed in the precision in which the network was trained."""
    outputs: Tensor = module.cpu()(inputs.to(next(module.parameters()).dtype))
    return outputs.float()
