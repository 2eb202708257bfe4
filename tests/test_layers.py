"""Dropout, normalisation, residual blocks and networks without biases: by hand, in torch's modules and in stacks."""

import csv
import json
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import run_script
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import mlpexp
from mlpexp.config import checks
from mlpexp.data import prepare
from mlpexp.engine.compiled.availability import unsupported
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.evaluation import trained_run
from mlpexp.evaluation.network_outputs import classify
from mlpexp.models import build, classifier, gradcheck, saved_states
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.diagnostics import inspect
from mlpexp.nn.dropout_masks import Masks, draw
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.layers import Dropout
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.network import backward, forward, training_tensors, update_statistics_
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.optimizers import UpdateSettings
from mlpexp.runtime.errors import ConfigError
from mlpexp.store.identity import identity
from mlpexp.training.train_stack import train_stack
from mlpexp.training.trainer_setup import quiet

torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer

MODELS = [
    *({"norm": norm, "norm_position": position} for norm in NORMS for position in ("pre", "post")),
    {"dropout": 0.3},
    {"dropout": [0.1, 0.0, 0.5], "input_dropout": 0.2},
    {"residual": True},
    {"residual": True, "block_depth": 2, "width": [9, 5, 8, 5, 7]},  # a skip around the second block only
    {"bias": False},
    {"bias": False, "norm": "batch", "residual": True, "dropout": 0.2, "activation": "relu"},
    {"norm": "rms", "residual": True, "width": 6, "dropout": 0.2, "input_dropout": 0.1, "activation": "mish"},
    {"activation": "leaky_relu", "negative_slope": 0.3},
    {"activation": "elu", "alpha": 0.7},
    {"activation": "glu"},
    {"activation": "swiglu", "norm": "batch", "dropout": 0.2, "residual": True, "bias": False},
    {"activation": "swiglu", "norm": "layer", "norm_position": "post", "input_dropout": 0.1},
]
GATES = {"glu": torch.sigmoid, "swiglu": F.silu}
INPUTS, CLASSES, RUNS = 6, 4, 3
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(f"{k}={v}" for k, v in model.items()))


def config(model, seed=0, **settings):
    size = {} if isinstance(model.get("width"), list) else {"depth": 3}
    return checks.parse({"seed": seed, "model": {"width": 9, **size, **model}, **settings})


def problem(model, samples=37, runs=RUNS):
    """Configurations, initial tensors, inputs and labels."""
    cfgs = [config(model, seed) for seed in range(runs)]
    start = [initialise(cfg.model.network(INPUTS, CLASSES), cfg.model, cfg.seed) for cfg in cfgs]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples, INPUTS, generator=generator)
    return cfgs, start, inputs, torch.randint(CLASSES, (samples,), generator=generator)


