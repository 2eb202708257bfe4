"""Evaluates a run or a checkpoint on its test part or on other data, and writes metrics, tables and figures."""

import fnmatch
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlpexp.evaluation import embedding, evaluation_data, evaluation_files, trained_run
from mlpexp.evaluation.classification_metrics import Metrics, compute_metrics
from mlpexp.evaluation.evaluation_data import Material
from mlpexp.evaluation.evaluation_files import KIND, METRICS
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.network_outputs import compute_outputs
from mlpexp.evaluation.trained_run import Trained
from mlpexp.runtime import safe_files
from mlpexp.store import owned_directory

Part = Literal["train", "val", "test", "all"]
ROUNDING = 1e-5  # relative, in loss, between the engines
ADVICE = "choose another directory with --out DIR"
# what evaluations have written before they had a manifest
FORMER = ("*.png", "*.csv", "*.tsv", "events.out.tfevents.*", embedding.CONFIG, METRICS)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation that has been written.

    Attributes:
        images: names of the figures.
        same: whether loss and accuracy equal those of result.json to the last bit; None where there are none.
        remarks: what a reader of the numbers has to know.
    """

    run: Trained
    samples: Material
    metrics: Metrics
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
    samples = evaluation_data.own(run, part) if data is None else evaluation_data.foreign(run, data, part)
    directory = out or _directory(run, path, part, data, weights)
    owned_directory.check(directory, "evaluation", ADVICE, _former_files)
    outputs = compute_outputs(run.module, samples.inputs, samples.labels, samples.index)
    metrics = compute_metrics(outputs, run.data.class_names)
    embedded = embedding.embed(outputs) if embed else None
    same, remark = _compare_with_result(run, samples, metrics)
    remarks = [*samples.remarks, *filter(None, [run.remark(), remark])]
    images, events = evaluation_files.figure_files(run, outputs, metrics, embedded)
    files: dict[str, str | bytes] = {
        **images,
        **evaluation_files.tables(metrics, outputs, run.data.class_names, embedded),
        **(evaluation_files.projector_files(run, outputs) if embed else {}),
        **events,
        METRICS: evaluation_files.metrics_json(run, samples, metrics, same, remarks, embedded),
    }
    owned_directory.replace(directory, files, "evaluation", ADVICE, _former_files)
    return Evaluation(
        run=run,
        samples=samples,
        metrics=metrics,
        directory=directory,
        images=list(images),
        same=same,
        remarks=remarks,
    )


def _directory(run: Trained, path: Path, part: Part | None, data: Path | None, weights: Weights | None) -> Path:
    """`evaluation` in the run's directory; the name of any other than the usual evaluation says what it is."""
    words = ["evaluation", *([part] if part else []), *([weights] if weights else []), *([data.stem] if data else [])]
    if run.place.directory is None:
        words.insert(0, run.place.checkpoint.stem)
    elif not path.is_dir() and run.place.weights == "last":
        words.append("last")
    return run.place.folder / "-".join(words)


def _former_files(directory: Path) -> list[str]:
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
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in FORMER) and safe_files.is_regular(path, follow=False)
    ]


def _compare_with_result(run: Trained, samples: Material, metrics: Metrics) -> tuple[bool | None, str | None]:
    """Whether result.json has the same numbers, and a remark where it has not."""
    if run.result is None or samples.part is None or run.result.epoch != run.epoch:
        return None, None
    noted = [run.result.metrics.get(f"{samples.part}/{name}") for name in ("loss", "acc")]
    if samples.part == "train" or None in noted:  # train/* is measured while the weights still change
        return None, None
    if noted == [metrics.loss, metrics.acc]:
        return True, None
    compiled = run.result.environment.get("engine") == "compiled"
    if compiled and noted[1] == metrics.acc and math.isclose(noted[0] or math.nan, metrics.loss, rel_tol=ROUNDING):
        difference = abs(metrics.loss - (noted[0] or math.nan)) / metrics.loss
        return False, (
            f"result.json has the same accuracy, and a loss that differs by {difference:.0e} (relative): the run was "
            "trained by the compiled engine and is evaluated by torch"
        )
    return False, f"result.json says loss {noted[0]}, accuracy {noted[1]}: other versions, threads or Trainer flags"
