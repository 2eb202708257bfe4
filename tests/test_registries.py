"""Entries of the registries: each is right, and a new one needs no other change."""

import csv
import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp import load_results
from mlpexp.config import checks, memory_checks
from mlpexp.config.schema import Config, ModelConfig, OptimizerConfig
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.models import gradcheck
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.activations import ACTIVATIONS, Activation
from mlpexp.nn.initialisation import INITIALISERS, Initialiser
from mlpexp.nn.layers import Activate, LayerSpec, Linear
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.metric_columns import columns, measure
from mlpexp.nn.metrics import METRICS, Metric
from mlpexp.nn.network import NetworkSpec, backward, forward, multilayer_perceptron
from mlpexp.nn.optimizers import OPTIMIZERS, PerRun, StackOptimizer, UpdateSettings
from mlpexp.nn.outcomes import Outcomes, confusion
from mlpexp.nn.schedules import SCHEDULES, Schedule, rate_factor
from mlpexp.runtime.errors import ConfigError, UserError

torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer


@pytest.fixture
def register():
    """Add an entry to a registry for one test."""
    added = []

    def add(registry, name, entry):
        added.append((registry, name))
        return registry.register(name, entry)

    yield add
    for registry, name in added:
        del registry._entries[name]


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_gain_is_torchs_or_keeps_the_second_moment_of_a_standard_normal_signal(name):
    try:
        wanted = nn.init.calculate_gain(name, 0.01)
    except ValueError:
        wanted = 1.0 if name == "identity" else None
    if wanted is None:
        z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
        density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        wanted = torch.trapezoid(density * ACTIVATIONS[name].function(z) ** 2, z).item() ** -0.5
    assert ACTIVATIONS[name].gain == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_slope_or_curvature_jumps_at_the_kinks_and_nowhere_else(name):
    step = 1e-12
    points = torch.arange(-30, 30.25, 0.25, dtype=torch.float64)

    def derivatives(x):
        x = x.clone().requires_grad_()
        value = ACTIVATIONS[name].function(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(x)
        return torch.stack([value.detach(), slope.detach(), bend])

    jumps = (derivatives(points + step) - derivatives(points - step)).abs().amax(0)
    assert points[jumps > 1e-10].tolist() == list(ACTIVATIONS[name].kinks)


def test_a_new_activation_trains_alone_and_in_a_stack_to_the_bit_and_passes_the_gradient_check(register, train, here):
    relu9 = Activation(
        function=lambda x: x.clamp(0, 9),
        derivative=lambda x, h: ((x > 0) & (x < 9)).to(x.dtype),
        gain=1.0,
        kinks=(0.0, 9.0),
    )
    register(ACTIVATIONS, "relu9", relu9)
    settings = "model.activation=relu9 trainer.max_epochs=2 model.width=9 tracking.figures=false"
    alone = train(f"{settings} seed=1 hydra.run.dir=alone")
    sweep = train(f"-m {settings} seed=0,1 model.activation=tanh,relu9 name=s")
    assert (alone.code, sweep.code) == (0, 0), alone.err + sweep.err
    [row] = [r for r in load_results(here / "multirun/s") if (r["seed"], r["model.activation"]) == (1, "relu9")]
    assert row["train/loss"] == json.loads((here / "alone/result.json").read_text())["metrics"]["train/loss"]
    rows = gradcheck.check(
        checks.parse({"model": {"activation": "relu9", "width": 12, "depth": 2, "init": "notebook"}})
    )
    assert all(r.passed for r in rows)


def test_an_unknown_name_is_refused_with_the_choices_of_the_registry(register):
    register(ACTIVATIONS, "bent", Activation(function=F.mish, derivative=lambda x, h: x, gain=1.0))
    for key, value in {"model": {"activation": "betn"}, "optimizer": {"name": "adma"}}.items():
        with pytest.raises(ConfigError) as caught:
            checks.parse({key: value})
        assert ("bent" in caught.value.problems[0]) == (key == "model")
    assert checks.parse({"model": {"activation": "bent"}}).model.activation == "bent"
    for registry in (ACTIVATIONS, OPTIMIZERS, INITIALISERS, SCHEDULES, METRICS, LOSSES):
        with pytest.raises(UserError, match=r"unknown .* 'nothing'; .*choose one of"):
            registry["nothing"]


# ---------------------------------------------------------------- optimizers, schedules, initialisers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_keys_and_state_of_an_optimizer_are_those_of_torchs_class(name):
    rule, parameter = OPTIMIZERS[name], nn.Parameter(torch.ones(3))
    settings = OptimizerConfig(name=name, momentum=0.9 if "momentum" in rule.keys else 0.0)
    optimizer = rule.torch_class()([parameter], lr=0.1, **rule.arguments(settings))
    assert ("weight_decay" in optimizer.defaults) == rule.has_decay
    if rule.trains_alone:
        return
    for group in optimizer.param_groups:
        group["is_matrix"] = False
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state[parameter]) == set(rule.state_of_parameter(settings, is_matrix=False))
    shrunk = nn.Parameter(torch.ones(3))
    optimizer = rule.torch_class()([shrunk], lr=0.1, weight_decay=0.5, **rule.arguments(settings))
    for group in optimizer.param_groups:
        group["is_matrix"] = False
    shrunk.grad = torch.zeros(3)
    optimizer.step()
    only_shrunk = torch.allclose(shrunk.detach(), torch.full((3,), 1 - 0.1 * 0.5)) and name != "sgd"
    assert only_shrunk == rule.decoupled_decay


