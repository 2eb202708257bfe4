"""Clipped gradients and averaged weights: per run of a stack as in a plain loop of torch, in every file of a run."""

import itertools
import json

import pytest
import torch
from conftest import assert_problem
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from mlpexp.config import checks
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.gradient_clipping import clip_, clip_run_
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.optimizers import UpdateSettings
from mlpexp.nn.schedules import rate_factor
from mlpexp.store import checkpoint_files

torch.set_num_threads(1)
INF, NAN = float("inf"), float("nan")


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_gradients_are_clipped_by_each_runs_own_norm_to_the_bits_of_torch():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, *shape, generator=generator) * 3 for shape in ((17, 33), (17,), (4, 17), (4,))]
    gradients[0][3] *= INF
    gradients[1][4, 2] = NAN
    norms, values = f64(0.5, INF, 1e3, 1.0, INF), f64(INF, 0.1, 2.0, INF, 0.5)
    for limits in ({"norms": norms}, {"values": values}, {"norms": norms, "values": values}):
        ours = [one.clone() for one in gradients]
        clip_(ours, **limits)
        for run in range(5):
            alone = [nn.Parameter(torch.zeros_like(one[run])) for one in gradients]
            for parameter, one in zip(alone, gradients, strict=True):
                parameter.grad = one[run].clone()
            if "norms" in limits and norms[run] < INF:
                nn.utils.clip_grad_norm_(alone, norms[run].item())
            if "values" in limits and values[run] < INF:
                nn.utils.clip_grad_value_(alone, values[run].item())
            for parameter, one in zip(alone, ours, strict=True):
                assert torch.equal(parameter.grad.nan_to_num(7.0), one[run].nan_to_num(7.0))


class Network(nn.Module):
    def __init__(self, start, run):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 9), nn.Linear(9, 3)])
        self.load_state_dict({name: values[run].clone() for name, values in start.items()})

    def forward(self, x):
        return self.layers[1](torch.tanh(self.layers[0](x)))


def test_averages_in_a_stack_are_those_of_torchs_averaged_model():
    network = multilayer_perceptron(6, [9], 3, "tanh")
    generator = torch.Generator().manual_seed(0)
    start = {name: torch.randn(5, *shape, generator=generator) for name, shape in network.shapes.items()}
    inputs, labels = torch.randn(20, 6, generator=generator), torch.randint(3, (20,), generator=generator)
    decay, first = f64(0.9, 0.5, NAN, NAN, NAN), f64(INF, INF, 1, 2, INF)
    update = UpdateSettings(extras={"ema_decay": decay, "swa_start": first, "clip_norm": f64(0.1, INF, 0.3, INF, INF)})
    engine = Engine(networks=[network] * 5, parameters=start, update=update)
    for _ in range(4):
        engine.train_epoch(Epoch(inputs, labels, torch.arange(20), 8, torch.full((5,), 0.3, dtype=torch.float64)))
        evaluated = engine.evaluate(inputs, labels)
    for run in range(5):
        model = Network(start, run)
        ema = get_ema_multi_avg_fn(decay[run].item() if run < 2 else 0.9)
        average = AveragedModel(model, multi_avg_fn=ema if run < 2 else get_swa_multi_avg_fn())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for epoch in range(4):
            for batch in torch.arange(20).split(8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
                if run in (0, 2):
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1 if run == 0 else 0.3)
                optimizer.step()
                if run < 2:
                    average.update_parameters(model)
            if epoch >= first[run]:
                average.update_parameters(model)
        expected = average if run < 4 else model
        losses = nn.functional.cross_entropy(expected(inputs), labels, reduction="none").detach()
        assert torch.equal(evaluated.losses[run], losses)
        for name, tensor in model.state_dict().items():
            assert torch.equal(engine.parameters[name][run], tensor)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": {"clip_norm": 1.0, "clip_value": 1.0}}, "clip_value clip the gradient"),
        (
            {"optimizer": {"clip_norm": 1.0}, "trainer": {"gradient_clip_val": 1.0}},
            "gradient_clip_val clip",
        ),
        ({"optimizer": {"clip_norm": 1.0, "name": "lbfgs"}}, "is not possible with optimizer.name=lbfgs"),
        ({"optimizer": {"clip_norm": 0.0}}, "must be > 0"),
        ({"ema": {"decay": 1.0}}, "must be < 1"),
        ({"ema": {"decay": 0.9}, "swa": {"start": 1}}, "leave one out"),
        ({"ema": {"decay": 0.9}, "model": {"norm": "batch"}}, "not possible together"),
        ({"swa": {"start": 10}}, "must be < trainer.max_epochs=10"),
        ({"swa": {"lr": 0.1}}, "swa.lr needs swa.start"),
        ({"swa": {"start": 2, "anneal_epochs": 3}}, "swa.anneal_epochs needs swa.lr"),
        ({"swa": {"start": 2, "lr": 0.1}, "optimizer": {"schedule": "plateau"}}, "not possible together"),
    ],
)
def test_contradictions_are_named(given, message):
    assert_problem(given, message)


