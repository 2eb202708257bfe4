"""Networks of the user's own (`model._target_`): in stacks, alone, continued, evaluated, or refused in one line."""

import math
import shutil
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_plugins import write
from test_stack import _one_thread, configured, of, stacked, written  # noqa: F401
from torch import nn

from mlpexp.config import checks, schema
from mlpexp.config.hparams import chosen
from mlpexp.data.batches import epoch_orders
from mlpexp.evaluation import evaluate, export, predict
from mlpexp.evaluation.stacked_networks import load_stacks
from mlpexp.models.stack_module import StackModule
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.user_class import load
from mlpexp.nn.user_module import UserModule
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.store import checkpoint_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.training import single_run
from mlpexp.training.engine_choice import cannot_be_stacked, with_engine
from mlpexp.training.planner import plan
from mlpexp.training.train_stack import train_stack
from mlpexp.training.trainer_setup import quiet

NETS = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, num_inputs, num_classes, hidden=13, blocks=2, rate=0.0):
        super().__init__()
        self.first = nn.Linear(num_inputs, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU()) for _ in range(blocks)
        )
        self.dropout = nn.Dropout(rate)
        self.last = nn.Linear(hidden, num_classes)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + self.dropout(block(x))
        return self.last(x)


class Normed(nn.Module):
    "Batch norm, a frozen parameter, a scalar, a parameter of three dimensions, constants."

    def __init__(self, in_features, out_features, width=7):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_features, width), nn.BatchNorm1d(width), nn.Sigmoid())
        self.frozen = nn.Parameter(torch.randn(width), requires_grad=False)
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.mixture = nn.Parameter(torch.randn(2, width, out_features) / 3)
        self.register_buffer("places", torch.arange(width))
        self.register_buffer("steps", torch.ones(width), persistent=False)

    def forward(self, x):
        x = self.layers(x)[:, self.places] + self.frozen * self.steps
        return self.sharpness.exp() * torch.einsum("bi,kio->bo", x, self.mixture)


