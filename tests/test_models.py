"""Three implementations of one network: the same names, the same numbers, against plain torch."""

import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn import functional as F
from torch.optim import lr_scheduler

from mlpexp import data as datasets
from mlpexp import models
from mlpexp.config.schema import Config, DataConfig, ModelConfig, OptimizerConfig, TrainerConfig
from mlpexp.data.batches import Batches
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.prepared_data import prepare
from mlpexp.models.handmade_mlp import AutogradMLP, BackpropMLP
from mlpexp.models.torch_mlp import TorchMLP
from mlpexp.nn.initialisation import initialise
from mlpexp.store import checkpoint_files
from mlpexp.training.trainer_setup import quiet

torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer

VARIANTS = ("torch_nn", "autograd", "backprop")
EPOCHS, BATCHES = 3, 8
DATA = DataConfig(shuffle=False)


def config(variant="torch_nn", *, seed=0, model=None, optimizer=None):
    return Config(
        seed=seed,
        model=ModelConfig(variant=variant, **(model or {})),
        data=DATA,
        optimizer=OptimizerConfig(**(optimizer or {})),
        trainer=TrainerConfig(max_epochs=EPOCHS),
    )


def fit(cfg, *callbacks, epochs=EPOCHS, ckpt_path=None):
    """The variant after a few batches of a few epochs in Lightning's hands."""
    module = models.build(cfg, 64, 10)
    with quiet():
        trainer = Trainer(
            max_epochs=epochs,
            limit_train_batches=BATCHES,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        trainer.fit(module, TableDataModule(cfg.data, cfg.seed), ckpt_path=ckpt_path, weights_only=True)
    return module, trainer


def weights(module):
    return list(module.parameter_values().values())


def batches():
    inputs, labels = prepare(datasets.load(DataConfig()), DATA).part("train")
    return list(zip(inputs.split(32), labels.split(32), strict=True))[:BATCHES]


TORCH = {"tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu, "sine": torch.sin, "softplus": F.softplus}


def plain_torch(cfg, *, epsilon, schedule=None):
    """The same training as a bare loop over torch's own functions; `epsilon` is the notebook's, in the logarithm."""
    start = initialise(cfg.model.network(64, 10), cfg.model, cfg.seed)
    parameters = [torch.nn.Parameter(tensor) for tensor in start.values()]
    settings = cfg.optimizer
    rule = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        rule |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name](
        parameters, **rule
    )
    rates = schedule(optimizer) if schedule else None
    for _ in range(EPOCHS):
        for inputs, labels in batches():
            h = inputs
            for i in range(0, len(parameters), 2):
                h = h @ parameters[i].T + parameters[i + 1]
                if i + 2 < len(parameters):
                    h = TORCH[cfg.model.activation](h)
            picked = F.softmax(h, 1).gather(1, labels[:, None])
            optimizer.zero_grad()
            (-torch.log(picked + epsilon).mean()).backward()
            optimizer.step()
        if rates:
            rates.step()
    return [parameter.detach() for parameter in parameters]


def assert_near(found, wanted, rtol=1e-4):
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=2e-6)


NETWORKS = [
    {"depth": 0},
    {"depth": 1, "activation": "gelu"},
    {"depth": 2, "width": 12, "activation": "sine"},
    {"width": [20, 7, 11], "activation": "relu"},
    {"depth": 5, "width": 16, "activation": "softplus", "init": "kaiming_normal"},
]
UPDATES = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"weight_decay": 0.05, "lr": 0.02},
]


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_all_variants_share_names_shapes_and_initial_weights(model):
    states = [models.build(config(variant, model=model), 64, 10).state_dict() for variant in VARIANTS]
    sizes = [64, *config(model=model).model.hidden_sizes, 10]
    wanted = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        wanted |= {f"layers.{i}.weight": (fan_out, fan_in), f"layers.{i}.bias": (fan_out,)}
    for state in states:
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == wanted
        assert all(torch.equal(state[name], states[0][name]) for name in wanted)


@pytest.mark.parametrize("optimizer", [{}, {"momentum": 0.9}], ids=str)
@pytest.mark.parametrize("source", VARIANTS)
def test_a_checkpoint_of_one_variant_gives_the_same_logits_in_another(source, optimizer, tmp_path):
    module, trainer = fit(config(source, model={"width": [20, 10]}, optimizer=optimizer))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = checkpoint_files.load(tmp_path / "a.ckpt")
    cfg, num_features, num_classes = checkpoint_files.described(tmp_path / "a.ckpt", loaded)
    assert cfg.model.variant == source
    inputs = datasets.load(DataConfig()).inputs[:200] / 16
    with torch.no_grad():
        wanted = module(torch.from_numpy(inputs))
        for variant in VARIANTS:
            other = models.build(config(variant, seed=1, model={"width": [20, 10]}), num_features, num_classes)
            other.load_state_dict(loaded["state_dict"], strict=True)
            torch.testing.assert_close(other(torch.from_numpy(inputs)), wanted, rtol=1e-5, atol=1e-5)


KINDS = {"torch_nn": TorchMLP, "autograd": AutogradMLP, "backprop": BackpropMLP}


