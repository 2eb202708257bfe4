"""The engine against networks trained alone by torch's own layers, loss and optimizers: the same bits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp.config.schema import OptimizerConfig
from mlpexp.engine.cost_model import step_cost_us
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.models.training_state import Snapshot
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings
from mlpexp.nn.outcomes import Outcomes
from mlpexp.runtime.errors import UserError

RATES = [0.1, 0.01, 0.5, 0.2, 0.05, 0.3]


@pytest.fixture(params=[1], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread unless the test says otherwise: two that share a busy machine's cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


on_one_and_two_threads = pytest.mark.parametrize("threads", [1, 2], indirect=True)


def ends(sizes: Sequence[int]) -> tuple[int, Sequence[int], int]:
    return sizes[0], sizes[1:-1], sizes[-1]


@dataclass
class Study:
    """Everything that R runs are made of; each may differ from run to run."""

    sizes: Sequence[int]
    parameters: dict[str, Tensor]
    inputs: Tensor
    labels: Tensor
    orders: list[Tensor]  # of each epoch, (R, n)
    batch_size: int
    activations: list[str]
    lr: Tensor  # (R,)
    update: UpdateSettings

    @property
    def num_runs(self) -> int:
        return len(self.lr)

    def engine(self, **options: Any) -> Engine:
        return Engine(
            networks=[multilayer_perceptron(*ends(self.sizes), name) for name in self.activations],
            parameters=self.parameters,
            update=self.update,
            **options,
        )

    def trained(self) -> Engine:
        engine = self.engine()
        for order in self.orders:
            engine.train_epoch(Epoch(self.inputs, self.labels, order, self.batch_size, self.lr))
        return engine

    def rows(self, rows: Sequence[int]) -> "Study":
        index = torch.tensor(rows)
        return Study(
            self.sizes,
            {name: values[index] for name, values in self.parameters.items()},
            self.inputs,
            self.labels if self.labels.ndim == 1 else self.labels[index],
            [order[index] for order in self.orders],
            self.batch_size,
            [self.activations[i] for i in rows],
            self.lr[index],
            self.update.rows(index),
        )


def study(
    sizes: Sequence[int],
    batch_size: int = 32,
    num_samples: int = 75,
    num_runs: int = 4,
    epochs: int = 2,
    activations: str | list[str] = "tanh",
    update: UpdateSettings | None = None,
) -> Study:
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int, bound: float) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1) * bound

    parameters = {}
    gated = isinstance(activations, str) and ACTIVATIONS[activations].gated
    for k, (i, o) in enumerate(pairwise(sizes)):
        rows = 2 * o if gated and k < len(sizes) - 2 else o
        parameters[f"layers.{k}.weight"] = uniform(num_runs, rows, i, bound=i**-0.5)
        parameters[f"layers.{k}.bias"] = uniform(num_runs, rows, bound=i**-0.5)
    return Study(
        sizes,
        parameters,
        torch.rand(num_samples, sizes[0], generator=generator),
        torch.randint(sizes[-1], (num_samples,), generator=generator),
        [
            torch.stack([torch.randperm(num_samples, generator=generator) for _ in range(num_runs)])
            for _ in range(epochs)
        ],
        batch_size,
        [activations] * num_runs if isinstance(activations, str) else activations,
        torch.tensor(RATES[:num_runs], dtype=torch.float64),
        update or UpdateSettings(),
    )


@dataclass
class Alone:
    """One run of a study, trained as torch tells it."""

    layers: list[nn.Linear]
    activation: Any
    optimizer: Any
    losses: Tensor  # of the latest epoch
    hits: Tensor

    def logits(self, inputs: Tensor) -> Tensor:
        h = inputs
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return self.layers[-1](h)

    def parameters(self) -> list[Tensor]:
        return [p for layer in self.layers for p in layer.parameters()]


def settings_of(update: UpdateSettings, run: int) -> dict[str, Any]:
    found: dict[str, Any] = {key: values[run].tolist() for key, values in update.per_run.items()}
    found["weight_decay"] = 0.0
    if update.weight_decay is not None:
        assert isinstance(update.weight_decay, Tensor)
        found["weight_decay"] = update.weight_decay[run].item()
    return found


def alone(study: Study, run: int, schedule: Tensor | None = None) -> Alone:
    layers = []
    for k, inputs in enumerate(study.sizes[:-1]):
        layer = nn.utils.skip_init(nn.Linear, inputs, study.parameters[f"layers.{k}.bias"].shape[1])
        layer.weight.data.copy_(study.parameters[f"layers.{k}.weight"][run])
        layer.bias.data.copy_(study.parameters[f"layers.{k}.bias"][run])
        layers.append(layer)
    rule = OPTIMIZERS[study.update.name]
    network = multilayer_perceptron(*ends(study.sizes), study.activations[run])
    parameters = [p for layer in layers for p in layer.parameters()]
    groups = [
        {"params": [p]} | rule.group_options(network, name) for name, p in zip(network.shapes, parameters, strict=True)
    ]
    optimizer = rule.torch_class()(groups, lr=study.lr[run].item(), **settings_of(study.update, run))
    entry = ACTIVATIONS[study.activations[run]]

    def gate(x: Tensor) -> Tensor:
        u, v = x.chunk(2, -1)
        return u * entry.function(v.contiguous())

    it = Alone(layers, gate if entry.gated else entry.function, optimizer, torch.empty(0), torch.empty(0))
    labels = study.labels if study.labels.ndim == 1 else study.labels[run]
    for order in study.orders:
        losses, hits = [], []
        for step, batch in enumerate(order[run].split(study.batch_size)):
            if schedule is not None:
                for group in optimizer.param_groups:
                    group["lr"] = schedule[step, run].item()
            logits = it.logits(study.inputs[batch])
            losses.append(F.cross_entropy(logits, labels[batch], reduction="none").detach())
            hits.append(logits.argmax(-1) == labels[batch])
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
        it.losses, it.hits = torch.cat(losses), torch.cat(hits)
    return it


def same_parameters(engine: Engine, place: int, it: Alone) -> bool:
    found = [values[place] for values in engine.parameters.values()]
    # a NaN equals no other, and where it stands is all that can be asked of it
    return all(
        torch.equal(a.nan_to_num(nan=7.0), b.detach().nan_to_num(nan=7.0))
        for a, b in zip(found, it.parameters(), strict=True)
    )


def hits(outcomes: Outcomes) -> Tensor:
    return outcomes.predictions == outcomes.labels


def assert_equal_to_alone(engine: Engine, study: Study) -> None:
    """Parameters after training, and each sample's loss and hit in the last epoch, bit for bit."""
    each = [alone(study, run) for run in range(study.num_runs)]
    assert [same_parameters(engine, run, it) for run, it in enumerate(each)] == [True] * study.num_runs
    assert torch.equal(engine.train_outcomes.losses, torch.stack([it.losses for it in each]))
    assert torch.equal(hits(engine.train_outcomes), torch.stack([it.hits for it in each]))


