"""A finished run put to the test: its own numbers again, references for the new ones, and refusals in one line."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script, tree
from PIL import Image
from sklearn import metrics as reference
from torchmetrics.functional.classification import multiclass_calibration_error

from mlpexp.analysis.ranking import best_run
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.analysis.variation import binomial_interval
from mlpexp.evaluation import (
    classification_metrics,
    embedding,
    evaluation_data,
    evaluation_figures,
    evaluation_files,
    trained_run,
)
from mlpexp.evaluation.network_outputs import Outputs, compute_outputs
from mlpexp.store import file_names, owned_directory, run_directory
from mlpexp.tracking import figures as house


@pytest.fixture(scope="module")
def evaluated(_two_epochs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run with its evaluation in it, not to be changed, and what the terminal showed."""
    place = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(_two_epochs, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.parent)
        patch.setenv("COLUMNS", "120")
        ended = run_script("evaluate.py", ["run"])
    assert ended.code == 0, ended.err
    return place, ended


def evaluate(*arguments: object, draw: bool = False) -> Outcome:
    """Without the pictures, which take nearly all of the time, unless it is they that a test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        if not draw:
            patch.setattr(evaluation_files, "figures_of_classes", lambda *_: [])
        return run_script("evaluate.py", [*map(str, arguments), "--no-embedding"])


def written(directory: Path) -> dict:
    found: dict = json.loads((directory / "metrics.json").read_text())
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_test_metrics_are_those_of_the_run_to_the_last_bit(evaluated):
    run, outcome = evaluated
    found, noted = written(run / "evaluation"), run_directory.read_result(run).metrics
    assert found["metrics"]["loss"] == noted["test/loss"]
    assert found["metrics"]["acc"] == noted["test/acc"]
    assert found["same_as_result"] is True
    assert "those of result.json, to the last bit" in outcome.out


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize(
    "settings",
    [
        "model.variant=backprop",
        "model.variant=autograd model.depth=0",
        "test_weights=last data.test_fraction=0.2",
        "+trainer.precision=64-true",
        "data=wine model.depth=2 model.width=8",
    ],
)
def test_every_kind_of_run_gives_its_own_numbers_again(train, here, settings):
    trained_so = train(
        f"hydra.run.dir=run trainer.max_epochs=2 tracking.figures=false tracking.diagnostics=false {settings}"
    )
    assert trained_so.code == 0, trained_so.err
    outcome = evaluate("run")
    assert outcome.code == 0, outcome.err
    assert "those of result.json, to the last bit" in outcome.out


def test_runs_of_a_stack_give_their_own_numbers_again(train, here):
    assert train("-m seed=0,1 model.width=8 trainer.max_epochs=2 name=pair stack.engine=torch").code == 0
    for run in sorted(path.parent for path in Path("multirun/pair").glob(f"*/{file_names.RESULT}")):
        outcome = evaluate(run)
        assert "those of result.json, to the last bit" in outcome.out, outcome.err


def test_the_validation_part_gives_the_metrics_of_its_epoch(finished):
    outcome = evaluate("run", "--part", "val")
    assert outcome.code == 0, outcome.err
    found, noted = written(finished / "evaluation-val"), run_directory.read_result(finished).metrics
    assert found["metrics"]["loss"] == noted["val/loss"]


def test_the_tables_agree_with_scikit_learn(evaluated):
    directory = evaluated[0] / "evaluation"
    table = rows(directory / "predictions.csv")
    true, guess = ([row[name] for row in table] for name in ("true class", "predicted class"))
    report = reference.classification_report(true, guess, output_dict=True)
    for row in rows(directory / "per_class.csv"):
        for ours, theirs in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert float(row[ours]) == pytest.approx(report[row["class"]][theirs], abs=1e-12)
    matrix = [[int(row[name]) for name in "0123456789"] for row in rows(directory / "confusion.csv")]
    assert matrix == reference.confusion_matrix(true, guess).tolist()
    found = written(directory)["metrics"]
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found["balanced_acc"] == pytest.approx(reference.balanced_accuracy_score(true, guess))
    assert sum(row["true class"] == row["predicted class"] for row in table) == sum(r["right"] == "1" for r in table)


def answers(num: int = 400, classes: int = 4, seed: int = 0) -> Outputs:
    """Those of a network that nobody trained."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, classes)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = np.array([rng.choice(classes, p=p) for p in probabilities])
    return Outputs(
        index=np.arange(num),
        inputs=rng.normal(size=(num, 3)).astype(np.float32),
        labels=labels,
        probabilities=probabilities,
        predicted=logits.argmax(-1),
        hidden=rng.normal(size=(num, 5)).astype(np.float32),
        measured={"loss": 1.0, "acc": float((logits.argmax(-1) == labels).mean())},
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_torchmetrics(seed):
    given = answers(seed=seed)
    theirs = multiclass_calibration_error(
        torch.from_numpy(given.probabilities), torch.from_numpy(given.labels), num_classes=4, n_bins=15, norm="l1"
    )
    found = classification_metrics.compute_metrics(given, list("abcd"))
    assert found.ece == pytest.approx(theirs.item(), abs=1e-6)
    assert sum(one.count for one in found.bins) == len(given)


def test_the_interval_is_wilsons():
    from statsmodels.stats.proportion import proportion_confint

    for right, total in ((0, 10), (246, 270), (1, 1), (10, 10)):
        assert binomial_interval(right / total, total) == pytest.approx(
            proportion_confint(right, total, method="wilson")
        )


def test_a_class_that_is_never_met_has_no_numbers_rather_than_wrong_ones():
    given = answers(classes=3)
    found = classification_metrics.compute_metrics(given, ["a", "b", "c"])
    wider = dataclasses.replace(given, probabilities=np.pad(given.probabilities, ((0, 0), (0, 1))))
    with_never = classification_metrics.compute_metrics(wider, ["a", "b", "c", "never"])
    assert np.isnan(with_never.classes[3].recall)
    assert with_never.classes[3].support == 0
    assert with_never.macro_f1 == pytest.approx(found.macro_f1)


def test_the_embedding_is_the_same_each_time_and_pca_is_that_of_the_singular_values():
    given = answers(60)
    one, two = embedding.embed(given), embedding.embed(given)
    assert np.array_equal(one.tsne, two.tsne)
    centred = given.hidden - given.hidden.mean(0)
    values = np.linalg.svd(centred.astype(float), compute_uv=False) ** 2
    assert one.explained == pytest.approx(values[:2] / values.sum(), rel=1e-5)
    assert np.abs(one.pca[:, 0]).sum() == pytest.approx(np.abs(centred @ np.linalg.svd(centred)[2][0]).sum(), rel=1e-4)


@pytest.mark.parametrize(("num", "units"), [(1, 5), (3, 5), (20, 1)])
def test_few_samples_and_a_single_unit_are_embedded_too(num, units):
    given = answers(num)
    given = dataclasses.replace(given, hidden=given.hidden[:, :units])
    found = embedding.embed(given)
    assert found.pca.shape == (num, 2)
    assert (found.tsne is None) == (num < embedding.MIN_TSNE)
    assert classification_metrics.compute_metrics(given, list("abcd")).samples == num


def test_the_pictures_and_tables_are_all_there(evaluated):
    run, outcome = evaluated
    names = {path.name for path in (run / "evaluation").iterdir() if not path.name.startswith("events")}
    pictures = {f"{name}.png" for name in
                ("confusion", "calibration", "mistakes", "first_layer", "embedding_pca", "embedding_tsne")}  # fmt: skip
    assert pictures < names
    assert {"per_class.csv", "confusion.csv", "calibration.csv", "predictions.csv", "embedding.csv"} < names
    assert len(rows(run / "evaluation/embedding.csv")) == 270
    assert "tensorboard --logdir run/evaluation" in outcome.out
    for row in ("precision", "macro F1", "calibration error"):
        assert row in outcome.out


def test_the_projectors_files_are_read_by_tensorboards_own_plugin(evaluated):
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig
    from tensorboard.plugins.projector.projector_plugin import _read_tensor_tsv_file

    directory = evaluated[0] / "evaluation"
    found = text_format.Parse((directory / embedding.CONFIG).read_text(), ProjectorConfig()).embeddings[0]
    vectors = _read_tensor_tsv_file(str(directory / found.tensor_path))
    labels = (directory / found.metadata_path).read_text().splitlines()
    assert vectors.shape == (270, 50)
    assert len(labels) == 271  # one line of names
    assert labels[0].split("\t")[:3] == ["answer", "true class", "predicted class"]
    width, height = found.sprite.single_image_dim
    with Image.open(directory / found.sprite.image_path) as sprite:
        assert sprite.size == (17 * width, 17 * height)
    run = trained_run.load(evaluated[0])
    own = evaluation_data.load_samples(run, "test")
    hidden = compute_outputs(run.module, own.inputs, own.labels, own.index).hidden
    assert np.allclose(vectors, hidden, rtol=1e-4, atol=1e-6)


def test_names_cannot_break_tables_or_pictures():
    names = ["=1+1", "a\tb\nc", "$x_1$", "-1"]
    given = answers()
    found = evaluation_files.tables(classification_metrics.compute_metrics(given, names), given, names, None)
    assert found["per_class.csv"].splitlines()[1].startswith("'=1+1,")
    assert "\n-1," in found["per_class.csv"]  # a number stays one
    labels = embedding.projector_files(given.hidden, {"class": [names[c] for c in given.labels]})["labels.tsv"]
    assert len(labels.decode().splitlines()) == len(given) + 1
    house.png(evaluation_figures.scatter(given.hidden[:, :2], given.labels, given.predicted, names, title="<b>$x"))
    house.png(evaluation_figures.reliability_curve(classification_metrics.compute_metrics(given, names).bins, 0.1))


def digits_csv(path: Path, count: int = 50, header: bool = True, labels: bool = True) -> Path:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow([*bunch.feature_names, *(["label"] if labels else [])])
        for row, label in zip(bunch.data[:count], bunch.target[:count], strict=True):
            writer.writerow([*row, *([label] if labels else [])])
    return path


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("header", [True, False])
def test_other_data_is_scaled_as_the_runs_own(finished, here, header):
    digits_csv(here / "mine.csv", 1797, header)
    assert evaluate("run", "--data", "mine.csv").code == 0
    assert evaluate("run", "--part", "all").code == 0
    mine, everything = (written(finished / f"evaluation-{name}")["metrics"] for name in ("mine", "all"))
    assert mine == everything


def test_an_evaluation_can_be_repeated_but_overwrites_nobody_elses_files(finished, here):
    assert evaluate("run", "--out", "mine").code == 0
    assert evaluate("run", "--out", "mine").code == 0
    assert len(list((here / "mine").glob("events.*"))) == 1
    (here / "theirs").mkdir()
    (here / "theirs/letter.txt").write_text("hello")
    before = tree(here)
    outcome = evaluate("run", "--out", "theirs")
    assert outcome.code == 2
    assert "theirs is not empty and holds no evaluation" in outcome.line
    assert tree(here) == before


def test_a_checkpoint_is_found_in_every_directory_that_holds_one(finished, here):
    for path in ("run", "run/checkpoints", "run/checkpoints/best.ckpt"):
        assert evaluate(path, "--out", "x").code == 0
        assert written(here / "x")["checkpoint"]["weights"] == "best"
    assert evaluate("run", "--weights", "last", "--out", "x").code == 0
    assert written(here / "x")["checkpoint"]["weights"] == "last"
    shutil.copy(finished / file_names.BEST, here / "mine.ckpt")
    assert evaluate("mine.ckpt").code == 0
    assert (here / "mine-evaluation/metrics.json").is_file()


def _sweep(here: Path) -> None:
    (here / "sweep").mkdir()
    shutil.move(here / "run", here / "sweep/seed=0")
    (here / "sweep/results.csv").write_text("run,name,status,val/loss\n0,seed=0,ok,0.5\n")


def _outputs(here: Path) -> None:
    (here / "outputs/2026-01-01").mkdir(parents=True)
    shutil.move(here / "run", here / "outputs/2026-01-01/10-00-00")


def _changed_data(here: Path) -> None:
    from test_checkpoints import rewrite

    (here / "run" / file_names.RESULT).unlink()
    rewrite(here / "run" / file_names.BEST, lambda c: c["hyper_parameters"]["data"].update(digest="0" * 64))


REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "nothing": (lambda here: None, ["nowhere"], "nowhere does not exist; give a run's directory"),
    "an empty directory": (lambda here: (here / "empty").mkdir(), ["empty"], "empty holds no run"),
    "a sweep": (_sweep, ["sweep"], "is a sweep of 1 finished run; give one of them, the best by validation is sweep/"),
    "a directory of runs": (_outputs, ["outputs"], "holds 1 run; give one, e.g. the newest: outputs/2026-01-01/"),
    "data that changed": (_changed_data, ["run"], "has changed since it was trained"),
    "a part and a file": (lambda here: None, ["run", "--part", "val", "--data", "a.csv"], "leave one of them out"),
    "data without classes": (lambda here: digits_csv(here / "a.csv", labels=False), ["run", "--data", "a.csv"],
                             "has no column of true classes"),
    "both weights": (lambda here: None, ["run/checkpoints/best.ckpt", "--weights", "last"], "holds the best weights"),
    "out is a file": (lambda here: (here / "x").write_text(""), ["run", "--out", "x"], "x is a file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_evaluated_is_refused_in_one_line(finished, here, kind):
    prepare, arguments, said = REFUSED[kind]
    prepare(here)
    before = tree(here)
    outcome = evaluate(*arguments)
    assert outcome.code == 2, outcome.out
    assert said in outcome.line
    assert tree(here) == before


def test_points_in_the_plane_are_shown_with_what_the_network_says_everywhere(train, here, monkeypatch):
    assert train("data=moons trainer.max_epochs=2 hydra.run.dir=moons tracking.figures=false").code == 0
    seen = {}
    draw = house.boundary

    def spy(points, labels, field, extent, *rest):
        seen.update(points=points, field=field, extent=extent)
        return draw(points, labels, field, extent, *rest)

    monkeypatch.setattr(house, "boundary", spy)
    assert evaluate("moons", draw=True).code == 0
    assert (here / "moons/evaluation/boundary.png").is_file()
    left, right, bottom, top = seen["extent"]
    rows_, columns = seen["field"].shape
    at = [((y - bottom) / (top - bottom) * (rows_ - 1), (x - left) / (right - left) * (columns - 1))
          for x, y in seen["points"]]  # fmt: skip
    near = [seen["field"][round(row), round(column)] for row, column in at]
    run = trained_run.load(here / "moons")
    own = evaluation_data.load_samples(run, "test")
    assert np.mean(near == compute_outputs(run.module, own.inputs, own.labels, own.index).predicted) > 0.98


def test_the_best_run_of_a_sweep_is_that_of_the_report(train, here):
    """Width 8 has the better mean; one seed of width 2 may be luckier than each of its own."""
    assert train("-m name=s model.width=2,16 seed=0,1,2 trainer.max_epochs=2 monitor=val/acc").code == 0
    analysis = analyse(here / "multirun/s")
    expected = analysis.study.names[best_run(analysis.study, analysis.ranking)]
    assert f"the best by validation is multirun/s/{expected}, " in evaluate("multirun/s").line


def test_a_sweep_kept_as_a_table_says_that_it_has_no_checkpoints(train, here):
    assert train("-m name=t record=table seed=0,1 trainer.max_epochs=1").code == 0
    assert "record=table, which keeps no checkpoints" in evaluate("multirun/t").line


def test_an_evaluation_of_a_version_without_a_manifest_is_replaced_and_foreign_files_stay(finished, here):
    assert evaluate("run").code == 0
    directory = finished / "evaluation"
    (directory / owned_directory.MANIFEST).unlink()
    (directory / "boundary.png").write_bytes(b"of an earlier version")
    (directory / "notes.txt").write_text("mine")
    assert evaluate("run").code == 0
    assert not (directory / "boundary.png").exists()
    assert (directory / "notes.txt").read_text() == "mine"
    assert len(list(directory.glob("events.*"))) == 1


def test_an_evaluation_writes_through_no_link_and_spares_what_was_changed(finished, here):
    (here / "target").mkdir()
    (finished / "evaluation").symlink_to(here / "target")
    refused = evaluate("run")
    assert (refused.code, "is a symbolic link" in refused.line) == (2, True)
    assert list((here / "target").iterdir()) == []
    assert evaluate("run", "--out", "mine").code == 0
    (here / "mine/per_class.csv").write_text("my corrections")
    refused = evaluate("run", "--out", "mine")
    assert (refused.code, "per_class.csv was not written by mlpexp, or has changed since" in refused.line) == (2, True)
    assert (here / "mine/per_class.csv").read_text() == "my corrections"


def test_a_run_of_the_compiled_engine_agrees_up_to_rounding_and_says_so(train, here):
    pytest.importorskip("numba")
    assert train("-m seed=0,1 model.width=8 trainer.max_epochs=2 name=fast stack.engine=compiled").code == 0
    for path in sorted(Path("multirun/fast").glob(f"*/{file_names.RESULT}")):
        outcome = evaluate(path.parent)
        assert outcome.code == 0, outcome.err
        noted, found = run_directory.read_result(path.parent).metrics, written(path.parent / "evaluation")["metrics"]
        assert found["loss"] == pytest.approx(noted["test/loss"], rel=1e-5)
        assert found["acc"] == noted["test/acc"]
        text = " ".join(outcome.out.split())
        assert "the last bit" in text or "trained by the compiled engine and is evaluated by torch" in text