@every_model
@pytest.mark.parametrize("batch", [7, 1])
def test_gradients_by_hand_equal_those_of_torchs_modules(model, batch):
    [cfg], [start], inputs, labels = problem(model, batch, runs=1)
    network, inputs = cfg.model.network(INPUTS, CLASSES), inputs.double()
    module = TorchMLP(cfg, INPUTS, CLASSES).double().train()
    for dropout in module._dropouts:
        dropout.epoch, dropout.step = 2, 5
    logits = module(inputs)
    F.cross_entropy(logits, labels).backward()

    tensors = {name: values.double() for name, values in start.items()}
    given = training_tensors(network, tensors, inputs, cfg.seed, epoch=2, step=5)
    trace = forward(network, given, inputs)
    torch.testing.assert_close(trace.logits, logits.detach(), rtol=1e-10, atol=1e-12)
    upstream = (logits.detach().softmax(-1) - F.one_hot(labels, CLASSES)) / batch
    found = backward(network, given, trace, upstream).parameters
    for name, gradient in found.items():
        wanted = module.get_parameter(name).grad
        assert (gradient - wanted).abs().max() <= 1e-10 * max(1e-3, wanted.abs().max().item()), name
    update_statistics_(network, tensors, trace)
    for name, value in module.tensors().items():
        torch.testing.assert_close(tensors[name], value.detach(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(forward(network, tensors, inputs).logits, module.eval()(inputs).detach())


@every_model
def test_gradients_of_a_stack_by_hand_equal_those_of_its_runs(model):
    cfgs, start, inputs, labels = problem(model, 7)
    network, inputs = cfgs[0].model.network(INPUTS, CLASSES), inputs.double()
    alone = [
        training_tensors(network, {name: v.double() for name, v in own.items()}, inputs, cfg.seed, 0, 0)
        for cfg, own in zip(cfgs, start, strict=True)
    ]
    targets = F.one_hot(labels, CLASSES).double()

    def gradients(tensors, inputs, targets):
        trace = forward(network, tensors, inputs)
        upstream = LOSSES["cross_entropy"].by_hand_gradient(trace.logits, targets, None)
        return backward(network, tensors, trace, upstream).parameters

    stacked = {name: torch.stack([own[name] for own in alone]) for name in alone[0]}
    found = gradients(stacked, inputs.expand(RUNS, -1, -1), targets.expand(RUNS, -1, -1))
    for run, own in enumerate(alone):
        for name, wanted in gradients(own, inputs, targets).items():
            torch.testing.assert_close(found[name][run], wanted, rtol=1e-10, atol=1e-12)


@every_model
@pytest.mark.thorough(sample=5)
def test_gradient_check_passes_in_every_implementation(model, monkeypatch):
    if "MLPEXP_THOROUGH" not in os.environ:
        monkeypatch.setattr(gradcheck, "ENTRIES", 6)
    for variant in ("torch_nn", "autograd", "backprop"):
        rows = gradcheck.check(config({**model, "variant": variant}))
        assert all(row.passed for row in rows), rows


class PlainLoop:
    """A network of torch's own modules with masks of dropout given from outside, trained by a loop."""

    def __init__(self, cfg, start):
        model, hidden = cfg.model, cfg.model.hidden_sizes
        self.model, self.seed, self.hidden = model, cfg.seed, hidden
        gate = 2 if model.activation in GATES else 1
        pairs = [(i, gate * o) for i, o in pairwise([INPUTS, *hidden])]
        self.linear = [nn.Linear(*pair, bias=model.bias) for pair in (*pairs, (hidden[-1], CLASSES))]
        kinds = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d}
        before = gate if model.norm_position == "pre" else 1
        self.norms = [kinds[model.norm](before * width) for width in hidden] if model.norm != "none" else []
        for group, modules in (("layers", self.linear), ("norms", self.norms)):
            for i, module in enumerate(modules):
                own = {name: start[f"{group}.{i}.{name}"] for name in module.state_dict() if name[:3] != "num"}
                module.load_state_dict(own, strict=False)
        self.parameters = [p for module in (*self.linear, *self.norms) for p in module.parameters()]

    def activation(self, x):
        match self.model.activation:
            case "leaky_relu":
                return F.leaky_relu(x, self.model.negative_slope)
            case "elu":
                return F.elu(x, self.model.alpha)
            case gated if gated in GATES:
                u, v = x.chunk(2, -1)
                return u * GATES[gated](v.contiguous())
        return {"tanh": torch.tanh, "relu": F.relu, "mish": F.mish}[self.model.activation](x)

    def dropout(self, x, rate, stream, position):
        if not rate or position is None:
            return x
        return x * draw(Dropout(x.shape[1], rate, stream), x, self.seed, *position)

    def logits(self, x, position=None):
        model = self.model
        rates = model.dropout if isinstance(model.dropout, list) else [model.dropout] * len(self.hidden)
        h = begin = self.dropout(x, model.input_dropout, 0, position)
        for i, linear in enumerate(self.linear[:-1]):
            h = linear(h)
            if self.norms and model.norm_position == "pre":
                h = self.norms[i](h)
            h = self.activation(h)
            if self.norms and model.norm_position == "post":
                h = self.norms[i](h)
            h = self.dropout(h, rates[i], i + 1, position)
            if model.residual and (i + 1) % model.block_depth == 0:
                h = begin = h + begin if h.shape == begin.shape else h
        return self.linear[-1](h)

    def train(self, inputs, labels, orders, batch_size):
        optimizer = torch.optim.SGD(self.parameters, lr=0.1, momentum=0.9)
        for epoch, order in enumerate(orders):
            for step, index in enumerate(order.split(batch_size)):
                optimizer.zero_grad()
                F.cross_entropy(self.logits(inputs[index], (epoch, step)), labels[index]).backward()
                optimizer.step()
        for norm in self.norms:
            norm.eval()
        return self


@every_model
def test_a_stack_has_the_bits_of_a_plain_loop_over_torchs_modules(model):
    cfgs, start, inputs, labels = problem(model)
    networks = [cfg.model.network(INPUTS, CLASSES) for cfg in cfgs]
    update = UpdateSettings(
        per_run={key: torch.tensor([value] * RUNS) for key, value in (("momentum", 0.9), ("nesterov", 0.0))}
    )
    engine = Engine(
        networks=networks,
        parameters={name: torch.stack([own[name] for own in start]) for name in start[0]},
        update=update,
        seeds=[cfg.seed for cfg in cfgs],
        keeps_outputs=True,
    )
    generator = torch.Generator().manual_seed(3)
    orders = [torch.stack([torch.randperm(37, generator=generator) for _ in cfgs]) for _ in range(3)]
    rates = torch.full((RUNS,), 0.1, dtype=torch.float64)
    for order in orders[:2]:
        engine.train_epoch(Epoch(inputs, labels, order, 16, rates))
    engine.keep(torch.tensor([0, 2]))
    engine.train_epoch(Epoch(inputs, labels, orders[2][[0, 2]], 16, rates[:2]))
    logits = engine.evaluate(inputs, labels).outputs
    assert logits is not None
    for place, run in enumerate((0, 2)):
        loop = PlainLoop(cfgs[run], start[run]).train(inputs, labels, [order[run] for order in orders], 16)
        assert torch.equal(loop.logits(inputs), logits[place])
        for i, norm in enumerate(loop.norms):
            if cfgs[run].model.norm == "batch":
                assert torch.equal(norm.running_var, engine.parameters[f"norms.{i}.running_var"][place])


def test_a_batch_of_one_sample_is_normalised_by_the_running_statistics():
    [cfg], [start], inputs, labels = problem({"norm": "batch"}, 5, runs=1)
    network = cfg.model.network(INPUTS, CLASSES)
    stacked = {name: values.unsqueeze(0) for name, values in start.items()}
    engine = Engine(networks=[network], parameters=stacked, update=UpdateSettings())
    engine.train_epoch(Epoch(inputs, labels, torch.arange(5), 4, torch.tensor([0.1], dtype=torch.float64)))
    module = TorchMLP(cfg, INPUTS, CLASSES).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for batch, targets in zip(inputs.split(4), labels.split(4), strict=True):
        before = module.tensors()["norms.0.running_mean"].clone()
        optimizer.zero_grad()
        F.cross_entropy(module(batch), targets).backward()
        optimizer.step()
        assert torch.equal(before, module.tensors()["norms.0.running_mean"]) == (len(batch) == 1)
    for name, value in module.tensors().items():
        assert torch.equal(engine.parameters[name][0], value)


# ---------------------------------------------------------------- masks


def test_masks_keep_the_given_share_and_are_unrelated_between_steps_layers_epochs_and_seeds():
    inputs = torch.empty(200, 0)
    rates = (0.1, 0.5, 0.9)
    for rate in rates:
        mask = draw(Dropout(300, rate, 1), inputs, seed=7, epoch=0, step=0)
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert (mask == 0).double().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 60_000) ** 0.5)
    places = [(s, layer, e, t) for s in (0, 1, 2**32 - 1) for layer in (0, 1) for e in (0, 1) for t in (0, 1)]
    drawn = torch.stack([
        (draw(Dropout(300, 0.5, layer), inputs, seed, epoch, step) > 0).double().flatten()
        for seed, layer, epoch, step in places
    ])  # fmt: skip
    related = torch.corrcoef(torch.cat([drawn, drawn.roll(1, -1), drawn.roll(300, -1)])) - torch.eye(3 * len(drawn))
    assert related.abs().max() < 5.5 * 60_000**-0.5