# ---------------------------------------------------------------- the same bits as alone


@pytest.mark.parametrize(
    ("sizes", "batch_size", "num_samples"),
    [
        ([64, 10], 32, 101),
        ([64, 50, 10], 32, 101),
        ([64, 128, 10], 32, 69),
        ([64, 48, 17, 10], 32, 75),
        ([64, 32, 32, 32, 10], 32, 69),
        ([64, 24, 24, 24, 24, 24, 10], 24, 50),
        ([2, 16, 2], 50, 120),
        ([4, 7, 3], 8, 37),
        ([13, 17, 13, 3], 7, 40),
        ([30, 100, 100, 2], 24, 61),
        ([7, 5, 5, 26], 1, 25),
        ([16, 1, 2], 100, 230),
        ([12, 7, 1, 37, 26], 2, 7),
        ([50, 33, 9, 25], 256, 600),
        ([10, 10, 10], 500, 77),
    ],
)
def test_a_stacked_run_has_the_bits_of_the_run_alone(sizes: list[int], batch_size: int, num_samples: int) -> None:
    runs = study(sizes, batch_size, num_samples)

    assert_equal_to_alone(runs.trained(), runs)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_two_threads_give_the_bits_of_the_run_alone_on_two_threads() -> None:
    runs = study([64, 50, 10], num_samples=37, num_runs=2, epochs=1)

    assert_equal_to_alone(runs.trained(), runs)


def test_ten_epochs_of_the_usual_size_keep_the_bits() -> None:
    runs = study([64, 50, 10], num_samples=1797, num_runs=2, epochs=10)

    assert_equal_to_alone(runs.trained(), runs)


def test_a_stack_of_one_has_the_bits_of_the_run_alone() -> None:
    runs = study([64, 50, 10], num_runs=1)

    assert_equal_to_alone(runs.trained(), runs)


