"""data.class_weight=balanced: scikit-learn's weights, torch's weighted cross-entropy, in all three variants."""

import csv
import math

import numpy as np
import pytest
import torch
from conftest import run_script
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from mlpexp import data, models
from mlpexp.config import checks
from mlpexp.config.schema import Config, DataConfig
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.nn import chance_level, losses
from mlpexp.runtime.errors import ConfigError
from mlpexp.store import checkpoint_files, file_names, run_directory

VARIANTS = ("torch_nn", "autograd", "backprop")
# 569 samples, 63 % of them of one class
RUN = "data=breast_cancer trainer.max_epochs=2 model.width=6 tracking.figures=false tracking.diagnostics=false"
WEIGHED = DataConfig(name="breast_cancer", class_weight="balanced")


def sklearns(labels):
    labels = labels.numpy()
    return torch.tensor(compute_class_weight("balanced", classes=np.arange(2), y=labels), dtype=torch.float32)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_weights_are_scikit_learns_of_the_training_part(noise):
    prepared = data.prepare(DataConfig(name="breast_cancer", class_weight="balanced", label_noise=noise))
    found = torch.tensor(prepared.description.class_weights)
    assert torch.equal(found, sklearns(prepared.part("train")[1]))
    assert data.prepare(DataConfig(name="breast_cancer")).description.class_weights is None


@pytest.mark.parametrize("runs_axis", [(), (3,)])
def test_the_gradient_by_hand_is_that_of_torchs_weighted_loss(runs_axis):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*runs_axis, 16, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (*runs_axis, 16), generator=generator)
    weights = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
    targets = F.one_hot(labels, 4).double()
    by_hand = losses.cross_entropy_gradient(logits.detach(), targets, weights[labels])
    ours = losses.batch_mean(losses.cross_entropy(logits, targets), weights[labels]).sum()
    pairs = zip(logits.reshape(-1, 16, 4), labels.reshape(-1, 16), strict=True)
    torchs = sum(F.cross_entropy(*pair, weight=weights) for pair in pairs)
    assert ours.item() == pytest.approx(torchs.item(), abs=1e-6)  # the 1e-8 in our logarithm
    (own,) = torch.autograd.grad(ours, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(torchs, logits)
    torch.testing.assert_close(by_hand, own, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(by_hand, theirs, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def plain_torch():
    """Weights and weighted training loss of each epoch by a bare loop of torch's own."""
    prepared = data.prepare(WEIGHED)
    inputs, labels = prepared.part("train")
    weight = sklearns(labels)
    start = models.build(Config(model=checks.parse({"model": {"width": 6}}).model), 30, 2).parameter_values()
    parameters = [tensor.clone().requires_grad_() for tensor in start.values()]
    optimizer, losses = torch.optim.SGD(parameters, lr=0.1), []
    for epoch in range(2):
        summed = weighed = 0.0
        for x, y in Batches(inputs, labels, 32, lambda epoch=epoch: epoch_order(len(labels), 0, epoch)):
            logits = F.linear(torch.tanh(F.linear(x, *parameters[:2])), *parameters[2:])
            loss = F.cross_entropy(logits, y, weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            summed, weighed = summed + loss.item() * weight[y].sum().item(), weighed + weight[y].sum().item()
        losses.append(summed / weighed)
    return parameters, losses


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_that_of_torchs_own_weighted_cross_entropy(train, here, plain_torch, variant):
    assert train(f"hydra.run.dir=run {RUN} data.class_weight=balanced model.variant={variant}").code == 0
    content = checkpoint_files.load(here / "run" / file_names.LAST)
    parameters, losses = plain_torch
    for ours, theirs in zip(content["state_dict"].values(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-6)
    with (here / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(losses, rel=1e-5)
    # validation counts all samples alike
    x, y = data.prepare(WEIGHED).part("val")
    w1, b1, w2, b2 = content["state_dict"].values()
    unweighted = F.cross_entropy(F.linear(torch.tanh(F.linear(x, w1, b1)), w2, b2), y).item()
    assert float(rows[-1]["val/loss"]) == pytest.approx(unweighted, rel=1e-5)
    noted = checkpoint_files.described_data(here / "run" / file_names.LAST, content).class_weights
    assert noted == data.prepare(WEIGHED).description.class_weights


OPTIMIZERS = ["optimizer.momentum=0,0.9 optimizer.weight_decay=0.01", "optimizer=adam optimizer.lr=0.01"]


@pytest.mark.parametrize("more", OPTIMIZERS)
def test_in_a_stack_such_runs_have_the_bits_of_the_run_alone(train, here, more):
    """Beside unweighted ones, with other labels, parts and batches, of which the last is smaller."""
    cases = f"{RUN} model.activation=relu data.batch_size=30 {more} data.label_noise=0,0.2 data.seed=0,3"
    names = "name=s hydra.sweep.subdir=${hydra.job.num} stack.engine=torch"
    ended = train(f"-m {names} {cases} data.class_weight=null,balanced".split())
    assert ended.code == 0, ended.err
    assert "alone" not in ended.out + ended.err
    assert "in 1 stack (torch engine)\n" in ended.out
    alone = cases.replace("=0,", "=")
    assert train(f"hydra.run.dir=run {alone} data.class_weight=balanced").code == 0
    wanted = run_directory.read_result(here / "run")
    found = {
        run_directory.read_result(path.parent).identity: path.parent
        for path in (here / "multirun/s").glob("*/result.json")
    }
    assert len(found) == (16 if "0.9" in more else 8)
    assert run_directory.read_result(found[wanted.identity]).metrics == wanted.metrics
    mine, theirs = ((place / file_names.METRICS).read_text() for place in (found[wanted.identity], here / "run"))
    assert mine == theirs
    for name in (file_names.BEST, file_names.LAST):
        mine, theirs = (checkpoint_files.load(place / name) for place in (found[wanted.identity], here / "run"))
        assert all(torch.equal(mine["state_dict"][key], value) for key, value in theirs["state_dict"].items())
        assert mine["hyper_parameters"]["data"] == theirs["hyper_parameters"]["data"]


def test_gradcheck_knows_the_weights():
    ended = run_script("gradcheck.py", ["data=breast_cancer", "data.class_weight=balanced", "model.width=4"])
    assert (ended.code, ended.err) == (0, "")
    assert "gradients agree" in ended.out


def test_what_guessing_loses_is_weighted_too():
    history = [{"train/loss": 0.6, "train/acc": 0.8}]  # worse than naming the commonest class, and yet learned
    assert chance_level.chance_message(history, [90, 10]) is not None
    assert chance_level.chance_message(history, [90, 10], [100 / 180, 100 / 20]) is None
    assert (
        chance_level.chance_message([{"train/loss": math.log(2), "train/acc": 0.5}], [90, 10], [100 / 180, 5.0])
        is not None
    )


def test_another_word_is_refused():
    with pytest.raises(ConfigError, match=r"choose one of balanced, e\.g\. data\.class_weight=balanced"):
        checks.parse({"data": {"class_weight": "even"}})


def test_a_network_whose_weights_are_not_known_is_not_built():
    with pytest.raises(ValueError, match=r"data\.class_weight"):
        models.build(Config(data=WEIGHED), 30, 2)
