"""The recipes of docs/architecture.md: each adds an entry from a temporary module and trains a stack with it."""

import csv
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_script, sections_with_code
from sklearn.metrics import cohen_kappa_score

from mlpexp.config import model_config
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.metrics import METRICS
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.report.report_figure import FIGURES

PAGE = Path(__file__).parents[1] / "docs/architecture.md"
REGISTRIES = (ACTIVATIONS, OPTIMIZERS, METRICS, LOSSES, SCHEDULES, FIGURES, DATA_SETS)
SMALL = ["trainer.max_epochs=2", "tracking.figures=false"]


def recipes() -> dict[str, tuple[str, list[str]]]:
    """Title -> code, commands."""
    return sections_with_code(PAGE, "###")


@pytest.fixture
def follow(here, tmp_path, monkeypatch):
    """Follow a recipe: import its code as a module, run its commands; everything is as before afterwards."""
    before = [dict(registry) for registry in REGISTRIES]

    def call(title: str):
        code, commands = recipes()[title]
        path = tmp_path / "recipe.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location("recipe", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if title == "Add a layer":
            monkeypatch.setattr(model_config, "multilayer_perceptron", module.multilayer_perceptron)
        for command in commands:
            python, script, *words = shlex.split(command)
            assert (python, Path(script).parent.name) == ("python", "scripts")
            ended = run_script(Path(script).name, [*words, *SMALL] if script.endswith("train.py") else words)
            assert ended.code == 0, ended.err
            if "-m" in words:
                assert re.search(r", in [12] stacks?( \([^)]*\))?\n", ended.out), ended.out
                assert "alone" not in ended.out
        return module

    yield call
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)
    sys.modules.pop("recipe", None)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def assert_close(rows: list[dict[str, str]], others: list[dict[str, str]]) -> None:
    for row, other in zip(rows, others, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-4)


def run_of(sweep: str, *parts: str) -> Path:
    """The directory of the run of a sweep whose name has all these parts."""
    (run,) = [path for path in Path("multirun", sweep).iterdir() if {*parts} <= {*path.name.split(",")}]
    return run


def alone(words: str, directory: str = "alone") -> list[dict[str, str]]:
    ended = run_script("train.py", [*words.split(), *SMALL, f"hydra.run.dir={directory}"])
    assert ended.code == 0, ended.err
    return table(Path(directory) / "metrics.csv")


def test_there_is_a_recipe_for_each_kind():
    kinds = {title.rpartition(" ")[2] for title in recipes()}
    assert kinds == {"activation", "optimizer", "metric", "loss", "schedule", "figure", "set", "layer"}


def test_an_activation(follow, here):
    recipe = follow("Add an activation")
    x = torch.linspace(-8, 8, 101, dtype=torch.float64, requires_grad=True)
    h = torch.nn.functional.tanhshrink(x)
    expected = torch.autograd.grad(h.sum(), x)[0]
    torch.testing.assert_close(recipe.tanhshrink_derivative(x.detach(), h.detach()), expected)
    assert expected.max() < ACTIVATIONS["tanhshrink"].steepest < 1.02 * expected.max()
    assert len(table(here / "multirun/tanhshrink/results.csv")) == 4
    stacked = table(run_of("tanhshrink", "activation=tanhshrink", "seed=1") / "metrics.csv")
    assert alone("model.activation=tanhshrink seed=1") == stacked
    ended = run_script("train.py", ["model.activation=tanhshrnik"])
    assert (ended.code, "tanhshrink" in ended.err) == (2, True)


def test_an_optimizer(follow, here):
    follow("Add an optimizer")
    assert len(table(here / "multirun/adadelta/results.csv")) == 4
    stacked = table(run_of("adadelta", "lr=0.1", "seed=1") / "metrics.csv")
    assert alone("optimizer.name=adadelta optimizer.lr=0.1 seed=1") == stacked
    checkpoint = torch.load(run_of("adadelta", "lr=0.1", "seed=1") / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["state"][0].keys() == {"step", "square_avg", "acc_delta"}


def test_a_metric(follow, here):
    recipe = follow("Add a metric")
    generator = torch.Generator().manual_seed(0)
    true, predicted = torch.randint(0, 4, (2, 50), generator=generator)
    counts = torch.zeros(4, 4, dtype=torch.float64).index_put_(
        (true, predicted), torch.ones(50, dtype=torch.float64), accumulate=True
    )
    expected = cohen_kappa_score(true, predicted)
    assert float(recipe.cohens_kappa(counts.flatten())) == pytest.approx(expected)
    rows = table(here / "multirun/kappa/results.csv")
    assert all(0 < float(row["test/kappa"]) <= 1 for row in rows)
    for row in table(run_of("kappa", "width=8", "seed=1") / "metrics.csv"):
        assert 0 < float(row["val/kappa"]) <= 1
    assert [row["val/kappa"] for row in alone("model.width=8 seed=1")] == [
        row["val/kappa"] for row in table(run_of("kappa", "width=8", "seed=1") / "metrics.csv")
    ]
    ended = run_script("report.py", ["multirun/kappa"])
    assert ended.code == 0, ended.err


def test_a_loss(follow, here):
    recipe = follow("Add a loss")
    outputs = torch.linspace(-30, 30, 24, dtype=torch.float64).view(8, 3).requires_grad_()
    targets = torch.zeros(8, 3, dtype=torch.float64)
    losses = recipe.log_cosh(outputs, targets, None)
    torch.testing.assert_close(losses, outputs.cosh().log().mean(-1))
    expected = torch.autograd.grad(losses.sum(), outputs)[0]
    torch.testing.assert_close(LOSSES["log_cosh"].gradient(outputs.detach(), targets, None), expected)
    stacked = table(run_of("log_cosh", "lr=0.01", "seed=1") / "metrics.csv")
    assert_close(alone("data=diabetes loss.name=log_cosh optimizer.lr=0.01 seed=1"), stacked)
    assert float(stacked[1]["train/loss"]) < float(stacked[0]["train/loss"])


def test_a_schedule(follow, here):
    recipe = follow("Add a schedule")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    expected = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=5, power=2)
    for epoch in range(5):
        assert recipe.polynomial(epoch, 5, None) == pytest.approx(expected.get_last_lr()[0])
        optimizer.step()
        expected.step()
    assert len(table(here / "multirun/polynomial/results.csv")) == 4
    stacked = table(run_of("polynomial", "schedule=polynomial", "seed=1") / "metrics.csv")
    assert_close(alone("optimizer.schedule=polynomial seed=1"), stacked)


def test_a_figure(follow, here):
    follow("Add a figure")
    page = (here / "multirun/figure/report/index.html").read_text(encoding="utf-8")
    assert "Distribution over runs" in page
    assert list((here / "multirun/figure/report/figures").glob("*distribution*.png"))


def test_a_data_set(follow, here):
    follow("Add a data set")
    rows = table(here / "multirun/xor/results.csv")
    assert len(rows) == 4
    stacked = table(run_of("xor", "width=8", "seed=1") / "metrics.csv")
    assert_close(alone("data=xor data.samples=200 model.width=8 seed=1"), stacked)
    assert len(alone("data=xor data.samples=300 model.width=8 seed=1", "other")) == 2


def test_a_layer(follow, here):
    follow("Add a layer")
    checkpoint = torch.load(run_of("scale", "seed=1") / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["scales.0.weight"].shape == (8,)
    stacked = table(run_of("scale", "seed=1") / "metrics.csv")
    assert_close(alone("model.width=8 seed=1"), stacked)
