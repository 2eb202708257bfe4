"""A run, or a checkpoint, put to the test: numbers, tables and pictures in a directory of their own."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from mlpexp.evaluation import embedding, evaluation_data, evaluation_figures, evaluation_tables, projector, trained_run
from mlpexp.evaluation.classification_metrics import Measures, measure
from mlpexp.evaluation.embedding import Embedding
from mlpexp.evaluation.evaluation_data import Material
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.network_outputs import Answers, ask
from mlpexp.evaluation.trained_run import Trained
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files
from mlpexp.tracking import figures as house_figures
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.events import Event, image
from mlpexp.training import decision_boundary

METRICS = "metrics.json"
KIND = "mlpexp evaluation"
SCHEMA_VERSION = 1

Part = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found, and where it is.

    Attributes:
        same: whether loss and accuracy are those of result.json to the last bit; None where none are to compare.
        remarks: what a reader of the numbers has to know.
    """

    run: Trained
    material: Material
    measures: Measures
    directory: Path
    pictures: list[str]
    same: bool | None
    remarks: list[str]


def evaluate(
    path: Path,
    *,
    weights: Weights | None = None,
    part: Part | None = None,
    data: Path | None = None,
    out: Path | None = None,
    embed: bool = True,
) -> Evaluation:
    """Evaluate what `path` means (see `places.find`) and write everything to `out`.

    Args:
        part: of the run's own data; its test part unless told otherwise, validation where there is none.
        data: a CSV file to evaluate on instead.
        embed: also PCA, t-SNE and the Projector, which take most of the time.

    Raises:
        UserError: the run, the data or `out` cannot be used.
    """
    run = trained_run.load(path, weights)
    found = evaluation_data.own(run, part) if data is None else evaluation_data.foreign(run, data, part)
    directory = out or _directory(run, path, found, part, data, weights)
    _check_writable(directory)
    answers = ask(run.module, found.inputs, found.labels, found.index)
    measures = measure(answers, run.data.class_names)
    embedded = embedding.embed(answers) if embed else None
    same, remark = _compare(run, found, measures)
    remarks = [*found.remarks, *filter(None, [run.remark(), remark])]
    pictures: dict[str, bytes] = {}
    events: list[Event] = []
    for name, figure in _figures(run, found, answers, measures, embedded):
        content, width, height = house_figures.png(figure)
        pictures[f"{name}.png"] = content
        events.append(image(f"evaluation/{name}", 0, content, width, height, wall_time=time.time()))
    files: dict[str, str | bytes] = {
        **pictures,
        **evaluation_tables.tables(measures, answers, run.data.class_names, embedded),
    }
    if embed:
        files |= _projector(run, found, answers)
    files[file_name(time.time())] = encode(events)
    files[METRICS] = _json(run, found, measures, same, remarks, embedded)
    _write(directory, files)
    return Evaluation(
        run=run,
        material=found,
        measures=measures,
        directory=directory,
        pictures=list(pictures),
        same=same,
        remarks=remarks,
    )


def _directory(
    run: Trained, path: Path, found: Material, part: Part | None, data: Path | None, weights: Weights | None
) -> Path:
    """`evaluation` in the run's directory; what is not its usual evaluation has a longer name."""
    words = ["evaluation", *([part] if part else []), *([weights] if weights else []), *([data.stem] if data else [])]
    if run.place.directory is None:
        words.insert(0, run.place.checkpoint.stem)
    elif not path.is_dir() and run.place.weights == "last":
        words.append("last")
    return (run.place.directory or run.place.checkpoint.parent) / "-".join(words)


