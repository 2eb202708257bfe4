"""The files of an evaluation: figures, tables, the Projector's files, an event file, metrics.json."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlpexp.data.data_description import Description
from mlpexp.evaluation import embedding, evaluation_figures
from mlpexp.evaluation.classification_metrics import Metrics
from mlpexp.evaluation.embedding import Embedding
from mlpexp.evaluation.ensemble import Ensemble
from mlpexp.evaluation.evaluation_data import EvaluationSamples
from mlpexp.evaluation.network_outputs import Outputs
from mlpexp.evaluation.trained_run import TrainedRun
from mlpexp.store import owned_directory
from mlpexp.store.csv_tables import csv_text
from mlpexp.tracking import figures
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.events import Event, image
from mlpexp.training import decision_boundary

METRICS = "metrics.json"
ADVICE = "choose another directory with --out DIR"
KIND = "mlpexp evaluation"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is written of an evaluation.

    Attributes:
        figures: by name, which may be drawn late.
        tables: further files by name.
        measured: for metrics.json, as plain builtins.
    """

    figures: Iterable[tuple[str, Figure]]
    tables: Mapping[str, str | bytes]
    measured: Mapping[str, Any]


def write(
    directory: Path,
    run: TrainedRun | Ensemble,
    samples: EvaluationSamples,
    content: Content,
    earlier_files: owned_directory.Earlier | None = None,
) -> list[str]:
    """Write figures as PNG and as an event file, the tables, and metrics.json; returns the names of the figures."""
    images: dict[str, bytes] = {}
    events: list[Event] = []
    for name, figure in content.figures:
        png, width, height = figures.png(figure)
        images[f"{name}.png"] = png
        events.append(image(f"evaluation/{name}", 0, png, width, height, wall_time=time.time()))
    files: dict[str, str | bytes] = {**images, **content.tables, file_name(time.time()): encode(events)}
    files[METRICS] = _metrics_json(run, samples, content.measured)
    owned_directory.replace(directory, files, "evaluation", ADVICE, earlier_files)
    return list(images)


def tables(metrics: Metrics, outputs: Outputs, names: Sequence[str], embedded: Embedding | None) -> dict[str, str]:
    """CSV files; floats at full precision, an empty cell where there is no number."""
    rows = zip(
        *(values.tolist() for values in (outputs.index, outputs.labels, outputs.predicted, outputs.confidence)),
        strict=True,
    )
    files = {
        "per_class.csv": csv_text(
            ["class", "precision", "recall", "f1", "support", "predicted"],
            ([c.name, c.precision, c.recall, c.f1, c.support, c.predicted] for c in metrics.classes),
        ),
        "confusion.csv": csv_text(
            ["true class", *names], ([name, *row] for name, row in zip(names, metrics.confusion.tolist(), strict=True))
        ),
        "calibration.csv": csv_text(
            ["low", "high", "samples", "confidence", "accuracy"],
            ([b.low, b.high, b.count, b.confidence, b.accuracy] for b in metrics.bins),
        ),
        "predictions.csv": csv_text(
            ["sample", "true class", "predicted class", "right", "confidence"],
            (
                [i, names[true], names[predicted], int(true == predicted), confidence]
                for i, true, predicted, confidence in rows
            ),
        ),
    }
    if embedded is not None:
        samples = outputs.index[embedded.rows].tolist()
        tsne = [["", ""]] * len(samples) if embedded.tsne is None else embedded.tsne.tolist()
        files["embedding.csv"] = csv_text(
            ["sample", "pca_1", "pca_2", "tsne_1", "tsne_2"],
            ([i, *a, *b] for i, a, b in zip(samples, embedded.pca.tolist(), tsne, strict=True)),
        )
    return files


def projector_files(run: TrainedRun, outputs: Outputs) -> dict[str, bytes]:
    """The last hidden layer of the samples with their labels and images."""
    rows = embedding.sample(len(outputs), embedding.MAX_PROJECTED)
    names, shape = run.data.class_names, run.data.image_shape
    true, predicted = outputs.labels[rows], outputs.predicted[rows]
    labels = [names[t] if t == p else f"{names[t]} taken for {names[p]}" for t, p in zip(true, predicted, strict=True)]
    columns: dict[str, Sequence[object]] = {
        "answer": labels,  # first: the tab labels points by the first column that is not a number
        "true class": [names[c] for c in true],
        "predicted class": [names[c] for c in predicted],
        "confidence": [f"{value:.4f}" for value in outputs.confidence[rows]],
        "sample": outputs.index[rows].tolist(),
    }
    images = outputs.inputs[rows].reshape(-1, *shape) if shape is not None else None
    return embedding.projector_files(outputs.hidden[rows], columns, images)


