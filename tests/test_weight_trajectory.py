"""Weights that runs keep of their epochs: which, for how long, and through every way of continuing a run."""

import numpy as np
import pytest
import torch

import mlpexp
from mlpexp.nn.network import forward
from mlpexp.runtime.errors import UserError
from mlpexp.store import weight_trajectory
from mlpexp.store.weight_trajectory import WeightTrajectory

SETTINGS = (
    "data=iris model.width=4 tracking.figures=false tracking.tensorboard=false tracking.weights=every "
    "stack.engine=torch"
)
FILE = "weights_by_epoch.bin"


def row(epoch):
    return np.full(5, epoch, dtype=np.float32)


@pytest.mark.parametrize("epochs", [1, 2, 7, 40])
def test_a_file_is_bounded_and_keeps_evenly_spaced_epochs(tmp_path, monkeypatch, epochs):
    monkeypatch.setattr(weight_trajectory, "MAX_BYTES", 6 * (8 + 20))
    keeper = WeightTrajectory(tmp_path, epochs)
    for epoch in range(-1, epochs):
        keeper.add(epoch, row(epoch))
    found = weight_trajectory.read(tmp_path, 5, np.dtype("float32"))
    assert (tmp_path / FILE).stat().st_size <= weight_trajectory.MAX_BYTES
    assert len(found) > min(epochs, 2)
    assert len(set(np.diff(list(found)))) <= 1
    assert next(iter(found)) == -1
    assert all((values == epoch).all() for epoch, values in found.items())


def test_a_longer_training_thins_what_is_there_and_a_repeated_one_replaces_it(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_trajectory, "MAX_BYTES", 6 * (8 + 20))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    keeper = WeightTrajectory(whole, 20)
    for epoch in range(-1, 20):
        keeper.add(epoch, row(epoch))
    for first, last, length in ((-1, 4, 5), (3, 12, 20), (8, 20, 20)):  # a crash loses the epochs after a checkpoint
        keeper = WeightTrajectory(parts, length)
        for epoch in range(first, last):
            keeper.add(epoch, row(epoch))
        with (parts / FILE).open("ab") as file:  # a row that was cut off
            file.write(b"abc")
    keeper = WeightTrajectory(parts, 20)
    keeper.add(19, row(19))
    assert (parts / FILE).read_bytes() == (whole / FILE).read_bytes()


@pytest.mark.parametrize("variant", ["torch_nn", "autograd", "backprop"])
@pytest.mark.thorough(sample=1)
def test_a_run_alone_keeps_what_a_run_of_a_stack_keeps(train, here, variant):
    alone = train(f"{SETTINGS} model.variant={variant} trainer.max_epochs=2 seed=1 hydra.run.dir=alone")
    assert alone.code == 0, alone.err
    run = mlpexp.load_run("alone")
    assert run.weight_epochs() == [-1, 0, 1]
    last = torch.load(here / "alone/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last[name], values) for name, values in run.weights(epoch=1).items())
    assert FILE in run.result.files
    with pytest.raises(UserError, match="has not kept the weights of epoch 2; it has those of -1, 0, 1"):
        run.weights(epoch=2)
    if variant != "torch_nn":
        return
    sweep = train(f"-m {SETTINGS} model.activation=tanh,relu trainer.max_epochs=2 seed=0,1 hydra.sweep.dir=s")
    assert sweep.code == 0, sweep.err
    names = [one["name"] for one in mlpexp.load_sweep("s").table if one["model.activation"] == "tanh"]
    assert (here / "s" / names[1] / FILE).read_bytes() == (here / "alone" / FILE).read_bytes()
    stacked = mlpexp.load_sweep("s").weights(epoch=0)
    for number, each in enumerate(mlpexp.load_sweep("s")):
        assert all(torch.equal(values[number], each.weights(epoch=0)[name]) for name, values in stacked.items())
    # the loss that the run recorded follows from the weights of that epoch
    inputs, labels = run.data.part("val")
    for epoch, recorded in enumerate(run.curves()["val/loss"]):
        logits = forward(run._stack.network, run.weights(epoch=epoch), inputs).logits
        assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(recorded, rel=1e-5)


def test_a_run_that_is_trained_further_keeps_the_weights_of_one_that_was_not(train, here):
    settings = f"{SETTINGS} model.norm=batch"
    assert train(f"{settings} trainer.max_epochs=3 hydra.run.dir=whole").code == 0
    assert train(f"{settings} trainer.max_epochs=2 hydra.run.dir=part").code == 0
    assert train("resume=part trainer.max_epochs=3").code == 0
    whole = (here / "whole" / FILE).read_bytes()
    assert (here / "part" / FILE).read_bytes() == whole
    for epochs in (2, 3):
        sweep = train(f"-m {settings} trainer.max_epochs={epochs} seed=0,1 hydra.sweep.dir=s")
        assert sweep.code == 0, sweep.err
    first = mlpexp.load_sweep("s").table[0]
    assert (here / "s" / first["name"] / FILE).read_bytes() == whole
    assert len(mlpexp.load_sweep("s").weights(epoch=2)["layers.0.weight"]) == 2


def test_weights_need_a_directory(train):
    assert "tracking.weights=every writes into" in train("-m tracking.weights=every record=table seed=0,1").line