def test_masks_of_a_run_depend_neither_on_its_stack_nor_on_the_size_of_the_batch():
    stack = Masks([0.2, 0.5, 0.7], [4, 9, 2**32 - 1], 2, torch.empty(3, 16, 10)).draw(3, 11)
    alone = draw(Dropout(10, 0.5, 2), torch.empty(9, 0), seed=9, epoch=3, step=11)
    assert torch.equal(stack[1, :9], alone)


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"dropout": 1.0}, "give a share"),
        ({"dropout": [0.1, 1.5, 0.2]}, r"give a share in \[0, 1\), or a list"),
        ({"dropout": [0.1, 0.2]}, "2 rates for 3 hidden layers"),
        ({"norm": "lyaer"}, "did you mean|choose one of .*layer"),
        ({"norm_position": "post"}, "needs a norm"),
        ({"block_depth": 2}, "needs model.residual=true"),
        ({"width": [8, 8, 4], "residual": True}, "hidden layers 3 to 3 has 8 inputs and 4 outputs"),
        ({"negative_slope": 0.1}, "needs model.activation=leaky_relu"),
        ({"bias": False, "init": "scaled_normal", "sigma_b": 1.0}, "needs biases"),
    ],
)
def test_impossible_layers_are_refused_in_one_line(model, said):
    with pytest.raises(ConfigError, match=said) as caught:
        config(model)
    assert len(caught.value.problems) == 1


