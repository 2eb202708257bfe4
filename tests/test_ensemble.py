"""Ensembles of runs: their scores against scikit-learn and torchmetrics, who is chosen, and who may not be together."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script, tree
from sklearn import metrics as reference
from sklearn.datasets import load_diabetes, load_digits, load_iris
from torchmetrics.functional.classification import multiclass_calibration_error

import mlpexp
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.evaluation import ensemble, ensemble_scores, greedy_selection
from mlpexp.evaluation.ensemble_members import Choice
from mlpexp.store import file_names

DIGITS = "model.width=6 model.depth=1,2 model.variant=torch_nn,backprop seed=0,1 optimizer.lr=0.2 trainer.max_epochs=2"
VALUES = "data=diabetes model.width=5,6 seed=0,1 optimizer.lr=0.02 trainer.max_epochs=2"
QUIET = "tracking.tensorboard=false tracking.figures=false"


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits`, eight runs of all kinds, `values`, four of a regression, `splits`, three of several; not to change."""
    place = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, words in (
            ("digits", DIGITS),
            ("values", VALUES),
            ("splits", "model.width=3 data.seed=0,1,2 trainer.max_epochs=1"),
        ):
            ended = run_script("train.py", ["-m", f"hydra.sweep.dir={name}", *words.split(), *QUIET.split()])
            assert ended.code == 0, ended.err
    return place


@pytest.fixture
def own(sweeps: Path, here: Path) -> Path:
    """A copy of the sweeps as the working directory."""
    shutil.copytree(sweeps, here, dirs_exist_ok=True)
    return here


