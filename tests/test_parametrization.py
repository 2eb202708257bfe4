"""muP: its table of scalings, its coordinate check over width, its bits alone and stacked, by hand and by torch."""

import dataclasses
from typing import Any

import pytest
import torch

from mlpexp import data as datasets
from mlpexp.config.schema import Config, DataConfig, ModelConfig, OptimizerConfig, TrainerConfig
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.prepared_data import prepare
from mlpexp.models import build
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import forward
from mlpexp.nn.parametrization import initial_factors, rate_factors
from mlpexp.runtime.errors import ConfigError
from mlpexp.training.train_stack import train_stack
from mlpexp.training.trainer_setup import quiet


def configured(
    width: int = 48, depth: int = 2, parametrization: Any = "mup", seed: int = 0, **optimizer: Any
) -> Config:
    return Config(
        seed=seed,
        model=ModelConfig(width=width, depth=depth, parametrization=parametrization, base_width=32),
        data=DataConfig(batch_size=128),
        optimizer=OptimizerConfig(**optimizer),
        trainer=TrainerConfig(max_epochs=2, enable_progress_bar=False),
    )


def test_the_scalings_are_those_of_the_papers_third_table():
    model = ModelConfig(parametrization="mup", base_width=32, width=[64, 128])
    network = model.network(64, 10)
    assert list(rate_factors(model, "sgd", network).values()) == [2, 2, 2, 4, 1 / 4, 1]
    assert list(rate_factors(model, "adam", network).values()) == [1, 1, 1 / 2, 1, 1 / 4, 1]
    assert list(initial_factors(model, network).values()) == [1, 1, 1, 2**0.5, 1 / 2, 2]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_at_the_base_width_nothing_changes(optimizer):
    ends = [stacked([configured(32, parametrization=which, name=optimizer)])[0] for which in ("standard", "mup")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def stacked(configs: list[Config]) -> list[dict[str, torch.Tensor]]:
    """The last weights of each run."""
    with quiet():
        module = train_stack(configs, [prepare(datasets.load(DataConfig()), cfg.data) for cfg in configs])
    last = module.last
    return [{name: values[run] for name, values in last.parameters.items()} for run in range(len(configs))]


def alone(cfg: Config) -> dict[str, torch.Tensor]:
    from lightning.pytorch import Trainer

    data = TableDataModule(cfg.data, cfg.seed)
    module = build(cfg, 64, 10)
    with quiet():
        trainer = Trainer(
            max_epochs=cfg.trainer.max_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, data)
    return module.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine"},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"name": "adam", "lr": 0.003, "weight_decay": 0.01},
        {"name": "adamw", "lr": 0.003, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_a_stacked_run_in_mup_equals_the_run_alone(settings):
    # beside a run in the standard parametrization and one without a penalty
    neighbours = [configured(parametrization="standard", seed=1, **settings)]
    if "weight_decay" in settings:
        neighbours.append(configured(seed=2, **settings | {"weight_decay": 0.0}))
    configs = [configured(**settings), *neighbours]
    for mine, cfg in zip(stacked(configs), configs, strict=True):
        theirs = alone(cfg)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("variant", ["autograd", "backprop"])
def test_the_variants_by_hand_learn_at_the_same_rates(variant):
    cfg = configured(momentum=0.9, weight_decay=0.01)
    ours = alone(dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, variant=variant)))
    theirs = alone(cfg)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=2e-4, atol=2e-5)


def dense_outputs(module, inputs):
    """What each dense layer computes."""
    values = forward(module.network, module.parameter_values(), inputs).values
    return [values[k + 1] for k, _ in module.network.linear]