def test_batch_normalisation_of_single_samples_is_refused():
    with pytest.raises(ConfigError, match="more than one sample"):
        config({"norm": "batch"}, data={"batch_size": 1})


@pytest.mark.parametrize(
    ("key", "value", "said"), [("norm", "batch", "batch statistics"), ("dropout", 0.1, "the same masks")]
)
def test_several_processes_refuse_what_each_would_compute_by_itself(key, value, said):
    with pytest.raises(ConfigError, match=said):
        config({key: value}, trainer={"strategy": "ddp_fork", "devices": 2})


def test_a_residual_network_without_a_skip_says_so(train, here):
    classifier._warn.cache_clear()
    words = ["trainer.max_epochs=1", "tracking.figures=false", "model.residual=true"]
    assert "adds nothing here" in train([*words, "model.width=8", "hydra.run.dir=a"]).err
    classifier._warn.cache_clear()
    assert "adds nothing here" in train(["-m", *words, "model.width=8", "seed=0,1", "name=s"]).err
    assert "adds nothing" not in train([*words, "model.depth=2", "hydra.run.dir=b"]).err


def test_equal_rates_have_one_identity_as_a_list_and_as_a_number():
    assert identity(config({"dropout": [0.2] * 3}), "") == identity(config({"dropout": 0.2}), "")
    assert identity(config({"dropout": [0.0] * 3}), "") == identity(config({}), "")
    assert identity(config({"dropout": [0.2, 0.2, 0.1]}), "") != identity(config({"dropout": 0.2}), "")


@every_model
def test_the_compiled_engine_refuses_what_it_does_not_know(model):
    assert unsupported(config(model).model.network(INPUTS, CLASSES), "sgd")


def test_new_keys_change_no_network_at_their_defaults():
    plain = config({}).model.network(INPUTS, CLASSES)
    assert [type(layer).__name__ for layer in plain.layers] == ["Linear", "Activate"] * 3 + ["Linear"]
    assert config({"activation": "leaky_relu", "negative_slope": 0.01}).model.network(3, 2) == config(
        {"activation": "leaky_relu"}
    ).model.network(3, 2)


@pytest.mark.parametrize("name", [name for name, entry in ACTIVATIONS.items() if entry.key])
def test_gain_and_steepest_slope_follow_the_activations_own_key(name):
    z = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / (2 * torch.pi) ** 0.5
    for value in (0.2, 1.7):
        entry = ACTIVATIONS[name].with_value(value)
        h = entry.function(z)
        assert entry.gain == pytest.approx(torch.trapezoid(density * h**2, z).item() ** -0.5, rel=1e-6)
        assert entry.steepest == pytest.approx(entry.derivative(z, h).abs().max().item(), rel=1e-3)