def evaluate(*arguments: object) -> Outcome:
    return run_script("evaluate.py", [*map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def probabilities(run: Path) -> np.ndarray:
    """Of the run's test samples, by a formula of our own."""
    w = torch.load(run / file_names.BEST, weights_only=True)["state_dict"]
    h = mlpexp.load_run(run).data.part("test")[0]
    depth = len(w) // 2
    for layer in range(depth):
        h = h @ w[f"layers.{layer}.weight"].T + w[f"layers.{layer}.bias"]
        h = torch.tanh(h) if layer < depth - 1 else h
    found: np.ndarray = h.double().softmax(-1).numpy()
    return found


def test_scores_are_those_of_other_libraries(own):
    outcome = evaluate("digits", "--ensemble", 3)
    assert outcome.code == 0, outcome.err
    written = own / "digits/evaluation-ensemble-3"
    table = rows(written / "members.csv")
    labels = mlpexp.load_run(own / "digits" / table[1]["network"]).data.part("test")[1].numpy()
    each = np.stack([probabilities(own / "digits" / row["network"]) for row in table[1:]])
    for row, found in zip(table, [each.mean(0), *each], strict=True):
        hot = np.eye(10)[labels]
        assert float(row["acc"]) == pytest.approx(reference.accuracy_score(labels, found.argmax(-1)))
        assert float(row["nll"]) == pytest.approx(reference.log_loss(labels, found, labels=range(10)), rel=1e-5)
        assert float(row["brier"]) == pytest.approx(((found - hot) ** 2).sum(-1).mean(), rel=1e-5)
        ece = multiclass_calibration_error(torch.from_numpy(found), torch.from_numpy(labels), 10, n_bins=15)
        assert float(row["ece"]) == pytest.approx(ece.item(), abs=1e-5)
        assert float(row["nll_low"]) < float(row["nll"]) < float(row["nll_high"])
    content = json.loads((written / "metrics.json").read_text())
    assert content["scores"]["ensemble"]["acc"]["value"] == content["metrics"]["acc"] == float(table[0]["acc"])
    assert [member["name"] for member in content["ensemble"]["members"]] == [row["network"] for row in table[1:]]
    assert "test part, 270 samples; ensemble of the 3 networks with the best val/loss" in outcome.out


def test_a_regression_has_the_mean_of_values_in_target_units(own):
    assert evaluate("values", "--ensemble", "all").code == 0
    table = rows(own / "values/evaluation-ensemble-all/members.csv")
    results = mlpexp.load_sweep(own / "values")
    data = results[0].data
    inputs = data.table.inputs[data.split.test]
    true = data.table.labels[data.split.test][:, 0]
    predicted = results.predict(inputs).mean(0)
    assert float(table[0]["rmse"]) == pytest.approx(reference.root_mean_squared_error(true, predicted))
    assert float(table[0]["mae"]) == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert float(table[0]["r2"]) == pytest.approx(reference.r2_score(true, predicted))
    assert results.ensemble("all").predict(load_diabetes().data[:4]) == pytest.approx(
        results.predict(load_diabetes().data[:4]).mean(0)
    )


def test_members_are_the_best_by_validation_whatever_the_test_says(own):
    study = analyse(own / "digits").study
    expected = [study.names[run] for run in np.argsort(study.values["val/loss"])]
    found = ensemble.load(own / "digits", Choice(count=5))
    assert [member.name for member in found.members] == expected[:5]
    where = ensemble.load(own / "digits", Choice(count=2, where=("model.depth=2", "seed=0,1")))
    assert [member.name for member in where.members] == [name for name in expected if "depth=2" in name][:2]
    of_seeds = ensemble.load(own / "digits", Choice(count=None, by="seeds"))
    best = study.configuration[analyse(own / "digits").ranking.order[0] == study.configuration]
    assert len(of_seeds.members) == len(best) == 2
    assert len({member.name.split("seed=")[0] for member in of_seeds.members}) == 1


def test_greedy_selection_picks_what_lowers_the_loss_of_all_picks_most():
    rng = np.random.default_rng(1)
    outputs = rng.uniform(0.05, 1, (6, 40))
    chosen = greedy_selection.select(outputs, greedy_selection.log_loss, 12)
    # by exhaustion, pick by pick, from the definition
    picks: list[int] = []
    path = []
    for _ in range(12):
        options = [-np.log(np.mean(outputs[[*picks, new]], 0)).mean() for new in range(6)]
        picks.append(int(np.argmin(options)))
        path.append(min(options))
    assert chosen == picks[: int(np.argmin(path)) + 1]
    assert chosen[0] == int(np.argmin(-np.log(outputs).mean(-1)))
    assert len(chosen) > 1


def test_equal_networks_and_further_picks_of_the_same_one_do_not_enlarge_a_greedy_ensemble():
    rng = np.random.default_rng(0)
    best = rng.uniform(0.5, 1, 97)
    outputs = np.stack([best, best * (1 - 1e-16), 0.5 * best, best])
    assert greedy_selection.select(outputs, greedy_selection.log_loss, 40) == [0]
    true = rng.normal(size=97)
    values = np.stack([true + 0.1, true + 0.1, true + 3.3])
    assert greedy_selection.select(values, greedy_selection.squared_error(true), 40) == [0]


def test_greedy_selection_prefers_two_networks_that_complement_each_other():
    good, left, right = np.full(40, 0.5), np.r_[np.full(20, 0.9), np.full(20, 0.2)], np.r_[[0.2] * 20, [0.9] * 20]
    chosen = greedy_selection.select(np.stack([good, left, right]), greedy_selection.log_loss, 10)
    assert {1, 2} <= set(chosen)
    values = greedy_selection.select(
        np.array([[1.0, 3.0], [3.0, 1.0]]), greedy_selection.squared_error(np.full(2, 2.0)), 3
    )
    assert values == [0, 1]


def test_a_greedy_ensemble_is_at_least_as_good_on_the_validation_part_as_its_first_pick(own):
    for name, metric in (("digits", "nll"), ("values", "rmse")):
        found = mlpexp.load_sweep(own / name).ensemble(10, by="greedy")
        everyone, first, *_ = found.scores("val")
        assert everyone[metric] <= first[metric]
        assert 1 <= sum(member["picks"] for member in found.members) <= 10
    assert evaluate("digits", "--ensemble", 10, "--ensemble-by", "greedy").code == 0


def test_the_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = {"acc": 0, "nll": 0, "ece": 0}
    population = rng.dirichlet([1.0] * 3, 100_000)
    # calibrated by construction; temperature makes it overconfident, so that the true ECE is far from 0
    labels = (population.cumsum(1) < rng.random((100_000, 1))).sum(1)
    sharp = population**2 / (population**2).sum(1, keepdims=True)
    truth = {k: s.values[0] for k, s in ensemble_scores.class_scores(sharp[None], labels, resamples=1).items()}
    for _ in range(60):
        rows = rng.choice(100_000, 400)
        scores = ensemble_scores.class_scores(sharp[None, rows], labels[rows], resamples=300)
        for name in hits:
            estimate = scores[name].estimate(0)
            hits[name] += estimate.low <= truth[name] <= estimate.high
    assert all(count >= 50 for count in hits.values()), hits  # 57 expected; 50 or fewer has a probability below 0.001


def test_resampled_scores_are_those_of_the_resampled_samples():
    rng = np.random.default_rng(3)
    found, labels = rng.dirichlet([1.0] * 4, (2, 30)), rng.integers(0, 4, 30)
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), 5)
    scores = ensemble_scores.class_scores(found, labels, resamples=5)
    values, true = rng.normal(size=(2, 30, 2)), rng.normal(size=(30, 2))
    of_values = ensemble_scores.value_scores(values, true, ["a", "b"], resamples=5)
    for k, count in enumerate(counts):
        again = np.repeat(np.arange(30), count)
        expected = ensemble_scores.class_scores(found[:, again], labels[again], resamples=1)
        for name, score in scores.items():
            assert score.resampled[k] == pytest.approx(expected[name].values)
        for t, name in enumerate("ab"):
            assert of_values[f"r2 {name}"].resampled[k, 1] == pytest.approx(
                reference.r2_score(true[again, t], values[1, again, t])
            )


