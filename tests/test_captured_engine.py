"""An epoch captured as a graph gives what the plain engine gives, on the CPU with a stand-in for CUDA's graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_graph import RecordedGraphs
from torch import Tensor

from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch import layer_kernels
from mlpexp.engine.torch.captured_engine import CapturedEngine
from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.losses import LOSSES, LossFunction
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings

R, SIZES, SAMPLES = 6, [7, 9, 5, 3], 22
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(SAMPLES, SIZES[0], generator=GENERATOR)
LABELS = torch.randint(SIZES[-1], (SAMPLES,), generator=GENERATOR)


def made(name: str = "sgd", activations: tuple[str, ...] = ("tanh", "gelu")) -> dict[str, Any]:
    networks = [multilayer_perceptron(SIZES[0], SIZES[1:-1], SIZES[-1], one) for one in sorted(activations * R)][
        :: len(activations)
    ]
    generator = torch.Generator().manual_seed(1)
    parameters = {
        key: torch.empty(len(networks), *shape).uniform_(-0.5, 0.5, generator=generator)
        for key, shape in networks[0].shapes.items()
    }
    momentum = {"momentum": torch.arange(R) % 2 * 0.9, "nesterov": torch.arange(R) % 4 == 3} if name == "sgd" else {}
    update = UpdateSettings(
        name=name, weight_decay=torch.arange(R).double() * 1e-3, per_run=momentum, decoupled=torch.arange(R) % 3 == 1
    )
    return {"networks": networks, "parameters": parameters, "update": update}


def orders(epoch: int, runs: int = R) -> Tensor:
    generator = torch.Generator().manual_seed(epoch)
    return torch.stack([torch.randperm(SAMPLES, generator=generator) for _ in range(runs)])


def rates(epoch: int, runs: int = R) -> Tensor:
    return torch.linspace(0.05, 0.2, runs, dtype=torch.float64) / (1 + epoch)


def assert_equal(captured: Engine, plain: Engine) -> None:
    assert captured.num_steps == plain.num_steps
    assert torch.equal(captured.train_outcomes.losses, plain.train_outcomes.losses)
    assert torch.equal(captured.train_outcomes.predictions, plain.train_outcomes.predictions)
    assert torch.equal(captured.train_outcomes.labels, plain.train_outcomes.labels)
    for name, values in plain.parameters.items():
        assert torch.equal(captured.parameters[name], values), name
    for name, tensors in plain.state.items():
        assert all(torch.equal(a, b) for a, b in zip(captured.state[name], tensors, strict=True))


def test_orders_rates_and_momentum_of_every_epoch_reach_the_graph():
    graphs = RecordedGraphs()
    captured, plain = CapturedEngine(graphs=graphs, **made()), Engine(**made())
    for epoch in range(5):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch)))
        assert_equal(captured, plain)
    assert (graphs.warm_ups, graphs.captures, graphs.replays) == (1, 1, 4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    captured, plain = (
        kind(**made(activations=(activation,)), **more)
        for kind, more in ((CapturedEngine, {"graphs": RecordedGraphs()}), (Engine, {}))
    )
    for epoch in range(3):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 8, rates(epoch)))
    assert_equal(captured, plain)


@pytest.mark.parametrize("name", [name for name, rule in OPTIMIZERS.items() if rule.trains_alone is None])
def test_an_optimizer_is_captured_only_where_its_graph_is_right(name):
    graphs = RecordedGraphs()
    captured, plain = CapturedEngine(graphs=graphs, **made(name)), Engine(**made(name))
    for epoch in range(4):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch) / 10))
        assert_equal(captured, plain)
    assert (graphs.captures > 0) == OPTIMIZERS[name].can_be_captured == (captured.plain_reason is None)


@pytest.mark.parametrize(
    ("network", "extras", "is_captured"),
    [
        *(({"norm": name}, {}, True) for name in NORMS),
        ({"block_depth": 1}, {}, True),
        ({"dropout": (0.2, 0.2), "input_dropout": 0.1}, {}, True),
        ({}, {"clip_norm": 0.1, "clip_value": 0.05}, True),
        ({}, {"prune": 0.5}, True),
        ({}, {"ema_decay": 0.9}, False),
        ({}, {"swa_start": 1.0}, False),
    ],
)
def test_layers_and_extras_are_captured_only_where_the_graph_is_right(network, extras, is_captured):
    spec = multilayer_perceptron(SIZES[0], (8, 8), SIZES[-1], "tanh", **network)
    generator = torch.Generator().manual_seed(1)
    arguments: dict[str, Any] = {
        "networks": [spec] * R,
        "parameters": {name: torch.rand(R, *shape, generator=generator) for name, shape in spec.tensors.items()},
        "update": UpdateSettings(
            extras={name: torch.full((R,), value, dtype=torch.float64) for name, value in extras.items()}
        ),
        "seeds": range(R),
    }
    captured, plain = CapturedEngine(graphs=RecordedGraphs(), **arguments), Engine(**arguments)
    for epoch in range(4):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch)))
        assert_equal(captured, plain)
    assert (captured.plain_reason is None) == is_captured


@pytest.mark.parametrize(
    ("name", "task", "smoothing"),
    [(name, task, 0.0) for name, loss in LOSSES.items() for task in loss.tasks]
    + [("cross_entropy", "classification", 0.1)],
)
def test_every_loss(name, task, smoothing):
    loss = LossFunction(name=name, label_smoothing=smoothing)
    labels = LABELS if task == "classification" else torch.rand(SAMPLES, SIZES[-1], generator=GENERATOR)
    captured, plain = CapturedEngine(graphs=RecordedGraphs(), loss=loss, **made()), Engine(loss=loss, **made())
    for epoch in range(3):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, labels, orders(epoch), 4, rates(epoch)))
        assert torch.equal(captured.train_outcomes.losses, plain.train_outcomes.losses)
        for key, values in plain.parameters.items():
            assert torch.equal(captured.parameters[key], values), key
    # torch's one-hot vectors, which other losses of classes need, cannot be recorded on a CPU: they look at the values
    assert captured.plain_reason is None or (task == "classification" and name != "cross_entropy")


@pytest.mark.parametrize("name", NORMS)
def test_normalisations_of_a_gpu_are_those_of_the_cpu(name, monkeypatch):
    spec = multilayer_perceptron(SIZES[0], (8, 6), SIZES[-1], "tanh", norm=name)
    generator = torch.Generator().manual_seed(1)
    parameters = {key: torch.rand(R, *shape, generator=generator) + 0.1 for key, shape in spec.tensors.items()}

    def trained() -> Engine:
        engine = Engine(networks=[spec] * R, parameters=parameters, update=UpdateSettings())
        for epoch in range(2):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch)))
        return engine

    by_run = trained()
    monkeypatch.delitem(layer_kernels.KERNELS, NORMS[name])
    together = trained()
    assert len(by_run.parameters) == len(spec.tensors)
    for key, values in by_run.parameters.items():
        assert torch.allclose(together.parameters[key], values, rtol=1e-4, atol=1e-5), key
    losses = [engine.evaluate(INPUTS, LABELS).losses for engine in (by_run, together)]
    assert torch.allclose(*losses, rtol=1e-4, atol=1e-5)


def test_the_stand_in_notices_a_graph_that_is_not_right(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS["nadam"], "can_be_captured", True)
    captured, plain = CapturedEngine(graphs=RecordedGraphs(), **made("nadam")), Engine(**made("nadam"))
    for epoch in range(4):
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch) / 10))
    with pytest.raises(AssertionError):
        assert_equal(captured, plain)


def test_rates_by_step_and_parameter_class_weights_and_own_samples_are_captured():
    tensors = 2 * (len(SIZES) - 1)
    steps = -(-SAMPLES // 4)
    more = {
        "class_weights": torch.rand(R, SIZES[-1], generator=GENERATOR) + 0.5,
        "first_rows": torch.tensor([[0], [SAMPLES]] * (R // 2)),
    }
    inputs = torch.cat([INPUTS, INPUTS.flip(0)])
    labels = torch.stack([LABELS.roll(i) for i in range(R)])
    graphs = RecordedGraphs()
    captured, plain = CapturedEngine(graphs=graphs, **made()), Engine(**made())
    for epoch in range(4):
        each = rates(epoch) * torch.linspace(1, 0.5, steps, dtype=torch.float64).unsqueeze(1)  # (S, R)
        lr = [each / (i + 1) for i in range(tensors)]
        for engine in (captured, plain):
            engine.train_epoch(Epoch(inputs, labels, orders(epoch), 4, lr, **more))
        assert_equal(captured, plain)
    assert (graphs.captures, graphs.replays) == (1, 3)


def test_runs_that_leave_and_another_batch_size_are_captured_anew():
    graphs = RecordedGraphs()
    captured, plain = CapturedEngine(graphs=graphs, **made()), Engine(**made())
    stay = torch.tensor([0, 3, 4])
    for epoch in range(8):
        if epoch == 3:
            for engine in (captured, plain):
                engine.keep(stay)
        runs = R if epoch < 3 else len(stay)
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch, runs), 4 if epoch < 6 else 5, rates(epoch, runs)))
        assert_equal(captured, plain)
    assert (graphs.warm_ups, graphs.captures, graphs.replays) == (3, 3, 5)


class Refusing(RecordedGraphs):
    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        super().capture(work)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")


def test_where_capturing_fails_the_epochs_are_plain_and_the_reason_is_known():
    captured, plain = CapturedEngine(graphs=Refusing(), **made()), Engine(**made())
    for epoch in range(3):
        assert (captured.plain_reason is None) == (epoch < 2)
        for engine in (captured, plain):
            engine.train_epoch(Epoch(INPUTS, LABELS, orders(epoch), 4, rates(epoch)))
        assert_equal(captured, plain)
    assert captured.plain_reason == (
        "an epoch cannot be captured: CUDA error: operation not permitted when stream is capturing"
    )


def test_the_benchmark_for_a_gpu_compares_every_entry(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import gpu

    monkeypatch.setattr(gpu, "EPOCHS", 3)
    rows = gpu.compare(INPUTS, LABELS, torch.device("cpu"), RecordedGraphs(), runs=2)
    assert {name for name, _, _ in rows} == ({*ACTIVATIONS, *OPTIMIZERS} - {"sgd", "lbfgs"})
    assert all(apart == 0 for _, apart, _ in rows)
    assert {name for name, _, reason in rows if reason is None} >= {*ACTIVATIONS}