def _metrics_json(run: TrainedRun | Ensemble, samples: EvaluationSamples, measured: Mapping[str, Any]) -> str:
    """The content of metrics.json; what is not finite is null."""
    if isinstance(run, Ensemble):
        members = [asdict(member) for member in run.members]
        ensemble = {"sweep": str(run.sweep), "selection": run.weights_description, "by": run.metric, "members": members}
        origin: dict[str, Any] = {"ensemble": ensemble}
    else:
        weights = {"sha256": run.sha256, "weights": run.location.weights, "epoch": run.epoch}
        checkpoint = {"path": str(run.location.checkpoint), **weights}
        origin = {"checkpoint": checkpoint, "identity": run.result.identity if run.result else None}
    content: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "complete": True,
        **origin,
        "data": {"name": run.data.name, "part": samples.part, "file": samples.file, "digest": samples.digest},
        **measured,
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def plain_metrics(metrics: Metrics, outputs: Outputs, embedded: Embedding | None) -> dict[str, Any]:
    """What metrics.json says of a classification."""
    plain = asdict(metrics)
    numbers = {name: value for name, value in plain.items() if isinstance(value, int | float)}
    content: dict[str, Any] = {
        "metrics": {**outputs.measured, **numbers},
        "classes": plain["classes"],
        "calibration": plain["bins"],
        "confusion": np.asarray(metrics.confusion).tolist(),
    }
    return content if embedded is None else content | {"pca_explained": list(embedded.explained)}


def figures_of_classes(
    run: TrainedRun, outputs: Outputs, metrics: Metrics, embedded: Embedding | None
) -> Iterator[tuple[str, Figure]]:
    """The figures of a network that classifies, by name."""
    names, shape = run.data.class_names, run.data.image_shape
    yield from figures_of_outputs(run.data, outputs, metrics)
    if shape is not None and run.module.network.user_module is None:
        weights = run.module.parameter_values()["layers.0.weight"].float().numpy()
        yield "first_layer", figures.first_layer_weights(weights, shape)
    if decision_boundary.is_plane(run.data):
        yield "boundary", decision_boundary.draw(run.module, run.data, outputs.inputs, outputs.labels)
    if embedded is None:
        return
    layer = "last hidden layer" if run.module.network.sizes[1:-1] else "logits (no hidden layer is known)"
    subset = "" if len(embedded.rows) == len(outputs) else f", {len(embedded.rows):,} of {len(outputs):,} samples"
    classes = outputs.labels[embedded.rows], outputs.predicted[embedded.rows]
    share_1, share_2 = embedded.explained
    axes = f"first component: {share_1:.0%} of the variance", f"second component: {share_2:.0%} of the variance"
    title = f"PCA of the {layer}{subset}"
    yield "embedding_pca", evaluation_figures.scatter(embedded.pca, *classes, names, title=title, axis_names=axes)
    if embedded.tsne is not None:
        title = f"t-SNE of the {layer}{subset}: distances have no meaning, neighbourhoods do"
        yield "embedding_tsne", evaluation_figures.scatter(embedded.tsne, *classes, names, title=title)


def figures_of_outputs(data: Description, outputs: Outputs, metrics: Metrics) -> Iterator[tuple[str, Figure]]:
    """The figures of a classification that need no network, by name."""
    yield "confusion", figures.confusion_matrix(metrics.confusion, data.class_names)
    yield "calibration", evaluation_figures.reliability_curve(metrics.bins, metrics.ece)
    if data.image_shape is not None:
        images = outputs.inputs.reshape(-1, *data.image_shape)
        outcomes = outputs.labels, outputs.predicted, outputs.confidence
        yield "mistakes", figures.mistakes(images, *outcomes, class_names=data.class_names)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