def test_one_onnx_graph_says_what_predict_says(own):
    onnxruntime = pytest.importorskip("onnxruntime")
    raw = load_digits().data.astype(np.float32)[:30]
    np.savetxt("new.csv", raw, delimiter=",")
    words = ["digits", "--ensemble", "4", "--ensemble-by", "greedy"]
    exported = run_script("export.py", [*words, "--format", "onnx"])
    assert exported.code == 0, exported.err
    printed = run_script("predict.py", [*words, "--data", "new.csv"])
    lines = [line.split(",") for line in printed.out.splitlines()[1:]]
    found = mlpexp.load_sweep(own / "digits").ensemble(4, by="greedy").predict_proba(raw)
    session = onnxruntime.InferenceSession(own / "digits/ensemble.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 30):
        (graph,) = session.run(["probabilities"], {"numbers": raw[:count]})
        assert graph == pytest.approx(found[:count], abs=1e-6)
    assert np.array([[float(cell) for cell in line[3:]] for line in lines]) == pytest.approx(found)
    described = session.get_modelmeta().custom_metadata_map
    networks = json.loads(described["ensemble"])["networks"]
    assert sum(network["share"] for network in networks) == pytest.approx(1)
    assert run_script("export.py", [*words, "--format", "onnx"]).code == 2  # it is there already


def test_an_exported_regression_returns_the_mean_in_target_units(own):
    raw = load_diabetes().data[:7]
    assert run_script("export.py", ["values", "--ensemble", "3", "--format", "torch", "--out", "net.pt2"]).code == 0
    _, found = torch.export.load("net.pt2").module()(torch.from_numpy(raw))
    expected = mlpexp.load_sweep(own / "values").ensemble(3).predict(raw)
    assert found[:, 0].numpy() == pytest.approx(expected, rel=1e-5)


OWN_NETWORK = """
from torch import nn
class Own(nn.Module):
    def __init__(self, num_inputs, num_outputs, branches=False):
        super().__init__()
        self.first, self.last, self.branches = nn.Linear(num_inputs, 5), nn.Linear(5, num_outputs), branches
    def forward(self, x):
        h = self.first(x).tanh()
        return self.last(h * 2 if self.branches and h.mean() > -2 else h)
"""


def test_networks_of_ones_own_are_averaged_and_exported_where_torch_can(here):
    (here / "own_networks.py").write_text(OWN_NETWORK)
    words = "data=iris model._target_=own_networks.Own model.branches=false,true seed=0,1 trainer.max_epochs=1"
    assert run_script("train.py", ["-m", "name=s", *words.split(), *QUIET.split()]).code == 0
    results, x = mlpexp.load_sweep(here / "multirun/s"), load_iris().data
    each = results.predict_proba(x)
    assert results.ensemble("all").predict_proba(x) == pytest.approx(each.mean(0))
    export = ["multirun/s", "--ensemble", "all", "--format", "torch", "--out", "net.pt2"]
    refused = run_script("export.py", export)
    assert refused.code == 2
    assert "torch.export cannot follow the network (Could not guard on data-dependent expression" in refused.line
    exported = run_script("export.py", [*export, "--where", "model.branches=false"])
    assert exported.code == 0, exported.err
    straight = [row["model.branches"] is False for row in results.table]
    for count in (1, 5):
        _, found = torch.export.load("net.pt2").module()(torch.from_numpy(x[:count]))
        assert found.numpy() == pytest.approx(each[straight].mean(0)[:count], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("splits --ensemble 2", "differ in data.seed"),
        (
            "splits --ensemble 2 --where data.seed=1",
            "has 1 run with finite numbers with data.seed=1; give --ensemble 1",
        ),
        ("digits --ensemble 9", "has 8 runs with finite numbers; give --ensemble 8 or fewer, or all"),
        ("digits --ensemble 3 --ensemble-by seeds", "2 runs with finite numbers of the best configuration"),
        ("digits --ensemble all --ensemble-by greedy", "needs a number of picks"),
        ("digits --ensemble 0", "'0' is no number of members"),
        ("digits --ensemble 2 --where model.dept=2", "did you mean model.depth?"),
        ("digits --ensemble 2 --where model.depth=3", "no run has model.depth=3; there are 1, 2"),
        ("digits --ensemble 2 --where model.depth", "give KEY=VALUE"),
        ("digits --ensemble 2 --weights last", "--weights last is for single runs"),
        ("digits --ensemble-by greedy", "add --ensemble N"),
        ("digits --ensemble 2 --part val --data x.csv", "leave one of them out"),
        ("nothing --ensemble 2", "nothing does not exist"),
        ("digits/missing --ensemble 2", "does not exist"),
    ],
)
@pytest.mark.thorough(sample=6)
def test_what_cannot_be_is_refused_in_one_line_and_writes_nothing(sweeps, monkeypatch, words, line):
    monkeypatch.chdir(sweeps)
    before = tree(sweeps)
    outcome = evaluate(*words.split())
    assert outcome.code == 2
    assert line in outcome.lines[-1]
    assert tree(sweeps) == before