def test_a_gated_unit_has_two_dense_layers_with_initial_values_of_their_own():
    network = config({"activation": "glu", "depth": 2, "init": "xavier_normal"}).model.network(INPUTS, CLASSES)
    assert network.sizes == [INPUTS, 9, 9, CLASSES]
    assert network.num_parameters == 2 * (INPUTS + 1) * 9 + 2 * (9 + 1) * 9 + (9 + 1) * CLASSES
    start = initialise(network, config({"init": "orthogonal"}).model, 3)
    for half in start["layers.1.weight"].chunk(2):
        torch.testing.assert_close(half @ half.T, torch.eye(9))
    torch.manual_seed(5)
    first = nn.Linear(INPUTS, 2 * 9)
    assert torch.equal(initialise(network, config({}).model, 5)["layers.0.weight"], first.weight.detach())
    x = torch.randn(5, 2 * 9)
    torch.testing.assert_close(network.layers[1].module()(x), F.glu(x))


def test_a_gated_unit_is_saturated_where_its_gate_is():
    network = config({"activation": "swiglu", "depth": 1}).model.network(INPUTS, CLASSES)
    tensors = {name: v.unsqueeze(0) for name, v in initialise(network, config({}).model, 0).items()}
    tensors["layers.0.bias"][:, :9] = 100.0  # of the value, which has no slope of its own
    numbers, _ = inspect(network, tensors, torch.randn(1, 30, INPUTS), torch.randint(CLASSES, (1, 30)))
    assert numbers.saturated.shape == (1, 1) and numbers.saturated.item() < 0.2
    tensors["layers.0.bias"][:, 9:] = -100.0
    numbers, _ = inspect(network, tensors, torch.randn(1, 30, INPUTS), torch.randint(CLASSES, (1, 30)))
    assert numbers.saturated.item() == 1


# ---------------------------------------------------------------- on the command line

SMALL = ["trainer.max_epochs=2", "data.batch_size=128", "tracking.figures=false", "model.width=8", "model.depth=2"]


def table(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_mixes_all_of_them_and_each_run_has_the_bits_it_has_alone(train, here):
    mixed = "model.norm=none,layer,batch model.dropout=0,0.2 model.residual=false,true"
    swept = train(["-m", *SMALL, *mixed.split(), "name=s", "seed=1", "hydra.sweep.subdir='${hydra.job.num}'"])
    assert swept.code == 0, swept.err
    rows = table("multirun/s/results.csv")
    assert len(rows) == 12
    assert "alone" not in swept.out
    for number in (3, 5, 11):
        row, run = rows[number], Path("multirun/s", str(number))
        keys = [f"model.{key}={row[f'model.{key}'].lower()}" for key in ("norm", "dropout", "residual")]
        assert train([*SMALL, *keys, "seed=1", f"hydra.run.dir=alone{number}"]).code == 0
        alone = Path(f"alone{number}")
        assert table(alone / "metrics.csv") == table(run / "metrics.csv")
        ours, theirs = (torch.load(d / "checkpoints/last.ckpt", weights_only=True) for d in (run, alone))
        assert list(ours["state_dict"]) == list(theirs["state_dict"])
        assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())


ALL = ["model.norm=batch", "model.dropout=0.2", "model.input_dropout=0.1", "model.residual=true", "model.bias=false"]


@pytest.mark.parametrize("variant", ["torch_nn", "autograd", "backprop"])
@pytest.mark.thorough(sample=1)
def test_a_run_resumes_to_the_bit_and_is_evaluated_as_it_was_tested(variant, train, here):
    words = [*SMALL, *ALL, f"model.variant={variant}"]
    assert train([*words, "hydra.run.dir=whole"]).code == 0
    assert train([*words, "trainer.max_epochs=1", "hydra.run.dir=half"]).code == 0
    ended = train(["resume=half", "trainer.max_epochs=2"])
    assert ended.code == 0, ended.err
    assert table("half/metrics.csv") == table("whole/metrics.csv")
    evaluated = run_script("evaluate.py", ["whole", "--no-embedding"])
    assert evaluated.code == 0, evaluated.err
    tested = json.loads(Path("whole/result.json").read_text())["metrics"]
    assert f"{tested['test/acc']:.4f}"[:5] in evaluated.out
    kinds = ["onnx", "torch", "safetensors"]
    for kind in kinds if "MLPEXP_THOROUGH" in os.environ else random.sample(kinds, 1):
        exported = run_script("export.py", ["whole", "--format", kind])
        assert exported.code == 0, exported.err