class RmsProp(StackOptimizer):
    """`torch.optim.RMSprop` in a stack, as a person would add it, with a step of its own."""

    state_names = ("square_avg",)
    counts_steps = True
    is_adaptive = True

    def __init__(self, settings, parameters, gradients):
        super().__init__(settings, parameters, gradients)
        self.state = {"square_avg": [torch.zeros_like(p) for p in parameters]}
        self._rates = PerRun(parameters[0].new_zeros(len(parameters[0])))

    @staticmethod
    def torch_class():
        return torch.optim.RMSprop

    def schedule(self, lr):
        self._rates.plan(-lr)

    def step(self):
        self.num_steps += 1
        for i, (parameter, gradient) in enumerate(zip(self._parameters, self._gradients, strict=True)):
            self._decay.add_to(i, gradient)
            square = self.state["square_avg"][i]
            square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
            parameter.addcdiv_(gradient * self._rates.of[parameter.ndim], square.sqrt().add_(1e-8))


def test_a_new_optimizer_trains_alone_and_in_a_stack_and_its_state_is_in_the_checkpoints(register, train, here):
    register(OPTIMIZERS, "my_rmsprop", RmsProp)
    settings = "optimizer.name=my_rmsprop optimizer.lr=0.003 trainer.max_epochs=2 model.width=9 tracking.figures=false"
    alone = train(f"{settings} seed=1 hydra.run.dir=alone")
    sweep = train(f"-m {settings} seed=1,2 hydra.sweep.dir=s hydra.sweep.subdir='${{hydra.job.num}}'")
    assert (alone.code, sweep.code) == (0, 0), alone.err + sweep.err
    ours, theirs = (torch.load(here / place / "checkpoints/last.ckpt", weights_only=True) for place in ("s/0", "alone"))
    for name, tensor in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], tensor, rtol=1e-4, atol=1e-5)
    states = [content["optimizer_states"][0]["state"] for content in (ours, theirs)]
    assert states[0].keys() == states[1].keys() == {0, 1, 2, 3}
    assert states[0][0].keys() == states[1][0].keys() == {"step", "square_avg"}
    loaded = TorchMLP.load_from_checkpoint(here / "s/0/checkpoints/last.ckpt")  # written for a run of a stack
    assert torch.equal(loaded.parameter_values()["layers.0.weight"], ours["state_dict"]["layers.0.weight"])
    assert train(f"{settings} optimizer.momentum=0.9").line.endswith(
        "optimizer.momentum needs optimizer.name=sgd or optimizer.name=rmsprop or optimizer.name=signsgd or "
        "optimizer.name=muon; leave it at 0.0 with optimizer.name=my_rmsprop"
    )