def test_a_large_stack_has_the_bits_of_the_run_alone() -> None:
    runs = study([20, 17, 10], num_samples=40, num_runs=6).rows([0, 1, 2, 3, 4, 5] * 20)
    engine = runs.trained()

    assert all(same_parameters(engine, run, alone(runs, run)) for run in (0, 61, 119))


@pytest.mark.parametrize("widths", [[50], [17, 5], [3, 64]])
@pytest.mark.parametrize("name", ACTIVATIONS.names)
def test_every_activation_keeps_the_bits(name: str, widths: list[int]) -> None:
    runs = study([20, *widths, 10], num_samples=101, activations=name)
    runs.parameters["layers.0.weight"] *= 8  # into every branch of the function
    runs.lr = runs.lr / 20

    assert_equal_to_alone(runs.trained(), runs)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_activations_that_round_by_place_keep_the_bits_when_threads_share_them() -> None:
    # 3 * 32 * 544 elements are shared between two threads not at a whole vector
    runs = study([20, 544, 5], num_samples=64, num_runs=3, epochs=1, activations="sigmoid")

    assert_equal_to_alone(runs.trained(), runs)


def test_activations_may_differ_within_a_stack() -> None:
    runs = study([20, 17, 16, 5], activations=["identity", "identity", "gelu", "tanh", "relu", "sigmoid"], num_runs=6)

    assert_equal_to_alone(runs.trained(), runs)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIXED = {
    "momentum": f64(0.9, 0.0, 0.5, 0.9),
    "nesterov": torch.tensor([True, False, False, True]),
    "betas": f64(0.9, 0.999, 0.8, 0.99, 0.0, 0.9, 0.95, 0.98).view(4, 2),
    "eps": f64(1e-8, 1e-6, 1e-3, 1e-10),
    "alpha": f64(0.99, 0.9, 0.5, 0.999),
}


@pytest.mark.parametrize(
    "update",
    [
        UpdateSettings(per_run={"momentum": f64(0.9, 0.9, 0.5, 0.3)}),
        UpdateSettings(per_run={"momentum": f64(0.9, 0.0, 0.5, 0.0)}),
        UpdateSettings(per_run={"momentum": f64(0, 0, 0, 0), "nesterov": torch.tensor([False] * 4)}),
        UpdateSettings(per_run={"momentum": f64(0.9, 0.8, 0.5, 0.3), "nesterov": torch.tensor([True] * 4)}),
        UpdateSettings(
            per_run={"momentum": f64(0.9, 0.0, 0.5, 0.9), "nesterov": torch.tensor([True, False, False, True])}
        ),
        UpdateSettings(weight_decay=f64(0.1, 1e-4, 1e-2, 1e-3)),
        UpdateSettings(weight_decay=f64(0.1, 0.0, 1e-2, 0.0)),
        UpdateSettings(
            weight_decay=f64(0.0, 1e-4, 1e-2, 0.0),
            per_run={"momentum": f64(0.9, 0.0, 0.5, 0.9), "nesterov": torch.tensor([True, False, False, True])},
        ),
        UpdateSettings(name="adam"),
        UpdateSettings(name="adamw", weight_decay=f64(0.1, 0.0, 1e-2, 0.5)),
        *(
            UpdateSettings(
                name=name,
                weight_decay=f64(0.1, 0.0, 1e-2, 0.0),
                per_run={key: MIXED[key] for key in rule.arguments(OptimizerConfig())},
            )
            for name, rule in OPTIMIZERS.items()
            if not rule.trains_alone
        ),
        *(UpdateSettings(name=name) for name, rule in OPTIMIZERS.items() if not rule.trains_alone),
    ],
    ids=lambda update: "-".join([update.name, *update.per_run, "" if update.weight_decay is None else "decay"]),
)
def test_every_update_rule_keeps_the_bits(update: UpdateSettings) -> None:
    runs = study([20, 17, 10], num_samples=101, epochs=3, update=update)
    if update.name != "sgd":
        runs.lr = runs.lr / 20

    assert_equal_to_alone(runs.trained(), runs)