def coordinates(width: int, parametrization: str, optimizer: str, **layers: Any) -> list[float]:
    """Root mean square, over samples and units, of how far three steps move each layer's values."""
    rate = 0.1 if optimizer == "sgd" else 0.01
    cfg = configured(width, parametrization=parametrization, name=optimizer, lr=rate)
    cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, **layers))
    prepared = prepare(datasets.load(DataConfig()), cfg.data)
    inputs, labels = (part[:128] for part in prepared.part("train"))
    module = build(cfg, 64, 10)
    with torch.no_grad():
        before = [x.clone() for x in dense_outputs(module, inputs)]
    made = module.configure_optimizers()
    for _ in range(3):
        made.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        made.step()
    return [float((x - y).square().mean().sqrt()) for x, y in zip(dense_outputs(module, inputs), before, strict=True)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_in_mup_every_layers_values_move_as_far_whatever_the_width(optimizer):
    """The coordinate check of the paper's appendix D.1, over a factor of 16 in width."""
    narrow, wide = (coordinates(width, "mup", optimizer) for width in (64, 1024))
    assert all(0.5 < b / a < 2 for a, b in zip(narrow, wide, strict=True)), (narrow, wide)
    narrow, wide = (coordinates(width, "standard", optimizer) for width in (64, 1024))
    ratios = [b / a for a, b in zip(narrow, wide, strict=True)]
    # sgd: the first layer hardly moves; adam: the logits explode
    assert ratios[0] < 0.4 if optimizer == "sgd" else ratios[-1] > 3, ratios


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layers", [{"norm": "layer"}, {"norm": "rms", "residual": True}, {"bias": False}], ids=str)
def test_in_mup_values_move_as_far_whatever_the_width_with_norms_skips_or_without_biases(layers, optimizer):
    narrow, wide = (coordinates(width, "mup", optimizer, **layers) for width in (64, 1024))
    assert all(0.5 < b / a < 2 for a, b in zip(narrow, wide, strict=True)), (narrow, wide)


def test_logits_at_the_start_shrink_with_the_width_in_mup_alone():
    def size(width: int, parametrization: Any) -> float:
        cfg = configured(width, parametrization=parametrization)
        network = cfg.model.network(64, 10)
        parameters = initialise(network, cfg.model, 0) | {"layers.2.bias": torch.zeros(10)}
        inputs = datasets.prepare(cfg.data).inputs
        return float(forward(network, parameters, inputs).logits.std())

    assert size(1024, "mup") / size(64, "mup") < 0.5
    assert size(1024, "standard") / size(64, "standard") > 0.5


def test_an_initialisation_with_another_scaling_is_refused():
    from mlpexp.config import checks
    from mlpexp.config.schema import defaults

    given = defaults()
    given["model"] |= {"parametrization": "mup", "init": "notebook"}
    with pytest.raises(ConfigError, match=r"model\.parametrization=mup needs .*e\.g\. model\.init=torch"):
        checks.parse(given)


def as_microsoft_does(cfg: Config, decay_of_readout: float = 1.0) -> list[torch.Tensor]:
    """Weights and biases after eight steps of microsoft/mup's rules, whose readout is divided by its width multiplier.

    Args:
        decay_of_readout: what the weight decay of the readout is multiplied by beside that.
    """
    m = cfg.model.hidden_sizes[0] / cfg.model.base_width
    start = build(cfg, 64, 10).double().parameter_values()
    w1, b1, w2, b2, w3, b3 = (tensor.clone().requires_grad_() for tensor in (*list(start.values())[:4], m * start[
        "layers.2.weight"], start["layers.2.bias"]))  # fmt: skip
    lr, decay = cfg.optimizer.lr, cfg.optimizer.weight_decay
    vectors, matrices = ([w1, b1, b2], [w2])
    if cfg.optimizer.name == "sgd":  # MuSGD: rates of vectors grow; w2 has as many inputs as outputs
        rules = [(vectors, m, 1 / m), (matrices, 1, 1), ([w3], m, 1 / m), ([b3], 1, 1)]
    else:  # MuAdam, MuAdamW: rates of matrices shrink
        rules = [(vectors, 1, 1), (matrices, 1 / m, m), ([w3], 1, decay_of_readout), ([b3], 1, 1)]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[cfg.optimizer.name]
    optimizer = kind([{"params": p, "lr": lr * a, "weight_decay": decay * b} for p, a, b in rules], lr=lr)
    for inputs, labels in eight_batches(cfg):
        h = torch.tanh(torch.tanh(inputs @ w1.T + b1) @ w2.T + b2)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(h @ w3.T / m + b3, labels).backward()
        optimizer.step()
    return [w1, b1, w2, b2, w3 / m, b3]


def eight_batches(cfg: Config) -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs, labels = datasets.prepare(cfg.data).part("train")
    return list(zip(inputs.double().split(32), labels.split(32), strict=True))[:8]


def ours(cfg: Config) -> list[torch.Tensor]:
    module = build(cfg, 64, 10).double()
    optimizer = module.configure_optimizers()
    for inputs, labels in eight_batches(cfg):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    return list(module.parameter_values().values())


def apart(cfg: Config, **others: float) -> list[float]:
    """Of each parameter, the largest relative difference from microsoft/mup."""
    pairs = zip(ours(cfg), as_microsoft_does(cfg, **others), strict=True)
    return [float((a - b.detach()).abs().max() / a.abs().max()) for a, b in pairs]


@pytest.mark.parametrize(("name", "lr", "decay"), [("sgd", 0.1, 0.1), ("adamw", 0.003, 0.5), ("adam", 0.003, 0.0)])
def test_training_is_that_of_microsofts_mup(name: str, lr: float, decay: float):
    # the epsilon of Adam does not scale with the gradient
    assert max(apart(configured(width=96, name=name, lr=lr, weight_decay=decay))) < 1e-3


def test_adams_coupled_decay_of_the_logits_differs_from_microsofts_mup_as_documented():
    cfg = configured(width=96, name="adam", lr=0.003, weight_decay=0.5)
    m = 96 / cfg.model.base_width
    assert max(apart(cfg)) > 1e-2
    assert max(apart(cfg, decay_of_readout=1 / m)) < 1e-4
    at_the_base = configured(width=32, name="adam", lr=0.003, weight_decay=0.5)
    assert max(apart(at_the_base)) < 1e-4