def test_a_new_schedule_and_a_new_initialiser_are_chosen_by_name(register):
    register(SCHEDULES, "halving", Schedule(factor=lambda elapsed, epochs, settings: 0.5**elapsed))
    ones = Initialiser(weight=lambda weight, generator, sigma: weight.fill_(1), scales_with_fan_in=False)
    register(INITIALISERS, "ones", ones)
    cfg = checks.parse({"optimizer": {"schedule": "halving", "lr": 1.0}, "model": {"init": "ones"}})
    assert [cfg.optimizer.lr * rate_factor(cfg.optimizer, epoch, 3) for epoch in range(3)] == [1.0, 0.5, 0.25]
    module = TorchMLP(cfg, 4, 2)
    assert module.parameter_values()["layers.1.weight"].eq(1).all()
    assert isinstance(module.configure_optimizers(), tuple)  # with its schedule
    with pytest.raises(ConfigError, match="mup needs an initialisation"):
        checks.parse({"model": {"init": "ones", "parametrization": "mup"}})


# ---------------------------------------------------------------- metrics


@pytest.fixture
def outcomes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 200, 5, generator=generator)
    labels = torch.randint(5, (3, 200), generator=generator)
    losses = torch.stack([F.cross_entropy(*pair, reduction="none") for pair in zip(logits, labels, strict=True)])
    return Outcomes(losses, logits.argmax(-1), labels, 5)


def kappa(sums: Tensor) -> Tensor:
    counts = sums.unflatten(-1, (math.isqrt(sums.shape[-1]), -1))
    shares = counts / counts.sum((-2, -1), keepdim=True)
    by_luck = (shares.sum(-1) * shares.sum(-2)).sum(-1)
    return (shares.diagonal(dim1=-2, dim2=-1).sum(-1) - by_luck) / (1 - by_luck)


KAPPA = Metric(
    label="Cohen's kappa",
    unit="",
    higher_is_better=True,
    sums=lambda outcomes: confusion(outcomes).flatten(-2).double(),
    value=kappa,
)