class Lazy(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(nn.LazyLinear(9), nn.ReLU(), nn.LazyLinear(n_classes))


class Branching(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        x = self.layer(x)
        return x if x.sum() > 0 else 2 * x


class Noisy(Branching):
    def forward(self, x):
        return self.layer(x + torch.rand_like(x))


class Functional(Branching):
    def forward(self, x):
        return torch.nn.functional.dropout(self.layer(x), 0.5, self.training)


class Wrong(Branching):
    def forward(self, x):
        return self.layer(x)[:, :3]


class Broken(Branching):
    def forward(self, x):
        return self.layer(x[:, :3])


class Tied(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.a = nn.Linear(inputs, outputs)
        self.b = nn.Linear(inputs, outputs)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.a(x) + self.b(x)


class Alpha(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Linear(inputs, outputs), nn.AlphaDropout(0.1))


class Counting(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.BatchNorm1d(inputs, momentum=None), nn.Linear(inputs, outputs))


class Demanding(nn.Linear):
    def __init__(self, inputs, outputs, depths):
        super().__init__(inputs, outputs)


def function(inputs, outputs):
    return nn.Linear(inputs, outputs)
"""
WITH_DROPOUT = {"model._target_": "nets.Residual", "model.rate": 0.2}
NORMED = {"model._target_": "nets.Normed"}


@pytest.fixture(autouse=True)
def _nets(here):
    write(here, nets=NETS)
    path = list(sys.path)
    yield
    sys.modules.pop("nets", None)
    sys.path[:] = path


def runs(settings: dict[str, Any], seeds: Any) -> list[schema.Config]:
    return [with_engine(configured(settings | {"seed": seed})) for seed in seeds]


def values(module: StackModule, row: int) -> dict[str, torch.Tensor]:
    state = module.state(row)
    found = {name: tensor[0] for name, tensor in state.last.parameters.items()}
    return found | {f"{name}/{i}": one[0] for name, all_ in state.last.state.items() for i, one in enumerate(all_)}


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize("settings", [WITH_DROPOUT, NORMED, {"model._target_": "nets.Lazy"}], ids=["a", "b", "c"])
def test_bits_depend_neither_on_the_neighbours_nor_on_the_size_of_the_stack(settings):
    settings = settings | {"optimizer.momentum": 0.9, "optimizer.clip_norm": 1.0, "data.batch_size": 27}
    large, small = stacked(runs(settings, range(5))), stacked(runs(settings, [9, 2]))
    single = stacked(runs(settings, [2]))
    for module, row in ((small, 1), (single, 0)):
        assert module.records[row].history == large.records[2].history
        mine, theirs = values(module, row), values(large, 2)
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("optimizer", [name for name, rule in OPTIMIZERS.items() if not rule.trains_alone])
@pytest.mark.thorough(sample=3)
def test_a_stack_trains_as_lightning_trains_the_module_alone(optimizer, tmp_path):
    settings = NORMED if optimizer == "sgd" else WITH_DROPOUT | {"model.hidden": 8}
    lr = {"sgd": 0.1, "muon": 0.02}.get(optimizer, 0.001)
    given = settings | {"optimizer.name": optimizer, "optimizer.lr": lr, "optimizer.weight_decay": 0.01}
    configs = runs(given, range(2))
    module = stacked(configs)
    single_run.train(replace(configs[1], stack=replace(configs[1].stack, engine="torch")),
                     tmp_path / "alone")  # fmt: skip
    written(module, 1, tmp_path / "stacked")
    mine, theirs = (checkpoint_files.load(tmp_path / place / file_names.LAST) for place in ("stacked", "alone"))
    assert mine["state_dict"].keys() == theirs["state_dict"].keys()
    for name, tensor in mine["state_dict"].items():
        torch.testing.assert_close(tensor, theirs["state_dict"][name], rtol=2e-4, atol=2e-5, msg=name)
    rows = [dict(one) for one in module.records[1].history]
    text = (tmp_path / "alone" / file_names.METRICS).read_text().splitlines()
    alone = dict(zip(text[0].split(","), map(float, text[-1].split(",")), strict=True))
    assert math.isclose(rows[-1]["val/loss"], alone["val/loss"], rel_tol=1e-5)


def test_a_stack_trains_as_a_plain_loop_of_torch():
    [cfg, _] = runs({"model._target_": "nets.Residual"}, range(2))
    module = stacked([cfg, replace(cfg, seed=1)])
    data = of(cfg)
    cls, _ = load("nets.Residual")
    torch.manual_seed(cfg.seed)
    network = cls(data.num_inputs, data.num_classes)
    optimizer = torch.optim.SGD(network.parameters(), lr=cfg.optimizer.lr)
    inputs, labels = data.part("train")
    for epoch in range(cfg.trainer.max_epochs):
        for batch in epoch_orders(len(labels), [cfg.seed], epoch)[0].split(cfg.data.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(values(module, 0)[f"module.{name}"], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("settings", [WITH_DROPOUT, NORMED], ids=["dropout", "buffers"])
def test_a_stack_that_was_interrupted_continues_to_the_bit(settings):
    configs = runs(settings | {"optimizer.name": "adam", "optimizer.lr": 0.01, "trainer.max_epochs": 3}, range(3))
    whole = stacked(configs)
    data = [of(cfg) for cfg in configs]
    begun = train_stack(configs, data, until=1)
    states = [begun.state(row) for row in (2, 0)]
    further = train_stack([configs[2], configs[0]], [data[2], data[0]], states=states)
    for row, other in ((0, 2), (1, 0)):
        mine, theirs = values(further, row), values(whole, other)
        assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


def test_metrics_losses_schedules_and_averages_are_those_of_any_network():
    residual = {"model._target_": "nets.Residual"}
    extras = {"metrics": ["f1", "auroc"], "loss.name": "brier", "optimizer.schedule": "cosine", "ema.decay": 0.9}
    module = stacked(runs(residual | extras, [0, 1]))
    assert {"val/f1", "val/auroc"} <= module.records[0].history[-1].keys()
    pruned = stacked(runs(residual | {"prune.fraction": 0.5}, [0, 1]))
    weights = [one.flatten() for name, one in values(pruned, 0).items() if name.startswith("module.") and one.ndim == 2]
    assert math.isclose((torch.cat(weights) == 0).float().mean(), 0.5, abs_tol=0.01)


def test_the_planner_chooses_the_engine_and_trains_alone_what_vmap_cannot_compute():
    fitting, branching = runs(WITH_DROPOUT, [0]), [configured({"model._target_": "nets.Branching"})]
    assert fitting[0].stack.engine == "vmap"
    assert "vmap cannot compute nets.Branching" in str(cannot_be_stacked(branching[0]))
    assert with_engine(branching[0]).stack.engine == "torch"
    for engine in ("torch", "compiled"):
        with pytest.raises(UserError, match=f"stack.engine={engine} is for mlpexp's own network"):
            with_engine(configured(WITH_DROPOUT | {"stack.engine": engine}))
    with pytest.raises(UserError, match=r"stack.engine=vmap is for networks of your own"):
        with_engine(configured({"stack.engine": "vmap"}))
    configs = [*fitting, with_engine(branching[0])]
    found = plan(configs, [of(cfg) for cfg in configs])
    assert [stack.runs for stack in found.stacks] == [[0]]
    assert list(found.alone) == [1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model._target_": "nets.Noisy"}, "draws random numbers in its forward pass"),
        ({"model._target_": "nets.Functional"}, "draws random numbers in its forward pass"),
        ({"model._target_": "nets.Wrong"}, "its output for 3 samples is (3, 3), but must be (3, 10)"),
        ({"model._target_": "nets.Broken"}, "its forward pass of 64 features fails"),
        ({"model._target_": "nets.Tied"}, "a.weight and b.weight are one tensor"),
        ({"model._target_": "nets.Alpha"}, "use nn.Dropout"),
        ({"model._target_": "nets.Counting"}, "momentum=None"),
        ({"model._target_": "nets.Demanding"}, "needs its argument depths: add model.depths="),
        ({"model._target_": "nets.function"}, "is no class of torch.nn.Module"),
        ({"model._target_": "nets.Missing"}, "has no class Missing"),
        ({"model._target_": "missing.Net"}, "there is no module missing"),
        ({"model._target_": "Net"}, "give module and class"),
        ({"model._target_": "os.system", "model.command": "true"}, "is no network of yours"),
        ({"model._target_": "nets.Residual", "model.hiden": 3}, "has no argument hiden; it has num_inputs"),
        ({"model._target_": "nets.Residual", "model.norm": "layer"}, "has no argument norm"),
        ({"model._target_": "nets.Residual", "model.hidden": "x"}, "cannot be built"),
        ({"model._target_": "nets.Residual", "model.variant": "backprop"}, "model.variant=backprop"),
        ({"model._target_": "nets.Residual", "stack.threads": 2}, "stack.threads=2"),
        ({"model._target_": "nets.Residual", "diagnostics": ["cka"]}, "needs mlpexp's own layers"),
        ({"model._target_": "nets.Residual", "tracking.diagnostics": True}, "needs mlpexp's own layers"),
        ({"model._target_": "nets.Normed", "ema.decay": 0.9}, "ema.decay is not possible"),
        ({"model.source": "x"}, "unknown key 'model.source'"),
    ],
    ids=lambda given: str(list(given.values())[-1]) if isinstance(given, dict) else "",
)
@pytest.mark.thorough(sample=8)
def test_what_cannot_be_trained_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError) as caught:
        configured(settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["Missing", "Demanding", "function", "Broken", "Wrong", "Residual"])
def test_a_wrong_class_is_refused_together_with_all_other_problems(target):
    """One line each: of the class, of a value of the wrong type, of keys that contradict each other."""
    own = {"model._target_": f"nets.{target}"} | ({"model.hidden": "x"} if target == "Residual" else {})
    for others in (
        {"optimizer.lr": -1.0, "monitor": "val/nothing"},
        {"data.fold": 1, "prune.rounds": 3},
    ):
        with pytest.raises(ConfigError) as caught:
            configured(own | others)
        [of_class] = [line for line in caught.value.problems if f"nets.{target}" in line]
        assert "\n" not in of_class
        for key in others:
            assert any(line.startswith((f"{key}=", f"{key} ", f"unknown {key} ")) for line in caught.value.problems)
        assert len(caught.value.problems) == 3


def test_keys_of_mlpexp_that_the_class_has_too_are_its_arguments():
    cfg = configured(NORMED | {"model.width": 5})
    assert cfg.model.arguments == {"width": 5}
    module = cfg.model.network(64, 10).user_module
    assert module is not None
    assert module.shapes["layers.0.weight"] == (5, 64)
    assert chosen(cfg)["model.width"] == 5
    assert "model.depth" not in chosen(cfg)


def test_the_source_of_the_class_is_part_of_the_identity(here):
    before = configured(WITH_DROPOUT)
    assert identity(configured(WITH_DROPOUT), "") == identity(before, "")
    write(here, nets=NETS.replace("nn.SiLU()", "nn.Tanh()"))
    after = configured(WITH_DROPOUT)
    assert identity(after, "") != identity(before, "")
    module = after.model.network(64, 10).user_module
    assert module is not None
    assert any(isinstance(one, nn.Tanh) for one in module.template().modules())  # the present source is what trains
    assert identity(configured(WITH_DROPOUT | {"model.rate": 0.3}), "") != identity(after, "")


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    """The directory of a run of such a network, and the inputs on which it was tested."""
    place = tmp_path_factory.mktemp("trained")
    write(place, nets=NETS)
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.chdir(place)
        patch.setattr(sys, "path", [*sys.path])
        module = stacked(runs(WITH_DROPOUT, range(2)))
        written(module, 0, place / "run")
    sys.modules.pop("nets", None)
    return place / "run", of(module.configs[0]).part("test")[0]


@pytest.fixture
def run(_trained, here):
    """The same run, one's own to spoil."""
    shutil.copytree(_trained[0], here / "run")
    return here / "run"


def test_a_trained_run_is_evaluated_predicted_exported_and_loaded(run, _trained):
    found = evaluate.evaluate(run, embed=False)
    assert found.metrics.acc == run_directory.read_result(run).metrics["test/acc"]
    exported = export.export(run, "torch")
    assert exported.difference < 1e-5
    [stack] = load_stacks([run])
    inputs = _trained[1]
    loaded = TorchMLP.load_from_checkpoint(run / file_names.BEST).eval()
    torch.testing.assert_close(stack.logits(inputs)[0], loaded(inputs), rtol=1e-4, atol=1e-5)
    cls, _ = load("nets.Residual")
    own = cls(64, 10, rate=0.2)
    state = checkpoint_files.load(run / file_names.BEST)["state_dict"]
    own.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    torch.testing.assert_close(own.eval()(inputs), loaded(inputs))


def test_a_module_that_cannot_be_imported_is_named_with_its_line(here):
    write(here, wrong="import json\n\njson.loads('{')\n")  # raised inside a library
    with pytest.raises(
        UserError, match=r"_target_=wrong\.Net cannot be imported: JSONDecodeError: .* \(line 3 of wrong\.py\)"
    ):
        load("wrong.Net")


def test_a_run_whose_class_is_missing_or_has_changed_is_refused(run, here):
    write(here, nets=NETS + "\n# changed\n")
    with pytest.raises(UserError, match="has changed since the run was started"):
        evaluate.evaluate(run, embed=False)
    (here / "nets.py").unlink()
    sys.modules.pop("nets", None)
    with pytest.raises(UserError, match="there is no module nets"):
        predict.predict(run, [here / "new.csv"])


def test_nothing_is_executed_out_of_a_directory_of_runs(run, here, monkeypatch):
    (here / "nets.py").rename(run / "nets.py")
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "path", [str(run), *[path for path in sys.path if path != str(here)]])
    sys.modules.pop("nets", None)
    with pytest.raises(UserError, match="a directory of runs, from which no code is executed"):
        evaluate.evaluate(run, embed=False)
    assert "nets" not in sys.modules


def test_a_recorded_configuration_imports_nothing():
    plain = schema.plain(configured(WITH_DROPOUT))
    sys.modules.pop("nets")
    assert checks.from_plain(plain).model.arguments == {"rate": 0.2}
    assert "nets" not in sys.modules


def test_the_description_is_that_of_the_module():
    layer = UserModule("nets.Normed", '{"width":7}', load("nets.Normed")[1], 4, 3)
    assert list(layer.shapes) == ["sharpness", "mixture", "layers.0.weight", "layers.0.bias", "layers.1.weight",
                                  "layers.1.bias"]  # fmt: skip
    assert set(layer.buffers) == {"frozen", "layers.1.running_mean", "layers.1.running_var"}