def test_a_stopped_sweep_with_dropout_and_batch_norm_continues_to_the_bit(train, here):
    words = ["-m", *SMALL, *ALL, "seed=0,1"]
    assert train([*words, "name=whole"]).code == 0
    assert train([*words, "name=rungs", "halving.rungs=[1]", "halving.factor=2"]).code == 0
    [kept] = [row for row in table("multirun/rungs/results.csv") if row["epochs"] == "2"]
    [same] = [row for row in table("multirun/whole/results.csv") if row["seed"] == kept["seed"]]
    assert kept["val/loss"] == same["val/loss"]


def test_saved_states_hold_the_running_statistics(tmp_path):
    cfgs = [config({"norm": "batch", "dropout": 0.2}, seed, trainer={"max_epochs": 3}) for seed in range(2)]
    prepared = [prepare(cfg.data) for cfg in cfgs]

    def trained(states=(), until=None):
        with quiet():
            return train_stack(cfgs, prepared, states=states, until=until)

    whole, half = trained(), trained(until=1)
    states = {str(run): half.state(run) for run in range(2)}
    (tmp_path / "sweep").mkdir()
    saved_states.save(tmp_path / "sweep", states)
    wanted = {str(run): (cfgs[run], prepared[run]) for run in range(2)}
    loaded = saved_states.load(tmp_path / "sweep", wanted)
    assert loaded["0"].last.parameters["norms.0.running_var"].ne(1).any()
    rest = trained([loaded["0"], loaded["1"]])
    for name, values in whole.last.parameters.items():
        assert torch.equal(values, rest.last.parameters[name])
    assert [record.history for record in rest.records] == [record.history for record in whole.records]


def test_networks_of_a_sweep_predict_from_python_as_each_does_by_itself(train, here):
    assert train(["-m", *SMALL, *ALL, "seed=0,1", "name=s"]).code == 0
    sweep = mlpexp.load_sweep("multirun/s")
    shares = sweep.predict_proba(load_digits().data[:60])
    for run, row in enumerate(sweep):
        module = trained_run.load(row.directory).module
        wanted = classify(module, sweep.data.inputs[:60]).numpy()
        assert shares[run] == pytest.approx(wanted, abs=1e-6)
        assert classify(row.model(), sweep.data.inputs[:60]).numpy() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("model", [{"norm": "batch"}, {"norm": "layer", "dropout": 0.5, "residual": True}], ids=str)
def test_diagnostics_use_the_statistics_of_their_samples_and_no_masks(model):
    [cfg], [start], inputs, labels = problem(model, 20, runs=1)
    network = cfg.model.network(INPUTS, CLASSES)
    tensors = {name: values.double() for name, values in start.items()}
    numbers, _ = inspect(network, tensors, inputs.double(), labels)
    module = TorchMLP(cfg, INPUTS, CLASSES).double().train()
    for dropout in module._dropouts:
        dropout.eval()
    F.cross_entropy(module(inputs.double()), labels).backward()
    wanted = [module.get_parameter(f"layers.{i}.weight").grad.norm().item() for i in range(4)]
    assert numbers.gradient_norm.tolist() == pytest.approx(wanted)


def test_a_run_in_double_precision_has_diagnostics_and_is_evaluated(train, here):
    ended = train([*SMALL, *ALL, "+trainer.precision=64", "tracking.diagnostics=true", "hydra.run.dir=run"])
    assert ended.code == 0, ended.err
    assert len(table("run/layers.csv")) == 9  # three dense layers, at the start and after two epochs
    assert run_script("evaluate.py", ["run", "--no-embedding"]).code == 0


def test_the_implementations_agree(here):
    losses = {}
    for variant in ("torch_nn", "autograd", "backprop"):
        module = build(config({"variant": variant, "norm": "rms", "residual": True}), INPUTS, CLASSES).eval()
        losses[variant] = module(torch.ones(3, INPUTS)).detach()
    for other in ("autograd", "backprop"):
        torch.testing.assert_close(losses[other], losses["torch_nn"])
