"""Optimizers alone, against torch and against formulas; runs alone and in a stack, resumed, and by hand."""

import itertools

import pytest
import torch
from conftest import assert_problem
from torch import nn

from mlpexp.config import checks
from mlpexp.config.schema import OptimizerConfig
from mlpexp.data import prepare
from mlpexp.data.data_config import DataConfig
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.optimizers.torch_classes import Lion, Muon, SignSgd
from mlpexp.runtime.errors import ConfigError

SHAPES = [(50, 64), (50,), (17, 50), (17,), (10, 17), (10,)]


def both(optimizer, other, steps=12, shapes=SHAPES):
    """Parameters after steps along the same gradients."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(*shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    optimizers = [optimizer(ours)], other(theirs)
    for _ in range(steps):
        for mine, other_one in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(*mine.shape, generator=generator)
            other_one.grad = mine.grad.clone()
        for one in itertools.chain(*optimizers):
            one.step()
    return ours, theirs


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_muon_on_weight_matrices_below_the_logits_and_adamw_elsewhere(nesterov):
    matrices = [0, 2]
    momentum = {"momentum": 0.9, "nesterov": nesterov}

    def ours(parameters):
        groups = [
            {"params": [p], "is_matrix": i in matrices, "lr": 0.02 if i in matrices else 0.003}
            for i, p in enumerate(parameters)
        ]
        return Muon(groups, weight_decay=0.1, **momentum)

    def theirs(parameters):
        rest = [p for i, p in enumerate(parameters) if i not in matrices]
        muon = torch.optim.Muon([parameters[i] for i in matrices], lr=0.02, weight_decay=0.1, **momentum)
        return muon, torch.optim.AdamW(rest, lr=0.003, weight_decay=0.1)

    for mine, other in zip(*both(ours, theirs), strict=True):
        assert torch.equal(mine, other)


class ByFormula(torch.optim.Optimizer):
    """Lion and signSGD as their papers write them."""

    def __init__(self, parameters, kind, lr, decay, **settings):
        super().__init__(parameters, {"lr": lr})
        self.kind, self.lr, self.decay, self.settings = kind, lr, decay, settings
        self.means = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self):
        for p, m in zip(self.param_groups[0]["params"], self.means, strict=True):
            if self.kind == "lion":
                b1, b2 = self.settings["betas"]
                update = torch.sign(b1 * m + (1 - b1) * p.grad) + self.decay * p
                m.copy_(b2 * m + (1 - b2) * p.grad)
            else:
                m.copy_(self.settings["momentum"] * m + p.grad + self.decay * p)
                update = torch.sign(m)
            p.sub_(self.lr * update)


@pytest.mark.parametrize(
    ("cls", "kind", "settings"),
    [
        (Lion, "lion", {"betas": (0.9, 0.99)}),
        (Lion, "lion", {"betas": (0.95, 0.98)}),
        (SignSgd, "signsgd", {"momentum": 0.0}),
        (SignSgd, "signsgd", {"momentum": 0.9}),
    ],
)
def test_lion_and_signsgd_are_what_their_papers_write(cls, kind, settings):
    ours, theirs = both(
        lambda p: cls(p, lr=0.01, weight_decay=0.1, **settings), lambda p: [ByFormula(p, kind, 0.01, 0.1, **settings)]
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_key_that_the_optimizer_does_not_read_is_refused_with_the_ones_that_do(name):
    values = {"momentum": 0.9, "betas": [0.8, 0.9], "eps": 1e-6, "alpha": 0.9, "max_iter": 3, "adamw_lr": 0.1}
    for key, value in values.items():
        optimizer = {"name": name, key: value}
        if key in OPTIMIZERS[name].keys:
            assert checks.parse({"optimizer": optimizer}).optimizer.name == name
        else:
            with pytest.raises(ConfigError, match=rf"^optimizer\.{key} needs optimizer.name="):
                checks.parse({"optimizer": optimizer})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": {"name": "lbfgs", "weight_decay": 0.1}}, "has no weight decay"),
        ({"optimizer": {"decay": "decoupled"}}, "needs a weight decay"),
        ({"optimizer": {"decay_bias": False}}, "needs a weight decay"),
        ({"optimizer": {"name": "muon", "nesterov": True}}, "needs momentum"),
        ({"optimizer": {"name": "muon"}, "model": {"depth": 0}}, "at least model.depth=1"),
        ({"optimizer": {"name": "muon"}, "model": {"parametrization": "mup"}}, "no rule for optimizer.name=muon"),
        ({"optimizer": {"name": "adam", "betas": [0.9, 1.0]}}, "betas"),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "betas"),
        ({"optimizer": {"name": "adam", "betas": 0.9}}, "betas"),
    ],
)
def test_contradictions_are_named(given, message):
    assert_problem(given, message)


# ---------------------------------------------------------------- trained


COMMON = (
    "stack.engine=torch data=iris trainer.max_epochs=2 model.width=5 model.depth=2 "
    "tracking.figures=false tracking.tensorboard=false"
)
SETTINGS = [  # the engine's own tests compare the steps of all optimizers
    "optimizer=nadam",
    "optimizer=muon",
    "optimizer=adam optimizer.betas=[0.8,0.95] optimizer.eps=1e-5 optimizer.weight_decay=0.1 "
    "optimizer.decay_bias=false",
    "optimizer=lion optimizer.weight_decay=0.1 optimizer.decay=coupled optimizer.decay_bias=false "
    "optimizer.schedule=inverse_sqrt",
    "optimizer.schedule=plateau optimizer.patience=0 optimizer.step_factor=0.5 optimizer.lr=3 optimizer.warmup_steps=2",
    "data.batch_size=full optimizer.schedule=cosine optimizer.warmup_steps=1",
]


def weights(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.thorough(sample=2)
def test_a_run_of_a_stack_has_the_checkpoint_of_the_run_alone_and_resumes_to_its_bits(settings, train, here):
    sweep = train(f"-m {COMMON} {settings} seed=1,2 hydra.sweep.dir=s hydra.sweep.subdir='${{seed}}'")
    alone = train(f"{COMMON} {settings} seed=1 hydra.run.dir=alone")
    assert (sweep.code, alone.code) == (0, 0), sweep.err + alone.err
    one, other = (weights(here / place / "checkpoints/last.ckpt") for place in ("s/1", "alone"))
    for name, tensor in other["state_dict"].items():
        assert torch.equal(one["state_dict"][name], tensor), name
    for mine, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert mine["param_groups"] == theirs["param_groups"]
        assert mine["state"].keys() == theirs["state"].keys()
        for i, state in theirs["state"].items():
            assert mine["state"][i].keys() == state.keys()
            assert all(torch.equal(mine["state"][i][key], value) for key, value in state.items()), i
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert one["loops"] == other["loops"]
    if "cosine" in settings:
        return  # it depends on the length
    longer = train(f"{COMMON} {settings} seed=1 trainer.max_epochs=3 hydra.run.dir=longer")
    resumed = train("resume=s/1 trainer.max_epochs=3")
    assert (longer.code, resumed.code) == (0, 0), longer.err + resumed.err
    one, other = (weights(here / place / "checkpoints/last.ckpt") for place in ("s/1", "longer"))
    assert all(torch.equal(one["state_dict"][name], tensor) for name, tensor in other["state_dict"].items())


def test_lbfgs_trains_as_in_a_plain_loop_and_alone_beside_a_stack(train, here):
    settings = f"{COMMON} data.split=none data.batch_size=150 data.shuffle=false optimizer.lr=0.5"
    done = train(
        f"-m {settings} 'optimizer.name=lbfgs,sgd' seed=1,2 hydra.sweep.dir=s hydra.sweep.subdir='${{hydra.job.num}}'"
    )
    assert done.code == 0, done.err
    assert "2 of them train alone: optimizer.name=lbfgs" in done.out
    content = weights(here / "s/0/checkpoints/last.ckpt")
    optimizer = {"lr": 0.5, "name": "lbfgs"}
    cfg = checks.parse({"seed": 1, "model": {"width": 5, "depth": 2}, "optimizer": optimizer})
    data = prepare(DataConfig(name="iris", split="none", batch_size=150, shuffle=False))
    module = TorchMLP(cfg, 4, 3)
    optimizer = torch.optim.LBFGS(list(module.parameters()), lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(data.inputs), data.labels)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(content["state_dict"][name], tensor, rtol=1e-5, atol=1e-6)
    resumed = train("resume=s/0 trainer.max_epochs=3")
    assert resumed.code == 0, resumed.err
    optimizer.step(closure)
    content = weights(here / "s/0/checkpoints/last.ckpt")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(content["state_dict"][name], tensor, rtol=1e-5, atol=1e-6)


def test_a_sweep_mixes_optimizers_and_their_settings(train, here):
    done = train(
        f"-m {COMMON} optimizer=adam,nadam optimizer.betas=[0.9,0.99],[0.5,0.9] optimizer.eps=1e-8,1e-4 "
        "optimizer.decay=null,coupled,decoupled optimizer.weight_decay=0.01 hydra.sweep.dir=s"
    )
    assert done.code == 0, done.err
    assert "in 2 stacks" in done.out


def test_decay_by_hand_is_that_of_torch(train, here):
    for variant in ("torch_nn", "autograd", "backprop"):
        done = train(
            f"{COMMON} optimizer.weight_decay=0.1 optimizer.decay=decoupled optimizer.decay_bias=false "
            f"optimizer.momentum=0.5 model.variant={variant} hydra.run.dir={variant}"
        )
        assert done.code == 0, done.err
    one = weights(here / "torch_nn/checkpoints/last.ckpt")["state_dict"]
    for variant in ("autograd", "backprop"):
        other = weights(here / variant / "checkpoints/last.ckpt")["state_dict"]
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6)


def test_torchs_defaults_are_the_defaults_of_the_registry():
    for name, rule in OPTIMIZERS.items():
        optimizer = rule.torch_class()([nn.Parameter(torch.ones(2, 2))])
        for key, value in rule.defaults.items():
            assert optimizer.defaults[key] == value, (name, key)
        settings = rule.arguments(OptimizerConfig(name=name))
        assert all(value is not None for key, value in settings.items() if key != "line_search_fn")
