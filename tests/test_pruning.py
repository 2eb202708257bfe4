"""Pruning by magnitude and lottery tickets: against torch, alone and in a stack, resumed, in every file of a run."""

import csv
import json
import os
import signal
import time

import pytest
import torch
from conftest import assert_problem
from torch import nn
from torch.nn.utils import prune as torch_prune

from mlpexp.config import checks
from mlpexp.data import prepare
from mlpexp.data.batches import epoch_order
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.pruning import prune_, pruned_share
from mlpexp.store import checkpoint_files
from mlpexp.training.recorder import Recorder


def test_the_smallest_weights_of_all_matrices_are_removed_as_by_torch():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(7, 5, generator=generator), torch.randn(3, 7, generator=generator)]
    masks = [torch.ones_like(weight) for weight in weights]
    modules = [nn.Linear(5, 7), nn.Linear(7, 3)]
    for module, weight in zip(modules, weights, strict=True):
        module.weight.data.copy_(weight)
    settings = checks.parse({"prune": {"fraction": 0.8, "rounds": 3}, "trainer": {"max_epochs": 8}}).prune
    gone = 0
    for rounds in (1, 2, 3):
        share = pruned_share(settings.fraction, settings.rounds, rounds)
        assert share == pytest.approx(1 - 0.2 ** (rounds / 3))
        prune_(weights, masks, share)
        count = round(share * 56) - gone
        gone += count
        torch_prune.global_unstructured(
            [(module, "weight") for module in modules], pruning_method=torch_prune.L1Unstructured, amount=count
        )
        for module, weight, mask in zip(modules, weights, masks, strict=True):
            assert torch.equal(module.weight_mask, mask)
            assert torch.equal(module.weight.detach(), weight)
    assert gone == round(0.8 * 56)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prune": {"rounds": 2}}, "prune.rounds needs prune.fraction"),
        ({"prune": {"fraction": 0.5, "rewind": "initial"}, "optimizer": {"name": "lbfgs"}}, "choose one of sgd"),
        ({"prune": {"fraction": 0.5, "rounds": 2, "every": 2, "rewind": 3}}, "must be <= 2"),
        ({"prune": {"fraction": 0.5, "rewind": 1}, "model": {"norm": "batch"}}, "choose model.norm=layer"),
        ({"prune": {"fraction": 0.5, "rewind": 0}}, "must be >= 1, or initial; e.g. prune.rewind=initial"),
        ({"prune": {"fraction": 0.5, "rewind": "end"}}, "is neither a whole number nor initial"),
        ({"data": {"batch_size": "all"}}, "is neither a whole number nor full"),
        ({"prune": {"fraction": 0.5, "rounds": 2, "every": 5}}, "must be < trainer.max_epochs=10"),
        ({"prune": {"fraction": 0.5}, "trainer": {"max_epochs": 1}}, "must be < trainer.max_epochs=1"),
        ({"prune": {"fraction": 0.5}, "ema": {"decay": 0.5}}, "exclude each other"),
        ({"prune": {"fraction": 1.0}}, "must be"),
    ],
)
def test_contradictions_are_named(given, message):
    assert_problem(given, message)


COMMON = (
    "stack.engine=torch data=iris trainer.max_epochs=6 model.width=8 optimizer.momentum=0.9 "
    "optimizer.weight_decay=0.01 tracking.figures=false tracking.tensorboard=false prune.rounds=2 prune.every=2"
)


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    "settings",
    [
        "prune.rewind=initial optimizer.clip_norm=0.5 model.norm=batch",
        "optimizer=adam",
        "prune.rewind=1 optimizer.name=nadam",
    ],
)
def test_a_pruned_run_has_the_same_files_alone_in_a_stack_and_resumed(settings, train, here):
    common = COMMON if "adam" not in settings else COMMON.replace("optimizer.momentum=0.9 ", "optimizer.lr=0.01 ")
    directories = "hydra.sweep.dir=s hydra.sweep.subdir='${hydra.job.num}'"
    sweep = train(f"-m {common} {settings} prune.fraction=0.5,0.9 {directories}")
    alone = train(f"{common} {settings} prune.fraction=0.9 hydra.run.dir=alone")
    assert (sweep.code, alone.code) == (0, 0), sweep.err + alone.err
    for name in ("best", "last"):
        one, other = (checkpoint_files.load(here / place / f"checkpoints/{name}.ckpt") for place in ("s/1", "alone"))
        assert one.keys() == other.keys()
        for part in ("state_dict", "masks"):
            assert one[part].keys() == other[part].keys()
            assert all(torch.equal(one[part][key], tensor) for key, tensor in other[part].items())
        total = sum(mask.numel() for mask in one["masks"].values())
        kept = sum(mask.sum() for mask in one["masks"].values())
        assert kept == total - round(0.9 * total)
        assert all(one["state_dict"][key][mask == 0].eq(0).all() for key, mask in one["masks"].items())
    assert (here / "s/1/metrics.csv").read_text() == (here / "alone/metrics.csv").read_text()
    with (here / "alone/metrics.csv").open() as file:
        column = [float(row["train/sparsity"]) for row in csv.DictReader(file)]
    assert column[:2] == [0, 0]
    assert column[2:] == pytest.approx([1 - 0.1**0.5] * 2 + [0.9] * 2, abs=0.01)
    result = json.loads((here / "alone/result.json").read_text())
    assert result["epoch"] >= 4
    assert result["metrics"]["train/sparsity"] == column[-1]
    longer = train(f"{common} {settings} prune.fraction=0.9 trainer.max_epochs=7 hydra.run.dir=longer")
    resumed = train("resume=s/1 trainer.max_epochs=7")
    assert (longer.code, resumed.code) == (0, 0), longer.err + resumed.err
    one, other = (checkpoint_files.load(here / place / "checkpoints/last.ckpt") for place in ("s/1", "longer"))
    assert all(torch.equal(one["state_dict"][key], tensor) for key, tensor in other["state_dict"].items())


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.01),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, lr=0.01, weight_decay=0.01),
}