def _check_writable(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; choose another directory with --out DIR")
    if directory.is_dir() and any(directory.iterdir()) and not _is_ours(directory):
        raise UserError(f"{directory} is not empty and holds no evaluation; choose another directory with --out DIR")


def _is_ours(directory: Path) -> bool:
    try:
        found = json.loads((directory / METRICS).read_bytes())
    except (OSError, ValueError, RecursionError):
        # what an evaluation that was cut short may have left
        return all(path.name.endswith(atomic_files.SUFFIX) for path in directory.iterdir())
    return isinstance(found, dict) and found.get("kind") == KIND


def _write(directory: Path, files: dict[str, str | bytes]) -> None:
    """All files, after those of an earlier evaluation have gone; `metrics.json` comes first and last."""
    directory.mkdir(parents=True, exist_ok=True)
    atomic_files.write(directory / METRICS, json.dumps({"kind": KIND, "complete": False}) + "\n")
    for old in directory.glob("events.out.tfevents.*"):
        old.unlink()
    for name in {"embedding.csv", "hidden.tsv", "labels.tsv", "sprite.png", projector.CONFIG} - files.keys():
        (directory / name).unlink(missing_ok=True)
    for picture in directory.glob("*.png"):
        if picture.name not in files:
            picture.unlink()
    for name, content in files.items():
        atomic_files.write(directory / name, content)


def _compare(run: Trained, found: Material, measures: Measures) -> tuple[bool | None, str | None]:
    """Whether result.json says the same, and a sentence where it does not."""
    if run.result is None or found.part is None or run.result.epoch != run.epoch:
        return None, None
    noted = [run.result.metrics.get(f"{found.part}/{name}") for name in ("loss", "acc")]
    if found.part == "train" or None in noted:  # train/* was measured while the weights still moved
        return None, None
    if noted == [measures.loss, measures.acc]:
        return True, None
    return False, f"result.json says loss {noted[0]}, accuracy {noted[1]}: other versions, threads or Trainer flags"


def _figures(
    run: Trained, found: Material, answers: Answers, measures: Measures, embedded: Embedding | None
) -> Iterator[tuple[str, Figure]]:
    names, shape = run.data.class_names, run.data.image_shape
    yield "confusion", house_figures.confusion_matrix(measures.confusion, names)
    yield "calibration", evaluation_figures.reliability_curve(measures.bins, measures.ece)
    if shape is not None:
        yield (
            "mistakes",
            house_figures.mistakes(
                answers.inputs.reshape(-1, *shape),
                answers.labels,
                answers.predicted,
                answers.confidence,
                class_names=names,
            ),
        )
        weights = run.module.parameter_layers()[0].weight.float().numpy()
        yield "first_layer", house_figures.first_layer_weights(weights, shape)
    if decision_boundary.is_plane(run.data):
        yield "boundary", decision_boundary.draw(run.module, run.data, answers.inputs, answers.labels)
    if embedded is not None:
        what = "last hidden layer" if run.module.sizes[1:-1] else "logits (there is no hidden layer)"
        some = "" if len(embedded.chosen) == len(answers) else f", {len(embedded.chosen):,} of {len(answers):,} samples"
        chosen = answers.labels[embedded.chosen], answers.predicted[embedded.chosen]
        axes = [f"{word} component: {share:.0%} of the variance" for word, share in
                zip(("first", "second"), embedded.explained, strict=True)]  # fmt: skip
        yield (
            "embedding_pca",
            evaluation_figures.scatter(
                embedded.pca, *chosen, names, words=f"PCA of the {what}{some}", axis_names=(axes[0], axes[1])
            ),
        )
        if embedded.tsne is not None:
            words = f"t-SNE of the {what}{some}: neighbours mean something, distances do not"
            yield "embedding_tsne", evaluation_figures.scatter(embedded.tsne, *chosen, names, words=words)


def _projector(run: Trained, found: Material, answers: Answers) -> dict[str, bytes]:
    chosen = embedding.sample(len(answers), projector.MOST)
    names, shape = run.data.class_names, run.data.image_shape
    true, guessed = answers.labels[chosen], answers.predicted[chosen]
    told = [names[a] if a == b else f"{names[a]} taken for {names[b]}" for a, b in zip(true, guessed, strict=True)]
    columns: dict[str, list[object]] = {
        "answer": list(told),  # first, for the tab labels points by the first column that is no number
        "true class": [names[c] for c in true],
        "predicted class": [names[c] for c in guessed],
        "confidence": [f"{value:.4f}" for value in answers.confidence[chosen]],
        "sample": answers.index[chosen].tolist(),
    }
    pictures = answers.inputs[chosen].reshape(-1, *shape) if shape is not None else None
    return projector.files(answers.hidden[chosen], columns, pictures)


def _json(
    run: Trained,
    found: Material,
    measures: Measures,
    same: bool | None,
    remarks: list[str],
    embedded: Embedding | None,
) -> str:
    plain = asdict(measures)
    content: dict[str, Any] = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "complete": True,
        "checkpoint": {
            "path": str(run.place.checkpoint),
            "sha256": run.sha256,
            "weights": run.place.weights,
            "epoch": run.epoch,
        },
        "identity": run.result.identity if run.result else None,
        "data": {"name": run.data.name, "part": found.part, "file": found.file, "digest": found.digest},
        "same_as_result": same,
        "remarks": remarks,
        "metrics": {name: value for name, value in plain.items() if isinstance(value, int | float)},
        "classes": plain["classes"],
        "calibration": plain["bins"],
        "confusion": np.asarray(measures.confusion).tolist(),
    }
    if embedded is not None:
        content["pca_explained"] = list(embedded.explained)
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