@pytest.mark.parametrize("halving", ["", " halving.rungs=[1]"])
def test_the_terminal_says_which_runs_cannot_be_members_and_fits_80_columns(here, monkeypatch, halving):
    monkeypatch.setenv("COLUMNS", "80")
    words = f"data=iris model.width=3 model.activation=relu optimizer.lr=1e-9,0.1,1e30 seed=0,1 {QUIET}{halving}"
    assert run_script("train.py", ["-m", "name=s", "trainer.max_epochs=3", *words.split()]).code == 0
    status = {row["name"]: row["status"] for row in rows(here / "multirun/s/results.csv")}
    found = evaluate("multirun/s", "--ensemble", "all")
    expected = {name for name, value in status.items() if value in ("ok", "chance")}
    members = rows(here / "multirun/s/evaluation-ensemble-all/members.csv")[1:]
    assert {row["network"] for row in members} == expected
    counts = Counter(status.values())
    assert set(counts) == {"ok", "chance", "diverged", *(["stopped"] if halving else [])}
    assert f"{6 - len(expected)} of 6 runs cannot be members: " in found.out
    for name, text in (("stopped", "stopped early"), ("diverged", "diverged")):
        assert (f"{counts[name]} {text}" in found.out) == (name in counts)
    assert f"no better than guessing: {counts['chance']} of {len(expected)} members" in found.out
    table = found.out.partition("95 % intervals")[0]
    assert "calibration" in table
    assert all(len(line) <= 80 for line in table.splitlines())


def test_runs_that_have_not_begun_are_counted_among_those_that_cannot_be_members(own):
    names = [row["name"] for row in rows(own / "digits/results.csv")]
    for name in names[:3]:
        shutil.rmtree(own / "digits" / name)
    (own / "digits/results.csv").unlink()
    found = evaluate("digits", "--ensemble", "all")
    assert found.code == 0, found.err
    assert "3 of 8 runs cannot be members: 3 unfinished" in found.out


def test_a_single_run_is_no_sweep(finished):
    assert "is a single run; an ensemble needs a sweep's directory" in evaluate("run", "--ensemble", 2).line


def test_a_network_that_does_not_reach_its_recorded_numbers_is_refused(own, monkeypatch):
    find = ensemble.ensemble_members.find

    def other_numbers(sweep, choice):
        found = find(sweep, choice)
        found.recorded["val/acc"][1] += 0.1
        return found

    monkeypatch.setattr(ensemble.ensemble_members, "find", other_numbers)
    assert "is not the one that was trained" in evaluate("digits", "--ensemble", 2).line