@pytest.mark.parametrize("name", [name for name, rule in OPTIMIZERS.items() if not rule.trains_alone])
def test_learning_rates_may_change_at_every_step(name: Any) -> None:
    update = UpdateSettings(name=name, weight_decay=f64(0.1, 0.0, 1e-2, 0.5))
    runs = study([20, 17, 10], epochs=2, update=update)
    schedule = torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 30
    engine = runs.engine()
    for order in runs.orders:
        engine.train_epoch(Epoch(runs.inputs, runs.labels, order, runs.batch_size, schedule))

    assert [same_parameters(engine, run, alone(runs, run, schedule)) for run in range(4)] == [True] * 4


def test_labels_may_differ_from_run_to_run() -> None:
    runs = study([20, 17, 10])
    runs.labels = torch.randint(10, (4, 75), generator=torch.Generator().manual_seed(1))

    assert_equal_to_alone(runs.trained(), runs)


def test_one_order_may_serve_all_runs() -> None:
    runs = study([20, 17, 10])
    runs.orders = [order[0] for order in runs.orders]
    engine = runs.trained()
    runs.orders = [order.expand(4, -1) for order in runs.orders]

    assert_equal_to_alone(engine, runs)


def test_equal_logits_count_as_argmax_counts_them() -> None:
    runs = study([20, 17, 10], epochs=1, num_samples=32)
    runs.parameters = {name: torch.zeros_like(values) for name, values in runs.parameters.items()}

    assert_equal_to_alone(runs.trained(), runs)