@pytest.mark.parametrize(("rewind", "name"), [("initial", "sgd"), ("1", "sgd"), ("2", "adam"), ("initial", "nadam")])
def test_a_lottery_ticket_begins_again_at_its_earlier_weights_with_a_new_optimizer(rewind, name, train, here):
    given = COMMON if name == "sgd" else COMMON.replace("optimizer.momentum=0.9", "optimizer.lr=0.01")
    first = train(f"{given} optimizer.name={name} prune.fraction=0.9 prune.rewind={rewind} hydra.run.dir=a")
    assert first.code == 0, first.err
    ours = checkpoint_files.load(here / "a/checkpoints/last.ckpt")
    cfg = checks.parse({"data": {"name": "iris"}, "model": {"width": 8}, "optimizer": {}})
    data = prepare(cfg.data)
    inputs, labels = data.part("train")
    module = TorchMLP(cfg, 4, 3)
    initial = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    optimizer = OPTIMIZERS[name](module.parameters())
    for epoch in range(6):
        if str(epoch) == rewind:
            initial = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        if epoch in (2, 4):
            matrices = ["layers.0.weight", "layers.1.weight"]
            flat = torch.cat([module.state_dict()[key].abs().flatten() for key in matrices])
            count = round((1 - 0.1 ** (epoch / 4)) * len(flat))
            threshold = flat.sort().values[count - 1]
            masks = {key: (module.state_dict()[key].abs() > threshold).float() for key in matrices}
            module.load_state_dict({key: tensor * masks.get(key, 1.0) for key, tensor in initial.items()})
            optimizer = OPTIMIZERS[name](module.parameters())
        for batch in epoch_order(len(labels), 0, epoch).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()
            if epoch >= 2:
                for key, mask in masks.items():
                    module.get_parameter(key).grad.mul_(mask)
            optimizer.step()
            if epoch >= 2:
                for key, mask in masks.items():
                    module.get_parameter(key).data.mul_(mask)
    for key, tensor in module.state_dict().items():
        torch.testing.assert_close(ours["state_dict"][key], tensor, rtol=1e-5, atol=1e-6)


def test_a_run_that_is_stopped_between_two_rewindings_continues_to_the_same_bits(train, here, monkeypatch):
    settings = f"{COMMON} prune.fraction=0.9 prune.rewind=1 optimizer.name=adam".replace("optimizer.momentum=0.9 ", "")
    whole = train(f"{settings} hydra.run.dir=whole")
    assert whole.code == 0, whole.err

    def stop(recorder, trainer, *_):
        if trainer.current_epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", stop)
        assert train(f"{settings} hydra.run.dir=run").code == 143
    kept = checkpoint_files.load(here / "run/checkpoints/last.ckpt")
    assert kept["rewound"].keys() == kept["state_dict"].keys()
    resumed = train("resume=run")
    assert resumed.code == 0, resumed.err
    assert (here / "run/metrics.csv").read_text() == (here / "whole/metrics.csv").read_text()
    halved = train(f"-m {settings} seed=0,1 halving.rungs=[3] halving.factor=2 name=s")
    assert halved.code == 0, halved.err
    [winner] = [path for path in (here / "multirun/s").glob("*seed=*") if len(rows(path)) == 6]
    seed = winner.name.partition("seed=")[2][0]
    assert train(f"{settings} seed={seed} hydra.run.dir=alone").code == 0
    assert rows(winner) == rows(here / "alone")


def rows(place):
    with (place / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_implementation_by_hand_prunes_as_torch_does(train, here):
    for variant in ("torch_nn", "backprop"):
        done = train(
            f"{COMMON} prune.fraction=0.9 prune.rewind=initial model.variant={variant} hydra.run.dir={variant}"
        )
        assert done.code == 0, done.err
    one, other = (
        checkpoint_files.load(here / f"{variant}/checkpoints/last.ckpt") for variant in ("torch_nn", "backprop")
    )
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], tensor, rtol=1e-4, atol=1e-6)