def test_a_new_metric_is_a_column_of_every_file_of_runs_alone_and_in_a_stack(register, train, here, outcomes):
    register(METRICS, "kappa", KAPPA)
    wanted = torchmetrics.classification.MulticlassCohenKappa(5)
    assert measure("val", outcomes)["val/kappa"][1].item() == pytest.approx(
        wanted(outcomes.predictions[1], outcomes.labels[1]).item(), rel=1e-6
    )
    settings = "trainer.max_epochs=2 model.width=9 tracking.figures=false monitor=val/kappa"
    alone = train(f"{settings} seed=1 hydra.run.dir=alone")
    for engine in ("torch", "compiled"):
        sweep = train(
            f"-m {settings} seed=0,1 stack.engine={engine} hydra.sweep.dir={engine} "
            "hydra.sweep.subdir='${hydra.job.num}'"
        )
        assert (alone.code, sweep.code) == (0, 0), alone.err + sweep.err
    columns = ["train/loss", "train/acc", "train/kappa", "val/loss", "val/acc", "val/kappa"]
    for place in ("alone", "torch/1", "compiled/1"):
        with (here / place / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["epoch", *columns]
        metrics = json.loads((here / place / "result.json").read_text())["metrics"]
        assert {"test/kappa", "val/kappa"} <= metrics.keys()
    assert (here / "alone/metrics.csv").read_bytes() == (here / "torch/1/metrics.csv").read_bytes()
    record = load_results(here / "compiled")[1]
    assert 0.1 < record["test/kappa"] < 1
    assert record["val/kappa"] == metrics["val/kappa"]


def test_the_metrics_files_have_the_columns_they_always_had():
    assert columns("train", "val") == ("train/loss", "train/acc", "val/loss", "val/acc")


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Scale(LayerSpec):
    """A factor for each unit: the kind of layer that a person would add."""

    units: int
    group: ClassVar[str] = "scales"

    @property
    def shapes(self):
        return {"weight": (self.units,)}

    def module(self):
        raise NotImplementedError

    def forward(self, parameters, x):
        return x * parameters["weight"].unsqueeze(-2)

    def input_gradient(self, parameters, x, h, gradient):
        return gradient * parameters["weight"].unsqueeze(-2)

    def parameter_gradients(self, parameters, x, h, gradient):
        return {"weight": (gradient * x).sum(-2)}


def test_a_new_kind_of_layer_trains_in_a_stack_by_its_own_methods():
    networks = [
        NetworkSpec((Linear(7, 5), Scale(5), Activate(name), Scale(5), Linear(5, 3)))
        for name in ("tanh", "relu", "gelu")
    ]
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(3, *shape, generator=generator) for name, shape in networks[0].shapes.items()}
    assert list(start) == ["layers.0.weight", "layers.0.bias", "scales.0.weight", "scales.1.weight",
                           "layers.1.weight", "layers.1.bias"]  # fmt: skip
    inputs, labels = torch.randn(40, 7, generator=generator), torch.randint(3, (40,), generator=generator)
    engine = Engine(networks=networks, parameters=start, update=UpdateSettings())
    for _ in range(3):
        engine.train_epoch(Epoch(inputs, labels, torch.arange(40), 16, torch.full((3,), 0.05, dtype=torch.float64)))
    for run, network in enumerate(networks):
        leaves = {name: values[run].clone().requires_grad_() for name, values in start.items()}
        optimizer = torch.optim.SGD(list(leaves.values()), lr=0.05)
        for _ in range(3):
            for batch, targets in zip(inputs.split(16), labels.split(16), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(forward(network, leaves, batch).logits, targets).backward()
                optimizer.step()
        for name, leaf in leaves.items():
            torch.testing.assert_close(engine.parameters[name][run], leaf.detach(), rtol=1e-4, atol=1e-6)


def test_the_stacks_kernels_compute_what_the_readable_code_computes():
    network = multilayer_perceptron(9, [8, 6], 4, "silu")
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(2, *shape, generator=generator) for name, shape in network.shapes.items()}
    inputs, labels = torch.randn(16, 9, generator=generator), torch.randint(4, (16,), generator=generator)
    engine = Engine(networks=[network] * 2, parameters=start, update=UpdateSettings())
    engine.train_epoch(Epoch(inputs, labels, torch.arange(16), 16, torch.full((2,), 0.5, dtype=torch.float64)))
    trace = forward(network, start, inputs.expand(2, -1, -1))
    probabilities = trace.logits.softmax(-1)
    upstream = (probabilities - F.one_hot(labels, 4)) / 16
    for name, gradient in backward(network, start, trace, upstream).parameters.items():
        torch.testing.assert_close(start[name] - engine.parameters[name], 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_networks_that_cannot_share_a_stack_are_refused():
    one, other = multilayer_perceptron(3, [4], 2, "tanh"), multilayer_perceptron(3, [5], 2, "tanh")
    start = {name: torch.zeros(2, *shape) for name, shape in one.shapes.items()}
    with pytest.raises(ValueError, match="layers of the same kinds and sizes"):
        Engine(networks=[one, other], parameters=start, update=UpdateSettings())
    with pytest.raises(ValueError, match="layers of the same kinds"):
        Engine(networks=[one, NetworkSpec(one.layers[:1])], parameters=start, update=UpdateSettings())


def test_the_number_of_parameters_follows_from_the_network_for_any_depth():
    for depth in (0, 1, 2, 3, 4, 9):
        model = ModelConfig(depth=depth, width=11)
        assert memory_checks.num_parameters(model, 64, 10) == sum(
            p.numel() for p in TorchMLP(Config(model=model), 64, 10).parameters()
        )
    assert (
        np.log10(memory_checks.num_parameters(ModelConfig(depth=10**9, width=11), 64, 10)) > 11
    )  # without building it