COMMON = (
    "stack.engine=torch data=iris trainer.max_epochs=3 model.width=5 optimizer.momentum=0.9 "
    "tracking.figures=false tracking.tensorboard=false"
)


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize(
    "settings",
    ["ema.decay=0.8 optimizer.clip_norm=0.5", "swa.start=1 swa.lr=0.3 swa.anneal_epochs=2 optimizer.clip_value=0.05"],
)
def test_a_run_with_averages_has_the_same_files_alone_in_a_stack_and_resumed(settings, train, here):
    averaging, clipping = settings.split(maxsplit=1)
    key, _, value = averaging.partition("=")
    other = "null" if key == "ema.decay" else "2"
    sweep = train(
        f"-m {COMMON} {key}={other},{value} {clipping} hydra.sweep.dir=s hydra.sweep.subdir='${{hydra.job.num}}'"
    )
    alone = train(f"{COMMON} {settings} hydra.run.dir=alone")
    assert (sweep.code, alone.code) == (0, 0), sweep.err + alone.err
    stacked = here / "s/1"
    for name in ("best", "last"):
        one, other = (checkpoint_files.load(place / f"checkpoints/{name}.ckpt") for place in (stacked, here / "alone"))
        assert one.keys() == other.keys()
        for part in ("state_dict", *(["training_state_dict"] if "training_state_dict" in one else [])):
            assert all(torch.equal(one[part][n], tensor) for n, tensor in other[part].items())
    assert "training_state_dict" in other
    assert any(not torch.equal(other["state_dict"][n], t) for n, t in other["training_state_dict"].items())
    assert (stacked / "metrics.csv").read_text() == (here / "alone/metrics.csv").read_text()
    results = [json.loads((place / "result.json").read_text())["metrics"] for place in (stacked, here / "alone")]
    assert results[0] == results[1]
    longer = train(f"{COMMON} {settings} trainer.max_epochs=5 hydra.run.dir=longer")
    resumed = train("resume=s/1 trainer.max_epochs=5")
    assert (longer.code, resumed.code) == (0, 0), longer.err + resumed.err
    one, other = (checkpoint_files.load(place / "checkpoints/last.ckpt") for place in (stacked, here / "longer"))
    for part in ("state_dict", "training_state_dict"):
        assert all(torch.equal(one[part][n], tensor) for n, tensor in other[part].items())
    assert (stacked / "metrics.csv").read_text() == (here / "longer/metrics.csv").read_text()


def test_the_implementations_by_hand_clip_and_average_as_torch_does(train, here):
    for variant, settings in itertools.product(("torch_nn", "backprop"), ("ema.decay=0.8", "swa.start=1")):
        name = f"{variant}-{settings[:3]}"
        done = train(f"{COMMON} {settings} optimizer.clip_norm=0.5 model.variant={variant} hydra.run.dir={name}")
        assert done.code == 0, done.err
    for kind in ("ema", "swa"):
        one, other = (
            checkpoint_files.load(here / f"{variant}-{kind}/checkpoints/last.ckpt")
            for variant in ("torch_nn", "backprop")
        )
        for name, tensor in one["state_dict"].items():
            torch.testing.assert_close(other["state_dict"][name], tensor, rtol=1e-4, atol=1e-6)


def test_a_run_that_does_not_clip_keeps_its_gradients():
    gradient = torch.full((3,), 100.0)
    clip_run_([gradient], None, None)
    assert gradient.eq(100).all()


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_the_learning_rate_of_averaging_is_that_of_torchs_swalr(schedule, strategy):
    cfg = checks.parse(
        {
            "optimizer": {"lr": 0.2, "schedule": schedule, "step_epochs": 1, "step_factor": 0.5}
            if schedule == "step"
            else {"lr": 0.2},
            "swa": {"start": 3, "lr": 0.05, "anneal_epochs": 4, "anneal_strategy": strategy},
            "trainer": {"max_epochs": 10},
        }
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5 if schedule == "step" else 1.0)
    averaging = None
    for epoch in range(10):
        ours = 0.2 * rate_factor(cfg.optimizer, epoch, 10, cfg.swa)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), epoch
        optimizer.step()
        if epoch < 2:
            scheduler.step()
        else:  # the first step comes before the first epoch that is averaged
            if averaging is None:
                averaging = SWALR(optimizer, 0.05, anneal_epochs=4, anneal_strategy=strategy)
            averaging.step()


def test_every_implementation_and_a_stack_have_the_learning_rate_of_averaging(train, here):
    settings = "swa.start=1 swa.lr=0.01 swa.anneal_epochs=1"
    for variant in ("torch_nn", "backprop"):
        assert train(f"{COMMON} {settings} model.variant={variant} hydra.run.dir={variant}").code == 0
    assert train(f"{COMMON} swa.start=1 hydra.run.dir=schedule").code == 0
    one, other, without = (
        checkpoint_files.load(here / f"{place}/checkpoints/last.ckpt") for place in ("torch_nn", "backprop", "schedule")
    )
    assert one["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.01)
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], tensor, rtol=1e-4, atol=1e-6)
        assert not torch.equal(without["state_dict"][name], tensor)
