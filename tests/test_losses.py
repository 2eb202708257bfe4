"""Every loss: by hand against autograd, in a stack against alone, a training against a plain loop of torch."""

import itertools
import os
import random
from dataclasses import replace

import pytest
import torch
from conftest import run_script
from scipy import optimize
from torch.nn import functional as F

from mlpexp import data, models
from mlpexp.config import checks
from mlpexp.config.schema import Config
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.data_config import DataConfig
from mlpexp.engine.torch.stacked_losses import make_stacked_loss, slopes_of
from mlpexp.nn.chance_level import chance_message, loss_of_constant, value_chance_message
from mlpexp.nn.losses import LOSSES, LossFunction, batch_mean
from mlpexp.runtime.errors import ConfigError
from mlpexp.store import checkpoint_files, file_names, run_directory

FUNCTIONS = [
    LossFunction(name, smoothing, 0.7)
    for name, entry in LOSSES.items()
    for smoothing in (0.0, 0.2)
    if "classification" in entry.tasks
]
OF_VALUES = [LossFunction(name, 0.0, 0.7) for name, entry in LOSSES.items() if "regression" in entry.tasks]


def named(loss: LossFunction) -> str:
    return f"{loss.name}-{loss.label_smoothing}"


def torchs(loss: LossFunction, outputs, targets):
    """The mean over a batch by what torch offers, written without this project's code."""
    size, smoothing = outputs.shape[-1], loss.label_smoothing
    if loss.name == "cross_entropy":
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)
    if not targets.is_floating_point():
        targets = torch.full(outputs.shape, smoothing / size, dtype=outputs.dtype).scatter_add(
            1, targets[:, None], torch.full((len(targets), 1), 1 - smoothing, dtype=outputs.dtype)
        )
    if loss.name == "brier":
        return F.mse_loss(outputs.softmax(-1), targets, reduction="sum") / len(outputs)
    return {
        "mse": torch.nn.MSELoss(),
        "mae": torch.nn.L1Loss(),
        "huber": torch.nn.HuberLoss(delta=loss.delta),
    }[loss.name](outputs, targets)


