"""Every metric against torchmetrics or scikit-learn, for each run of a stack, and its columns in every file."""

import csv

import numpy as np
import pytest
import torch
import torchmetrics
from conftest import run_script
from sklearn.metrics import brier_score_loss, f1_score, log_loss, recall_score, roc_auc_score
from torch.nn import functional as F

from mlpexp import load_results
from mlpexp.nn import metric_columns
from mlpexp.nn.metric_columns import measure
from mlpexp.nn.metrics import METRICS
from mlpexp.nn.outcomes import Outcomes, joined
from mlpexp.store import run_directory

CLASSES, TARGETS, SAMPLES, RUNS = 6, 2, 300, 3


def classified():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(RUNS, SAMPLES, CLASSES, generator=generator)
    labels = torch.randint(CLASSES, (RUNS, SAMPLES), generator=generator)
    logits.scatter_add_(2, labels.unsqueeze(2), torch.ones(RUNS, SAMPLES, 1))
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(RUNS, SAMPLES)
    return Outcomes(losses, logits.argmax(-1), labels, CLASSES, outputs=logits)


def valued():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(RUNS, SAMPLES, TARGETS, generator=generator)
    outputs = labels + 0.5 * torch.randn(RUNS, SAMPLES, TARGETS, generator=generator)
    scale = 1 + torch.rand(RUNS, TARGETS, generator=generator, dtype=torch.float64)
    return Outcomes(((outputs - labels) ** 2).mean(-1), None, labels, TARGETS, outputs=outputs, scale=scale)


def of_torchmetrics(name: str, outcomes: Outcomes, run: int) -> list[float]:
    """What torchmetrics computes for one run; one value for each class where the metric has them."""
    entry = METRICS[name]
    area, _, kind = entry.reference.rpartition(".")
    make = getattr(getattr(torchmetrics, area), kind)
    losses, labels = outcomes.losses[run], outcomes.labels[run]
    if area == "aggregation":
        return [make()(losses).item()]
    if area == "regression":
        outputs, values = outcomes.outputs[run] * outcomes.scale[run], labels * outcomes.scale[run]
        found = make(**{"squared": False} if name == "rmse" else {})(outputs.flatten(), values.flatten())
        return [make()(outputs, values).item() if name == "r2" else found.item()]
    settings = {
        "acc": {"average": "micro"},
        "recall": {"average": "none"},
        "balanced_acc": {"average": "macro"},
        "ece": {"n_bins": 15},
        **{f"top{k}": {"top_k": k, "average": "micro"} for k in (2, 3, 5)},
    }.get(name, {"average": "macro"})
    probabilities = outcomes.outputs[run].double().softmax(-1)
    given = probabilities if entry.needs_outputs else outcomes.predictions[run]
    return np.atleast_1d(make(num_classes=CLASSES, **settings)(given, labels).numpy()).tolist()


def of_sklearn(name: str, outcomes: Outcomes, run: int) -> list[float]:
    probabilities, labels = outcomes.outputs[run].double().softmax(-1).numpy(), outcomes.labels[run].numpy()
    if name == "nll":
        return [log_loss(labels, probabilities)]
    return [brier_score_loss(labels, probabilities, labels=range(CLASSES), scale_by_half=False)]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_that_of_another_library_for_every_run(name):
    outcomes = classified() if "classification" in METRICS[name].tasks else valued()
    found = measure("val", outcomes, names=[name])
    assert list(found) == list(metric_columns.columns("val", names=[name], num_outputs=CLASSES))
    reference = of_torchmetrics if METRICS[name].reference else of_sklearn
    for run in range(RUNS):
        ours = [values[run].item() for values in found.values()]
        assert ours == pytest.approx(reference(name, outcomes, run), rel=1e-6, abs=1e-7)
        alone = Outcomes(*(part[run] if isinstance(part, torch.Tensor) else part for part in outcomes))
        assert [value.item() for value in measure("val", alone, names=[name]).values()] == pytest.approx(
            ours, rel=1e-12
        )


@pytest.mark.parametrize("name", METRICS)
def test_batches_and_processes_add_up_to_the_whole(name):
    outcomes = classified() if "classification" in METRICS[name].tasks else valued()
    whole = measure("val", outcomes, names=[name])

    def part(start, stop):
        return Outcomes(
            *(
                value[:, start:stop] if isinstance(value, torch.Tensor) and value.shape[1] == SAMPLES else value
                for value in outcomes
            )
        )

    together = measure("val", joined([part(0, 100), part(100, 300)]), names=[name])
    for column, values in whole.items():
        torch.testing.assert_close(together[column], values, rtol=1e-12, atol=0)
    entry = METRICS[name]
    if entry.sums is not None:
        summed = entry.value(entry.sums(part(0, 100)) + entry.sums(part(100, 300)))
        torch.testing.assert_close(summed, entry.value(entry.sums(outcomes)), rtol=1e-12, atol=1e-12)


def test_equal_scores_count_one_half_in_the_area_under_the_curve():
    probabilities = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 1, 0, 1])
    outcomes = Outcomes(torch.zeros(5), probabilities.argmax(-1), labels, 2, outputs=probabilities.log())
    found = measure("val", outcomes, names=["auroc"])["val/auroc"].item()
    assert found == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))


@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if entry.needs_outputs])
def test_outputs_that_are_not_finite_never_look_good(name):
    outcomes = classified() if "classification" in METRICS[name].tasks else valued()
    blown = outcomes._replace(outputs=torch.full_like(outcomes.outputs, torch.nan))
    for value in measure("val", blown, names=[name]).values():
        assert not value.isfinite().any() or (METRICS[name].higher_is_better and value.max() < 0.1)


