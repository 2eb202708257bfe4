"""Pruning by magnitude and lottery tickets: against torch, alone and in a stack, resumed, in every file of a run."""

import csv
import json

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
        share = pruned_share(settings, rounds)
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
        ({"prune": {"fraction": 0.5, "rewind": "initial"}, "optimizer": {"name": "adam"}}, "choose one of sgd"),
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


@pytest.mark.parametrize(
    "settings", ["prune.rewind=initial optimizer.clip_norm=0.5 model.norm=batch", "optimizer=adam"]
)
def test_a_pruned_run_has_the_same_files_alone_in_a_stack_and_resumed(settings, train, here):
    common = COMMON if "adam" not in settings else COMMON.replace("optimizer.momentum=0.9 ", "")
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


def test_a_lottery_ticket_begins_again_at_its_initial_weights(train, here):
    first = train(f"{COMMON} prune.fraction=0.9 prune.rewind=initial hydra.run.dir=a")
    assert first.code == 0, first.err
    ours = checkpoint_files.load(here / "a/checkpoints/last.ckpt")
    cfg = checks.parse({"data": {"name": "iris"}, "model": {"width": 8}, "optimizer": {}})
    data = prepare(cfg.data)
    inputs, labels = data.part("train")
    module = TorchMLP(cfg, 4, 3)
    initial = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for epoch in range(6):
        if epoch in (2, 4):
            matrices = ["layers.0.weight", "layers.1.weight"]
            flat = torch.cat([module.state_dict()[name].abs().flatten() for name in matrices])
            count = round((1 - 0.1 ** (epoch / 4)) * len(flat))
            threshold = flat.sort().values[count - 1]
            masks = {name: (module.state_dict()[name].abs() > threshold).float() for name in matrices}
            module.load_state_dict({name: tensor * masks.get(name, 1.0) for name, tensor in initial.items()})
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for batch in epoch_order(len(labels), 0, epoch).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()
            if epoch >= 2:
                for name, mask in masks.items():
                    module.get_parameter(name).grad.mul_(mask)
            optimizer.step()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(ours["state_dict"][name], tensor, rtol=1e-5, atol=1e-6)


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
