"""Evaluates a run or a checkpoint on its test part or on other data, and writes metrics, tables and figures."""

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlpexp.evaluation import (
    embedding,
    evaluation_data,
    evaluation_files,
    network_outputs,
    recorded_metrics,
    trained_run,
)
from mlpexp.evaluation.classification_metrics import Metrics, compute_metrics
from mlpexp.evaluation.evaluation_data import EvaluationSamples, Part
from mlpexp.evaluation.evaluation_files import ADVICE, KIND, METRICS, Content
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.network_outputs import compute_outputs
from mlpexp.evaluation.trained_run import TrainedRun
from mlpexp.evaluation.value_evaluation import ValueEvaluation
from mlpexp.runtime import safe_files
from mlpexp.store import owned_directory

Evaluated = tuple[Metrics | ValueEvaluation, Mapping[str, float], Content]  # with the metrics that runs record
# what evaluations have written before they had a manifest
EARLIER = ("*.png", "*.csv", "*.tsv", "events.out.tfevents.*", embedding.CONFIG, METRICS)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation that has been written.

    Attributes:
        images: names of the figures.
        same: whether loss and accuracy equal those of result.json to the last bit; None where there are none.
        remarks: what a reader of the numbers has to know.
    """

    run: TrainedRun
    samples: EvaluationSamples
    metrics: Metrics | ValueEvaluation
    directory: Path
    images: list[str]
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
    """Evaluate the network at `path` (see `locate_run.find`) and write everything to `out`.

    Args:
        part: of the run's own data; by default its test part, or the validation part where there is none.
        data: a file of samples to evaluate on instead.
        embed: also PCA, t-SNE and the Projector, which take most of the time.

    Raises:
        UserError: the run, the data or `out` cannot be used.
    """
    run = trained_run.load(path, weights)
    samples = evaluation_data.load_samples(run, part, data)
    directory = out or _directory(run, path, part, data, weights)
    owned_directory.check(directory, "evaluation", ADVICE, _earlier_files)
    metrics, measured, content = (
        _evaluate_values(run, samples) if run.data.target_names else _evaluate_classes(run, samples, embed)
    )
    same, remarks = _compared(run, samples, measured)
    with_remarks = {"same_as_result": same, "remarks": remarks, **content.measured}
    images = evaluation_files.write(directory, run, samples, replace(content, measured=with_remarks), _earlier_files)
    return Evaluation(
        run=run,
        samples=samples,
        metrics=metrics,
        directory=directory,
        images=images,
        same=same,
        remarks=remarks,
    )


def _evaluate_classes(run: TrainedRun, samples: EvaluationSamples, embed: bool) -> Evaluated:
    outputs = compute_outputs(run.module, samples.inputs, samples.labels, samples.index)
    metrics = compute_metrics(outputs, run.data.class_names)
    embedded = embedding.embed(outputs) if embed else None
    tables = evaluation_files.tables(metrics, outputs, run.data.class_names, embedded)
    content = Content(
        figures=evaluation_files.figures_of_classes(run, outputs, metrics, embedded),
        tables={**tables, **(evaluation_files.projector_files(run, outputs) if embed else {})},
        measured=evaluation_files.plain_metrics(metrics, outputs, embedded),
    )
    return metrics, outputs.measured, content


def _evaluate_values(run: TrainedRun, samples: EvaluationSamples) -> Evaluated:
    evaluation = ValueEvaluation(
        index=samples.index,
        predicted=run.outputs(samples.inputs),
        true=run.data.in_target_units(samples.labels.numpy()),
        measured=network_outputs.measure_network(run.module, samples.inputs, samples.labels),
        data=run.data,
    )
    return evaluation, evaluation.measured, evaluation.content()


def _compared(
    run: TrainedRun, samples: EvaluationSamples, measured: Mapping[str, float]
) -> tuple[bool | None, list[str]]:
    """Whether result.json says the same to the last bit, and the remarks on these samples."""
    if samples.part is None or (run.result is not None and run.result.epoch != run.epoch):
        recorded_metrics.check(run)
        same, remark = None, None
    else:
        same, remark = recorded_metrics.compare(run, samples.part, measured)
        if same is None:
            recorded_metrics.check(run)
    return same, [*samples.remarks, *filter(None, [run.remark(), remark])]


def _directory(run: TrainedRun, path: Path, part: Part | None, data: Path | None, weights: Weights | None) -> Path:
    """`evaluation` in the run's directory; the name of any other than the usual evaluation says what it is."""
    parts = ["evaluation", *([part] if part else []), *([weights] if weights else []), *([data.stem] if data else [])]
    if run.location.directory is None:
        parts.insert(0, run.location.checkpoint.stem)
    elif not path.is_dir() and run.location.weights == "last":
        parts.append("last")
    return run.location.folder / "-".join(parts)


def _earlier_files(directory: Path) -> list[str]:
    """The files of an evaluation that was written without a manifest; none where the directory is not one."""
    try:
        content = json.loads(safe_files.read_bytes(directory / METRICS, follow=False))
    except (FileNotFoundError, safe_files.NotRegularFile, ValueError, RecursionError):
        return []
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return []
    return [
        path.name
        for path in directory.iterdir()
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in EARLIER) and safe_files.is_regular(path, follow=False)
    ]