def test_a_class_without_samples_has_no_recall_and_does_not_count_in_the_balanced_accuracy():
    labels, predictions = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    found = measure("val", Outcomes(torch.zeros(4), predictions, labels, 3), names=["balanced_acc", "recall"])
    assert found["val/balanced_acc"].item() == 0.75
    assert [found[f"val/recall_{k}"].item() for k in (0, 1)] == [0.5, 1.0]
    assert found["val/recall_2"].isnan()


def absent_class(probabilities, labels):
    """What scikit-learn says of three classes of which the last one has no sample."""
    seen = [roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1)]
    return {
        "auroc": sum(seen) / 2,
        "f1": f1_score(labels, probabilities.argmax(1), average="macro"),
        "balanced_acc": recall_score(labels, probabilities.argmax(1), labels=[0, 1], average="macro"),
    }


def test_a_class_without_samples_counts_as_in_scikit_learn_and_the_data_line_names_it(train, here):
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet([1, 1, 1], 30), generator.integers(0, 2, 30)
    outputs = torch.tensor(probabilities).log()
    outcomes = Outcomes(torch.zeros(30), outputs.argmax(-1), torch.tensor(labels), 3, outputs=outputs)
    for name, wanted in absent_class(probabilities, labels).items():
        assert measure("val", outcomes, names=[name])[f"val/{name}"].item() == pytest.approx(wanted), name
    for name, classes in (("train", "xyz"), ("val", "xy"), ("test", "x")):
        rows = [f"{generator.normal():.4f},{classes[i % len(classes)]}" for i in range(30)]
        (here / f"{name}.csv").write_text("\n".join(["a,label", *rows]) + "\n")
    files = "data=csv data.target=label data.path=train.csv data.val_path=val.csv data.test_path=test.csv"
    ended = train(f"{files} metrics=[auroc,recall] trainer.max_epochs=1 tracking.figures=false hydra.run.dir=a")
    assert ended.code == 0, ended.err
    assert "3 classes: x, y, z; no sample of z in val; of y, z in test" in " ".join(ended.out.split())
    metrics = run_directory.read_result(here / "a").metrics
    assert np.isfinite(metrics["val/auroc"]) and np.isnan(metrics["test/auroc"]) and np.isnan(metrics["val/recall_2"])


CHOSEN = "metrics=[f1,recall,auroc,ece] monitor=val/balanced_acc"


def test_chosen_metrics_are_columns_of_every_file_and_the_monitor_decides(train, here):
    settings = f"data=iris trainer.max_epochs=4 model.width=5 optimizer.lr=0.01 tracking.figures=false {CHOSEN}"
    sweep = train(f"-m {settings} seed=0,1,2 name=s")
    assert sweep.code == 0, sweep.err
    assert "torch engine" in sweep.out
    assert "by mean val/balanced_acc" in sweep.out or "val/balanced_acc" in sweep.out
    alone = train(f"{settings} seed=1 hydra.run.dir=alone")
    assert alone.code == 0, alone.err
    assert "macro F1" in alone.out
    names = ["loss", "acc", "f1", "balanced_acc", "recall_0", "recall_1", "recall_2", "auroc", "ece"]
    [twin] = (here / "multirun/s").glob("*seed=1*/metrics.csv")
    assert twin.read_bytes() == (here / "alone/metrics.csv").read_bytes()
    with twin.open(newline="") as file:
        history = list(csv.DictReader(file))
    assert list(history[0]) == ["epoch", *(f"{part}/{name}" for part in ("train", "val") for name in names)]
    result = run_directory.read_result(here / "alone")
    assert result.objective == max(float(row["val/balanced_acc"]) for row in history)
    assert result.metrics == run_directory.read_result(twin.parent).metrics
    records = load_results(here / "multirun/s")
    assert {f"test/{name}" for name in names} <= records[0].keys()
    ended = run_script("report.py", ["multirun/s", "--metric", "auroc"])
    assert ended.code == 0, ended.err
    page = (here / "multirun/s/report/index.html").read_text(encoding="utf-8")
    assert "validation balanced accuracy" in page
    assert "area under the ROC curve" in page


def test_the_plain_network_keeps_no_outputs(train, here):
    """Neither the torch engine's memory nor the choice of the engine changes without such a metric."""
    ended = train("-m trainer.max_epochs=1 seed=0,1 name=s 'metrics=[f1,recall]'")
    assert ended.code == 0, ended.err
    assert "compiled engine" in ended.out


def test_an_objective_that_is_not_recorded_is_refused(train):
    pytest.importorskip("optuna")
    search = "-m hydra/sweeper=optuna hydra.sweeper.n_trials=2 optimizer.lr=0.1,0.2 trainer.max_epochs=1"
    ended = train(f"{search} hydra.sweeper.objectives=[val/f1]")
    assert ended.code == 2
    assert "metrics=[f1]" in ended.line


def test_a_column_that_is_no_metric_keeps_its_parts_in_the_tables():
    found = ["train/loss", "train/recall_1", "train/sparsity"]
    each = [f"{part}/{name}" for part in ("train", "val", "test") for name in ("loss", "recall_1")]
    assert sorted(metric_columns.all_parts(found)) == sorted([*each, "train/sparsity"])
    assert metric_columns.all_parts([]) == metric_columns.all_parts(["train/loss", "train/acc"])