def problem(loss, classifies, runs=(), batch=12, size=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    outputs = 2 * torch.randn(*runs, batch, size, generator=generator, dtype=dtype)
    if classifies:
        targets = torch.randint(size, (*runs, batch), generator=generator)
    else:
        targets = torch.randn(*runs, batch, size, generator=generator, dtype=dtype)
    weights = torch.rand(*runs, batch, generator=generator, dtype=dtype) + 0.1
    return outputs, targets, weights


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("runs", [(), (3,)], ids=["alone", "stack"])
@pytest.mark.parametrize(
    ("loss", "classifies"),
    [*((loss, True) for loss in FUNCTIONS), *((loss, False) for loss in OF_VALUES)],
    ids=lambda value: named(value) if isinstance(value, LossFunction) else "classes" if value else "values",
)
def test_gradients_by_hand_are_autograds(loss, classifies, runs, weighted):
    outputs, targets, weights = problem(loss, classifies, runs)
    weights = weights if weighted else None
    outputs.requires_grad_()
    dense = loss.dense(targets, outputs)
    by_hand = loss.by_hand_gradient(outputs.detach(), dense, weights)
    (derived,) = torch.autograd.grad(batch_mean(loss.by_hand(outputs, dense), weights).sum(), outputs)
    torch.testing.assert_close(by_hand, derived, rtol=1e-10, atol=1e-10)
    own = loss.samples(outputs.flatten(0, -2), targets.reshape(-1, 4) if not classifies else targets.reshape(-1))
    torch.testing.assert_close(loss.by_hand(outputs, dense).flatten(), own, rtol=1e-6, atol=1e-6)
    exact = batch_mean(own.unflatten(0, outputs.shape[:-1]), weights).sum()
    (theirs,) = torch.autograd.grad(exact, outputs)
    torch.testing.assert_close(loss.gradient(outputs.detach(), dense, weights), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("loss", FUNCTIONS + OF_VALUES[:0], ids=named)
def test_a_loss_is_that_of_torch_in_float32(loss, size):
    outputs, targets, _ = problem(loss, True, size=max(size, 2), dtype=torch.float32)
    assert loss.samples(outputs, targets).mean().item() == pytest.approx(
        torchs(loss, outputs, targets).item(), rel=1e-6
    )
    if "regression" in loss.entry.tasks and not loss.label_smoothing:
        outputs, targets, _ = problem(loss, False, size=size, dtype=torch.float32)
        ours, theirs = loss.samples(outputs, targets).mean().item(), torchs(loss, outputs, targets).item()
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("batch", [5, 32])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("loss", FUNCTIONS, ids=named)
def test_in_a_stack_a_loss_and_its_gradient_have_the_bits_of_each_run_alone(loss, weighted, batch):
    for classifies, size in [(True, 3), (True, 10), (False, 1), (False, 4)]:
        if not classifies and ("regression" not in loss.entry.tasks or loss.label_smoothing):
            continue
        outputs, targets, weights = problem(loss, classifies, (7,), batch, size, torch.float32)
        gradient, losses = torch.empty_like(outputs), torch.empty(7, batch, 1)
        predictions = torch.empty(7, batch, dtype=torch.int64) if classifies else None
        by_sample = targets.unsqueeze(2) if classifies else targets
        kernel = make_stacked_loss(loss, outputs, gradient)
        kernel.forward(by_sample, losses, predictions)
        kernel.backward(by_sample, slopes_of(weights[None])[0] if weighted else None)
        for run in range(7):
            own = outputs[run].clone().requires_grad_()
            each = loss.samples(own, targets[run])
            mean = (each * weights[run]).sum() / weights[run].sum() if weighted else each.mean()
            (wanted,) = torch.autograd.grad(mean, own)
            assert torch.equal(-losses[run, :, 0], each.detach())
            assert torch.equal(gradient[run], wanted)
            if predictions is not None:
                assert torch.equal(predictions[run], own.argmax(-1))


SETTINGS = "model.width=6 trainer.max_epochs=2 optimizer.lr=0.05 loss.label_smoothing={} stack.engine=torch"


def plain_loop(cfg: Config, loss: LossFunction):
    """The parameters after the training of `cfg` by a bare loop of torch's own."""
    prepared = data.prepare(cfg.data)
    inputs, labels = prepared.part("train")
    start = models.build(cfg, prepared.num_inputs, prepared.num_classes, prepared.description).parameter_values()
    parameters = [tensor.clone().requires_grad_() for tensor in start.values()]
    optimizer = torch.optim.SGD(parameters, lr=cfg.optimizer.lr)
    for epoch in range(cfg.trainer.max_epochs):
        for x, y in Batches(inputs, labels, 32, lambda epoch=epoch: epoch_order(len(labels), cfg.seed, epoch)):
            outputs = F.linear(torch.tanh(F.linear(x, *parameters[:2])), *parameters[2:])
            optimizer.zero_grad()
            torchs(loss, outputs, y).backward()
            optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize(
    ("name", "smoothing", "names"),
    [("iris", 0.1, "cross_entropy,mse,mae,huber,brier"), ("diabetes", 0.0, "mse,mae,huber")],
)
def test_a_sweep_over_losses_and_implementations_trains_what_a_plain_loop_trains(train, here, name, smoothing, names):
    losses, by_hand = names.split(","), itertools.cycle(random.sample(["autograd", "backprop"], 2))
    if "MLPEXP_THOROUGH" in os.environ:
        grid = f"loss.name={names} model.variant=torch_nn,autograd,backprop"
    else:  # each loss in torch's modules, in a stack, and in one of the other implementations
        variants = ",".join([*["torch_nn"] * len(losses), *(next(by_hand) for _ in losses)])
        grid = f"zip(loss.name=[{names},{names}],model.variant=[{variants}])"
    cases = f"data={name} {SETTINGS.format(smoothing)} {grid}"
    ended = train(f"-m {cases} hydra.sweep.dir=s hydra.sweep.subdir=${{hydra.job.num}}".split())
    assert ended.code == 0, ended.err
    wanted = {}
    for place in sorted((here / "s").glob("[0-9]*")):
        content = checkpoint_files.load(place / file_names.LAST)
        cfg, _, _ = checkpoint_files.described(place / file_names.LAST, content)
        loss = cfg.loss_function
        if loss.name not in wanted:
            wanted[loss.name] = plain_loop(replace(cfg, model=replace(cfg.model, variant="torch_nn")), loss)
        for ours, theirs in zip(content["state_dict"].values(), wanted[loss.name], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert sorted(wanted) == sorted(losses)
    for loss in losses:
        alone = f"data={name} {SETTINGS.format(smoothing)} loss.name={loss} tracking.figures=false"
        assert train(f"{alone} hydra.run.dir={loss}").code == 0
        own = run_directory.read_result(here / loss)
        [twin] = [
            path.parent
            for path in (here / "s").glob("*/result.json")
            if run_directory.read_result(path.parent).identity == own.identity
        ]
        assert (twin / file_names.METRICS).read_bytes() == (here / loss / file_names.METRICS).read_bytes()
        assert run_directory.read_result(twin).metrics == own.metrics
        mine, theirs = (checkpoint_files.load(place / file_names.LAST)["state_dict"] for place in (twin, here / loss))
        assert all(torch.equal(mine[key], value) for key, value in theirs.items())


def test_losses_of_values_are_reported_in_the_units_of_the_target(train, here):
    assert train(f"data=diabetes {SETTINGS.format(0)} tracking.figures=false hydra.run.dir=run").code == 0
    prepared = data.prepare(DataConfig(name="diabetes"))
    content = checkpoint_files.load(here / "run" / file_names.BEST)
    w1, b1, w2, b2 = content["state_dict"].values()
    inputs, _ = prepared.part("test")
    outputs = F.linear(torch.tanh(F.linear(inputs, w1, b1)), w2, b2)
    values = prepared.table.labels[prepared.split.train]
    predicted = outputs.double().numpy() * values.std() + values.mean()
    errors = predicted - prepared.table.labels[prepared.split.test]
    found = run_directory.read_result(here / "run").metrics
    assert found["test/loss"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert found["test/rmse"] == pytest.approx((errors**2).mean() ** 0.5, rel=1e-5)


def test_a_run_with_another_loss_is_continued_to_the_bit(train, here):
    settings = f"data=diabetes {SETTINGS.format(0)} loss.name=huber loss.delta=0.5 tracking.figures=false"
    longer = settings.replace("max_epochs=2", "max_epochs=4")
    assert train(f"{longer} hydra.run.dir=whole").code == 0
    assert train(f"{settings} hydra.run.dir=part").code == 0
    ended = train("resume=part trainer.max_epochs=4")
    assert ended.code == 0, ended.err
    assert (here / "part" / file_names.METRICS).read_bytes() == (here / "whole" / file_names.METRICS).read_bytes()


@pytest.mark.parametrize("loss", FUNCTIONS, ids=named)
def test_what_a_constant_costs_is_the_least_over_many_constants(loss):
    counts = [50, 30, 20]
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    history = [{"train/acc": 0.5, "train/loss": 1e9}]
    message = chance_message(history, counts, loss=loss)
    guessed = float(message.rpartition("and ")[2].rstrip(")"))
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 0.5, 1.0):
        for _ in range(100):
            outputs = scale * torch.randn(1, 3, generator=generator, dtype=torch.float64)
            assert loss.samples(outputs.expand(100, 3), labels).mean() >= guessed - 1e-3
    least = optimize.minimize(
        lambda outputs: loss.samples(torch.from_numpy(outputs).expand(100, 3), labels).mean().item(),
        [0.4, 0.3, 0.2], method="Nelder-Mead",
    )  # fmt: skip
    assert least.fun == pytest.approx(guessed, abs=0.005)


def test_the_best_constant_is_the_mean_of_squares_and_the_median_of_absolutes():
    values = torch.randn(101, 1, generator=torch.Generator().manual_seed(1)).exp()
    mse = loss_of_constant(values, LossFunction("mse"))
    assert mse == pytest.approx(values.double().var(correction=0).item(), rel=1e-6)
    mae = loss_of_constant(values, LossFunction("mae"))
    assert mae == pytest.approx((values - values.median()).abs().double().mean().item(), rel=1e-6)
    assert value_chance_message([{"train/loss": mse}], mse) is not None
    assert value_chance_message([{"train/loss": 0.9 * mse}], mse) is None


def test_a_regression_that_learns_nothing_is_at_chance_level(train, here):
    ended = train(
        "data=diabetes optimizer.lr=1e-9 trainer.max_epochs=1 seed=2 tracking.figures=false hydra.run.dir=run"
    )
    assert (ended.code, "no better than guessing" in ended.line) == (0, True)
    assert run_directory.read_result(here / "run").status == "chance"


REFUSED = {
    "loss.name=cross_entropy data=diabetes": "loss.name=cross_entropy is not for values",
    "loss.name=brier data=diabetes": "choose one of mse, mae, huber",
    "loss.label_smoothing=0.1 data=diabetes": "label_smoothing=0.1 spreads classes",
    "loss.delta=2": "loss.delta needs loss.name=huber",
    "loss.name=hinge": "unknown loss 'hinge'",
    "metrics=[acc] data=diabetes": "acc is not defined here",
    "metrics=[rmse]": "rmse is not defined here",
    "metrics=[f2]": "unknown metric 'f2'",
    "metrics=f1": "metrics=f1: give a list, e.g. 'metrics=[f1]'",
    "monitor=val/acc data=diabetes": "monitor=val/rmse",
    "monitor=val/rmse": "monitor=val/rmse is not defined here",
    "metrics=[top5] data=iris": "top5 is 1 for every network with 3 classes",
    "data.class_weight=balanced data=diabetes": "data.class_weight=balanced sets weights of classes",
    "data.label_noise=0.1 data=diabetes": "data.label_noise=0.1 sets noise of classes",
    "data.task=regression": "data=digits is for classification",
    "data.task=classification data=diabetes": "data=diabetes is for regression",
    "data.sample_weight=w": "data.sample_weight=w belongs to data=csv",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_does_not_fit_the_task_is_refused_in_one_line(train, given):
    ended = train(given)
    assert ended.code == 2
    assert REFUSED[given] in ended.line


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        checks.parse({"data": {"name": "diabetes"}, "loss": {"name": "brier", "delta": 3.0}, "metrics": ["f1"]})
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("more", ["loss.name=mse", "loss.name=brier loss.label_smoothing=0.1", "data=diabetes"])
def test_gradcheck_knows_the_loss(more):
    ended = run_script("gradcheck.py", [*more.split(), "model.width=4"])
    assert (ended.code, ended.err) == (0, "")
    assert "gradients agree" in ended.out


POWER_LOSS = """
from mlpexp.extend import loss
@loss(task="regression")
def power(outputs, targets, *, exponent: float = 2.0): return (outputs - targets).abs().pow(exponent).mean(-1)
"""


@pytest.mark.usefixtures("no_plugins_left")
@pytest.mark.parametrize("losses", ["loss.name=mse,mae", "plugins=[own.py] loss.name=power loss.options.exponent=2,3"])
def test_several_losses_are_ranked_by_what_can_be_compared(train, here, losses):
    (here / "own.py").write_text(POWER_LOSS)
    settings = f"data=diabetes {losses} optimizer.lr=0.01 trainer.max_epochs=2"
    ended = train(f"-m {settings} name=s")
    assert "by val/rmse" in ended.out
    report = run_script("report.py", ["multirun/s"])
    assert "Best by validation RMSE" in report.out, report.err
    ended = train(f"-m {settings} name=h halving.rungs=[1]")
    assert (ended.code, "monitor=val/rmse" in ended.line) == (2, True)
    ended = train(f"-m {settings} name=o hydra/sweeper=optuna hydra.sweeper.n_trials=2")
    assert (ended.code, "monitor=val/rmse" in ended.line) == (2, True)
