"""Evaluates an ensemble of runs of a sweep and its members on the same samples, and writes tables and figures.

Letters: M members, N samples, C classes or values of a regression.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.evaluation import ensemble, ensemble_scores, evaluation_data, evaluation_files
from mlpexp.evaluation.classification_metrics import Metrics, compute_metrics
from mlpexp.evaluation.ensemble import Ensemble
from mlpexp.evaluation.ensemble_members import Choice
from mlpexp.evaluation.ensemble_scores import Score, ScoreEstimate
from mlpexp.evaluation.evaluation_data import EvaluationSamples, Part
from mlpexp.evaluation.evaluation_files import ADVICE, Content
from mlpexp.evaluation.network_outputs import Outputs
from mlpexp.evaluation.value_evaluation import ValueEvaluation
from mlpexp.runtime.errors import UserError
from mlpexp.store import owned_directory
from mlpexp.store.csv_tables import csv_text
from mlpexp.store.directory_checks import MAX_NAME

ENSEMBLE, FIRST, MEAN = "ensemble", "best member by validation", "mean of members"
DIFFERENCE = f"{ENSEMBLE} minus {FIRST}"


@dataclass(frozen=True, kw_only=True)
class EnsembleEvaluation:
    """An ensemble and its members on the same samples.

    Attributes:
        scores: by metric; model 0 is the ensemble, then the members as `ensemble.members` has them.
        metrics: of the ensemble.
        directory: where it was written, with the names of its figures, `images`; None where it was not.
    """

    ensemble: Ensemble
    samples: EvaluationSamples
    scores: dict[str, Score]
    metrics: Metrics | ValueEvaluation
    outputs: Outputs | None
    remarks: list[str]
    directory: Path | None = None
    images: list[str] = field(default_factory=list)

    @property
    def best_member(self) -> int:
        """The model that is the best member by validation."""
        members = self.ensemble.members
        return 1 + min(range(len(members)), key=lambda index: members[index].rank)

    def summary(self) -> dict[str, dict[str, ScoreEstimate]]:
        """By row of the terminal's table, by metric."""
        return {
            ENSEMBLE: {name: score.estimate(0) for name, score in self.scores.items()},
            FIRST: {name: score.estimate(self.best_member) for name, score in self.scores.items()},
            MEAN: {name: score.mean(1) for name, score in self.scores.items()},
            DIFFERENCE: {name: score.difference(0, self.best_member) for name, score in self.scores.items()},
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """The ensemble and each member: `network`, `picks`, the validation metric, and each score with its interval."""
        members = self.ensemble.members
        models: list[tuple[str, int, float | None]] = [(ENSEMBLE, sum(member.picks for member in members), None)]
        models += [(member.name, member.picks, member.validation) for member in members]
        for model, (name, picks, validation) in enumerate(models):
            row: dict[str, Any] = {"network": name, "picks": picks, self.ensemble.metric: validation}
            for metric, score in self.scores.items():
                estimate = score.estimate(model)
                row |= {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
            yield row


def evaluate(ensemble: Ensemble, part: Part | None = None, data: Path | None = None) -> EnsembleEvaluation:
    """Arguments as for `evaluate.evaluate`.

    Raises:
        UserError: the data has changed, or does not fit.
    """
    samples = evaluation_data.load_samples(ensemble, part, data)
    members = ensemble.member_outputs(samples.inputs)
    mean = ensemble.mean(members)
    outputs_of_models = np.concatenate([mean[None], members])
    remarks = [*samples.remarks, *ensemble.remarks, *filter(None, [ensemble.remark()])]
    if samples.part == "val":
        remarks.append("the members were chosen by these samples, so that the numbers are too good")
    outputs: Outputs | None = None
    metrics: Metrics | ValueEvaluation
    if names := ensemble.data.target_names:
        true = ensemble.data.in_target_units(samples.labels.numpy())
        scores = ensemble_scores.value_scores(outputs_of_models, true, names)
        measured = {name: float(score.values[0]) for name, score in scores.items()}
        metrics = ValueEvaluation(index=samples.index, predicted=mean, true=true, measured=measured, data=ensemble.data)
    else:
        scores = ensemble_scores.class_scores(outputs_of_models, samples.labels.numpy())
        measured = {name: float(score.values[0]) for name, score in scores.items()}
        outputs = _outputs(samples, mean, {"loss": measured["nll"], **measured})
        metrics = compute_metrics(outputs, ensemble.data.class_names)
    return EnsembleEvaluation(
        ensemble=ensemble, samples=samples, scores=scores, metrics=metrics, outputs=outputs, remarks=remarks
    )


def write(
    sweep: Path, choice: Choice, part: Part | None = None, data: Path | None = None, out: Path | None = None
) -> EnsembleEvaluation:
    """Choose, evaluate, and write everything to `out`, by default a new directory in the sweep's.

    Raises:
        UserError: the runs, the data or `out` cannot be used.
    """
    name_parts = ["evaluation-ensemble", str(choice.count or "all"), *([choice.by] if choice.by != "best" else [])]
    name_parts += [word.replace("/", "_") for word in choice.where]
    name_parts += [*([part] if part else []), *([data.stem] if data else [])]
    directory = out or sweep / "-".join(name_parts)
    if len(directory.name.encode()) > MAX_NAME:
        raise UserError(f"the name {directory.name[:40]}… is too long for a directory; give one with --out DIR")
    owned_directory.check(directory, "evaluation", ADVICE)
    evaluation = evaluate(ensemble.load(sweep, choice), part, data)
    if isinstance(evaluation.metrics, ValueEvaluation):
        content = evaluation.metrics.content()
    else:
        assert evaluation.outputs is not None
        data_description = evaluation.ensemble.data
        content = Content(
            figures=evaluation_files.figures_of_outputs(data_description, evaluation.outputs, evaluation.metrics),
            tables=evaluation_files.tables(evaluation.metrics, evaluation.outputs, data_description.class_names, None),
            measured=evaluation_files.plain_metrics(evaluation.metrics, evaluation.outputs, None),
        )
    rows = list(evaluation.rows())
    members = csv_text(list(rows[0]), [list(row.values()) for row in rows])
    scores = {row: {k: asdict(v) for k, v in by_metric.items()} for row, by_metric in evaluation.summary().items()}
    content = replace(
        content,
        tables={"members.csv": members, **content.tables},
        measured={"remarks": evaluation.remarks, "scores": scores, **content.measured},
    )
    images = evaluation_files.write(directory, evaluation.ensemble, evaluation.samples, content)
    return replace(evaluation, directory=directory, images=images)


def _outputs(samples: EvaluationSamples, probabilities: NDArray[np.float64], measured: dict[str, float]) -> Outputs:
    return Outputs(
        index=samples.index,
        inputs=samples.inputs.numpy(),
        labels=samples.labels.numpy(),
        probabilities=probabilities,
        predicted=probabilities.argmax(-1),
        hidden=np.empty((len(probabilities), 0), np.float32),
        measured=measured,
    )
