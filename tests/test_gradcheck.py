"""The gradient check finds wrong gradients, is not fooled by kinks, and leaves nothing behind."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import run_script
from torch.nn import functional as F

from mlpexp.config.schema import Config, ModelConfig
from mlpexp.models import gradcheck
from mlpexp.nn.activations import ACTIVATIONS, Activation
from mlpexp.nn.network import multilayer_perceptron

torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer


def check(**model):
    return gradcheck.check(Config(model=ModelConfig(width=8) if not model else ModelConfig(**model)))


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_depth_passes_on_real_digits(name, depth):
    rows = check(activation=name, depth=depth, width=8)
    assert [row.name for row in rows] == [f"layers.{i}.{kind}" for i in range(depth + 1) for kind in ("weight", "bias")]
    assert all(row.passed for row in rows)
    assert all(row.tried > 0 and row.largest > 0 for row in rows)
    assert gradcheck.verdict(rows)[0].startswith("gradients agree")


@pytest.mark.parametrize("name", ["tanh", "relu", "softplus"])
def test_a_derivative_that_is_wrong_by_a_millionth_is_found(name, monkeypatch):
    right = ACTIVATIONS[name]
    wrong = replace(right, derivative=lambda x, h: right.derivative(x, h) * (1 + 1e-6))
    monkeypatch.setitem(ACTIVATIONS._entries, name, wrong)
    rows = check(activation=name, depth=2, width=8)
    # the last layer's gradient does not pass through an activation
    assert [row.passed for row in rows] == [False] * 4 + [True] * 2
    assert all(row.autograd_differences <= gradcheck.DIFFERENCES_TOLERANCE for row in rows)  # those two agree
    assert "DISAGREE in layers.0.weight, layers.0.bias, layers.1.weight, layers.1.bias" in gradcheck.verdict(rows)[0]


def test_finite_differences_find_what_autograd_gets_wrong_too(monkeypatch):
    """A function whose derivatives, both of them, belong to another function."""

    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.tanh(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * torch.cos(x)

    lie = replace(ACTIVATIONS["tanh"], function=Lying.apply, derivative=lambda x, h: torch.cos(x))
    monkeypatch.setitem(ACTIVATIONS._entries, "tanh", lie)
    rows = check(depth=1, width=8)
    assert [row.passed for row in rows] == [False, False, True, True]
    assert all(row.autograd <= gradcheck.AUTOGRAD_TOLERANCE for row in rows)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_do_not_pass(value):
    parameters = {
        "layers.0.weight": torch.full((2, 3), value, dtype=torch.float64),
        "layers.0.bias": torch.zeros(2, dtype=torch.float64),
    }
    inputs, targets = torch.ones(4, 3, dtype=torch.float64), F.one_hot(torch.zeros(4, dtype=torch.int64), 2).double()
    rows = gradcheck.compare(gradcheck.Problem(multilayer_perceptron(3, [], 2, "tanh"), parameters, inputs, targets))
    assert not any(row.passed for row in rows)


def test_an_entry_whose_unit_sits_on_its_kink_is_skipped_and_said():
    # the first unit's pre-activation is 0 for every sample: no step to either side stays on one side
    weight = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    parameters = {
        "layers.0.weight": weight,
        "layers.0.bias": torch.zeros(2, dtype=torch.float64),
        "layers.1.weight": torch.tensor([[1.0, 0.5], [-1.0, 0.3]], dtype=torch.float64),
        "layers.1.bias": torch.zeros(2, dtype=torch.float64),
    }
    inputs = torch.tensor([[1.0, 0.5], [0.2, 0.7]], dtype=torch.float64)
    targets = F.one_hot(torch.tensor([0, 1]), 2).double()
    rows = gradcheck.compare(gradcheck.Problem(multilayer_perceptron(2, [2], 2, "relu"), parameters, inputs, targets))
    assert [row.skipped for row in rows] == [2, 1, 0, 0]
    assert [row.tried for row in rows] == [2, 1, 4, 2]
    assert all(row.passed for row in rows)
    assert any(line.startswith("3 of 12 entries have no finite difference") for line in gradcheck.verdict(rows))
    smooth = gradcheck.compare(gradcheck.Problem(multilayer_perceptron(2, [2], 2, "tanh"), parameters, inputs, targets))
    assert [row.skipped for row in smooth] == [0, 0, 0, 0]


HARD_TANH = Activation(
    function=F.hardtanh, derivative=lambda x, h: ((x > -1) & (x < 1)).to(x.dtype), gain=5 / 3, kinks=(-1.0, 1.0)
)


@pytest.mark.parametrize("kinks", [(-1.0, 1.0), ()], ids=["listed", "not listed"])
@pytest.mark.parametrize("seed", range(5))
def test_a_right_derivative_with_kinks_agrees_whether_they_are_listed_or_not(kinks, seed, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS._entries, "hardtanh", replace(HARD_TANH, kinks=kinks))
    cfg = Config(seed=seed, model=ModelConfig(activation="hardtanh", depth=2, width=40, init="notebook"))
    rows = gradcheck.check(cfg)
    assert all(row.passed for row in rows), gradcheck.verdict(rows)
    assert sum(row.tried for row in rows) > 10


def test_a_wrong_derivative_is_found_though_its_kinks_are_not_listed(monkeypatch):
    wrong = replace(HARD_TANH, derivative=lambda x, h: (x < 1).to(x.dtype), kinks=())
    monkeypatch.setitem(ACTIVATIONS._entries, "hardtanh", wrong)
    rows = check(activation="hardtanh", depth=1, width=40, init="notebook")
    assert [row.passed for row in rows] == [False, False, True, True]


def test_the_network_is_left_as_it_was():
    network = multilayer_perceptron(2, [3], 2, "relu")
    parameters = {name: torch.randn(shape, dtype=torch.float64) for name, shape in network.shapes.items()}
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    targets = F.one_hot(torch.tensor([0, 1]), 2).double()
    gradcheck.compare(gradcheck.Problem(network, parameters, torch.ones(2, 2, dtype=torch.float64), targets))
    assert all(torch.equal(before[name], tensor) for name, tensor in parameters.items())


def test_the_script_shows_every_tensor_and_leaves_nothing_behind(here):
    outcome = run_script("gradcheck.py", ["model.depth=2", "model.width=8", "model.activation=gelu"])
    assert outcome.code == 0
    for i in range(3):
        assert f"layers.{i}.weight" in outcome.out
        assert f"layers.{i}.bias" in outcome.out
    assert "gradients agree" in outcome.out
    assert list(here.iterdir()) == []


def test_the_script_ends_with_1_where_gradients_disagree(here, monkeypatch):
    wrong = replace(ACTIVATIONS["tanh"], derivative=lambda x, h: h)
    monkeypatch.setitem(ACTIVATIONS._entries, "tanh", wrong)
    outcome = run_script("gradcheck.py", ["model.width=8"])
    assert outcome.code == 1
    assert "DISAGREE" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["model.activation=tahn"], "unknown activation 'tahn'"),
        (["-m", "seed=1,2"], "one network at a time"),
        (["data.val_fraction=0.001"], "cannot be"),
    ],
)
def test_the_script_refuses_in_one_line(here, arguments, wanted):
    outcome = run_script("gradcheck.py", arguments)
    assert outcome.code == 2
    assert wanted in outcome.line
    assert list(here.iterdir()) == []