def test_the_mean_of_single_losses_has_the_gradient_of_the_mean_loss() -> None:
    logits = torch.randn(37, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(37) % 10
    (one,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    (other,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="none").mean(), logits)

    assert torch.equal(one, other)


# ---------------------------------------------------------------- neighbours


def mixed_study() -> Study:
    update = UpdateSettings(
        weight_decay=f64(0.0, 1e-4, 1e-2, 0.0, 0.0, 0.0), per_run={"momentum": f64(0.9, 0.0, 0.5, 0.9, 0.0, 0.0)}
    )
    return study([13, 17, 5], 24, num_runs=6, activations=["tanh"] * 3 + ["silu"] * 3, update=update)


@pytest.mark.parametrize("rows", [[0], [3, 4], [5, 4, 1, 0], [1, 1, 1, 3, 3, 4, 4, 4, 4]])
def test_a_run_does_not_depend_on_its_neighbours(rows: list[int]) -> None:
    runs = mixed_study()
    whole, part = runs.trained(), runs.rows(rows).trained()

    assert all(torch.equal(whole.parameters[name][rows], values) for name, values in part.parameters.items())
    assert torch.equal(whole.train_outcomes.losses[rows], part.train_outcomes.losses)


@pytest.mark.parametrize("diverging", [0, 2, 5])
def test_a_diverging_run_changes_no_neighbour(diverging: int) -> None:
    runs = mixed_study()
    others = [i for i in range(6) if i != diverging]
    expected = runs.trained()
    runs.lr = runs.lr.clone()
    runs.lr[diverging] = 3e38
    found = runs.trained()

    assert not found.train_outcomes.losses[diverging].isfinite().all()
    assert all(torch.equal(found.parameters[name][others], v[others]) for name, v in expected.parameters.items())
    assert same_parameters(found, diverging, alone(runs, diverging))


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("kept", [[2], [0, 3], [1, 2, 3]])
def test_runs_that_leave_do_not_change_those_that_stay(name: Any, kept: list[int]) -> None:
    momentum = {"momentum": f64(0.9, 0.0, 0.5, 0.3)} if name == "sgd" else {}
    update = UpdateSettings(name=name, weight_decay=f64(0.1, 0.0, 1e-2, 0.0), per_run=momentum)
    runs = study([20, 17, 10], update=update, activations=["relu", "relu", "tanh", "gelu"])
    engine = runs.engine()
    engine.train_epoch(Epoch(runs.inputs, runs.labels, runs.orders[0], runs.batch_size, runs.lr))
    engine.keep(torch.tensor(kept))
    engine.train_epoch(Epoch(runs.inputs, runs.labels, runs.orders[1][kept], runs.batch_size, runs.lr[kept]))

    assert_equal_to_alone(engine, runs.rows(kept))


# ---------------------------------------------------------------- evaluation and state


@on_one_and_two_threads
@pytest.mark.parametrize("sizes", [[64, 50, 10], [13, 17, 5, 3], [4, 3]])
@pytest.mark.parametrize("num_samples", [360, 77])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.thorough(sample=12)
def test_evaluation_has_the_bits_of_the_run_alone(
    sizes: list[int], num_samples: int, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three runs at a time, so that the runs of a later share begin at other addresses
    bytes_per_run = 4 * num_samples * (2 * sum(sizes) - sizes[0] - sizes[-1])
    monkeypatch.setattr("mlpexp.engine.torch.engine.EVALUATION_BYTES", 3 * bytes_per_run)
    runs = study(sizes, num_samples=num_samples, num_runs=6, epochs=0, activations=activation)
    each = [alone(runs, run).logits(runs.inputs).detach() for run in range(6)]
    found = runs.engine(keeps_outputs=True).evaluate(runs.inputs, runs.labels)

    assert found.outputs is not None and torch.equal(found.outputs, torch.stack(each))
    assert torch.equal(found.losses, torch.stack([F.cross_entropy(z, runs.labels, reduction="none") for z in each]))
    assert torch.equal(hits(found), torch.stack([z.argmax(-1) == runs.labels for z in each]))


@pytest.mark.parametrize("own_labels", [False, True])
@pytest.mark.parametrize("own_samples", [False, True])
def test_runs_may_be_evaluated_on_samples_and_labels_of_their_own(own_samples: bool, own_labels: bool) -> None:
    runs = study([20, 17, 10], epochs=0)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (4, 75), generator=generator)
    index = torch.randint(75, (4, 33), generator=generator)
    found = runs.engine().evaluate(runs.inputs, labels if own_labels else labels[0], index if own_samples else index[0])

    for run in range(4):
        rows = index[run if own_samples else 0]
        targets = labels[run if own_labels else 0][rows]
        logits = alone(runs, run).logits(runs.inputs[rows]).detach()
        assert torch.equal(found.losses[run], F.cross_entropy(logits, targets, reduction="none"))
        assert torch.equal(hits(found)[run], logits.argmax(-1) == targets)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_optimizers_state_is_that_of_torch(name: Any) -> None:
    momentum = {"momentum": f64(0.9, 0.8, 0.5, 0.3)} if name == "sgd" else {}
    runs = study([20, 17, 10], update=UpdateSettings(name=name, per_run=momentum))
    engine, it = runs.trained(), alone(runs, 1)

    for i, parameter in enumerate(it.parameters()):
        expected = it.optimizer.state[parameter]
        assert {kind for kind in expected if kind != "step"} == set(engine.state)
        assert all(torch.equal(tensors[i][1], expected[kind]) for kind, tensors in engine.state.items())
    assert engine.num_steps == 6


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_training_continues_from_saved_state_with_the_same_bits(name: Any) -> None:
    momentum = {"momentum": f64(0.9, 0.0, 0.5, 0.3)} if name == "sgd" else {}
    runs = study([20, 17, 10], update=UpdateSettings(name=name, per_run=momentum))
    first = runs.engine()
    first.train_epoch(Epoch(runs.inputs, runs.labels, runs.orders[0], 32, runs.lr))
    second = runs.engine()
    Snapshot.from_engine(first).restore(second, first.num_steps)
    second.train_epoch(Epoch(runs.inputs, runs.labels, runs.orders[1], 32, runs.lr))

    assert_equal_to_alone(second, runs)


def test_a_snapshot_is_a_copy_and_its_rows_have_memory_of_their_own() -> None:
    runs = study([20, 17, 10], update=UpdateSettings(per_run={"momentum": f64(0.9, 0.9, 0.9, 0.9)}))
    engine = runs.trained()
    snapshot = Snapshot.from_engine(engine)
    row = snapshot.row(0)
    for values in [*snapshot.parameters.values(), *snapshot.state["momentum_buffer"]]:
        values.zero_()

    assert row.parameters["layers.0.weight"].untyped_storage().nbytes() == 4 * 17 * 20
    assert_equal_to_alone(engine, runs)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown activation 'tahn'; did you mean tanh\? choose one of tanh"):
        study([4, 3, 2], activations="tahn").engine()


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown optimizer 'adm'; did you mean adam\? choose one of sgd, adam, adamw"):
        study([4, 3, 2], update=UpdateSettings(name="adm")).engine()


# ---------------------------------------------------------------- costs


@pytest.mark.parametrize(
    "larger", [([64, 128, 10], 32, 40), ([64, 64, 64, 10], 32, 40), ([64, 64, 10], 32, 41), ([64, 64, 10], 64, 40)]
)
def test_more_work_costs_more(larger: tuple[list[int], int, int]) -> None:
    assert step_cost_us(*larger) > step_cost_us([64, 64, 10], 32, 40) > 0