@pytest.mark.parametrize("reader", VARIANTS)
@pytest.mark.parametrize("writer", VARIANTS)
def test_lightnings_load_from_checkpoint_needs_nothing_but_the_path(writer, reader, tmp_path):
    cfg = config(writer, model={"width": [20, 10]}, optimizer={"momentum": 0.9})
    module, trainer = fit(cfg)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = KINDS[reader].load_from_checkpoint(tmp_path / "a.ckpt")
    assert type(loaded) is KINDS[reader]
    assert loaded.cfg == cfg
    assert all(torch.equal(a, b) for a, b in zip(weights(loaded), weights(module), strict=True))


def test_load_from_checkpoint_executes_nothing_whatever_the_environment_says(tmp_path, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    _, trainer = fit(config())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True) | {"harmful": Harmful()}
    torch.save(content, tmp_path / "b.ckpt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(pickle.UnpicklingError):
        TorchMLP.load_from_checkpoint(tmp_path / "b.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("optimizer", UPDATES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_ends_where_a_bare_loop_with_torchs_sgd_ends(variant, optimizer):
    cfg = config(variant, model={"depth": 2, "width": 12}, optimizer=optimizer)
    module, _ = fit(cfg)
    assert_near(weights(module), plain_torch(cfg, epsilon=0.0 if variant == "torch_nn" else 1e-8))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_torchs_other_optimizers_get_their_settings(name):
    cfg = config(model={"depth": 1, "width": 12}, optimizer={"name": name, "lr": 0.01, "weight_decay": 0.1})
    assert_near(weights(fit(cfg)[0]), plain_torch(cfg, epsilon=0.0))


@pytest.mark.parametrize("optimizer", [UPDATES[0], UPDATES[2]], ids=str)
@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_gradients_by_hand_train_the_network_that_autograd_trains(model, optimizer):
    by_hand, derived = (fit(config(v, model=model, optimizer=optimizer))[0] for v in ("backprop", "autograd"))
    assert_near(weights(by_hand), weights(derived))
    assert by_hand.metrics["train/loss"] == pytest.approx(derived.metrics["train/loss"], rel=1e-5)
    # and it did train
    start = models.build(config(model=model), 64, 10)
    assert not torch.allclose(weights(by_hand)[0], weights(start)[0], atol=1e-3)


SCHEDULES = {
    "constant": ({}, None),
    "cosine": ({"schedule": "cosine"}, lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)),
    "step": (
        {"schedule": "step", "step_epochs": 1, "step_factor": 0.3},
        lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.3),
    ),
    "warm-up": (
        {"warmup_epochs": 2},
        lambda optimizer: lr_scheduler.LinearLR(optimizer, start_factor=1 / 3, total_iters=2),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_schedule_reaches_every_variant(variant, name):
    settings, schedule = SCHEDULES[name]
    cfg = config(variant, model={"depth": 1, "width": 12}, optimizer={"lr": 0.3} | settings)
    module, _ = fit(cfg)
    epsilon = 0.0 if variant == "torch_nn" else 1e-8
    assert_near(weights(module), plain_torch(cfg, epsilon=epsilon, schedule=schedule))
    if schedule is not None:  # it makes a difference that this comparison sees
        assert not torch.allclose(weights(module)[0], plain_torch(cfg, epsilon=epsilon)[0], atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_momentum_survives_a_checkpoint(variant, tmp_path):
    cfg = config(variant, model={"width": 12}, optimizer={"momentum": 0.9, "nesterov": True})
    whole, _ = fit(cfg)
    _, trainer = fit(cfg, epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    continued, _ = fit(cfg, ckpt_path=tmp_path / "a.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(weights(continued), weights(whole), strict=True))


@pytest.mark.parametrize("variant", ["autograd", "backprop"])
def test_velocities_follow_the_parameters_to_another_type_or_device(variant):
    module = models.build(config(variant, optimizer={"momentum": 0.9}), 64, 10).to("meta", torch.float64)
    for layer in module.layers:
        assert layer.weight_velocity.device == layer.weight.device == torch.device("meta")
        assert layer.bias_velocity.dtype == torch.float64
    assert all("velocity" not in name for name in module.state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_epochs_metrics_are_means_over_samples_not_over_batches(variant):
    seen = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            inputs, labels = batch
            with torch.no_grad():
                logits = module(inputs)
            seen.append((F.cross_entropy(logits, labels, reduction="none"), logits.argmax(1) == labels))

    cfg = config(variant, model={"width": 12})
    module = models.build(cfg, 64, 10)
    inputs, labels = prepare(datasets.load(DataConfig()), DATA).part("train")
    uneven = Batches(inputs[:53], labels[:53], batch_size=50)
    with quiet():
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Keep()],
        )
        trainer.fit(module, uneven, Batches(inputs, labels, 1000))
    losses, hits = (torch.cat(column).double() for column in zip(*seen, strict=True))
    assert len(losses) == 53
    assert module.metrics["train/loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert module.metrics["train/acc"] == pytest.approx(hits.mean().item(), abs=1e-12)
    with torch.no_grad():
        wanted = F.cross_entropy(module(inputs).double(), labels).item()
    assert module.metrics["val/loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_building_a_network_leaves_the_callers_random_stream_alone(variant):
    state = torch.random.get_rng_state()
    models.build(config(variant), 64, 10)
    assert torch.equal(state, torch.random.get_rng_state())
