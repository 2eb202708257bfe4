"""Orders and initial values that compiled code draws for many runs at once, against torch's generator."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mlpexp.config import checks
from mlpexp.config.schema import Config
from mlpexp.data import batches
from mlpexp.engine.compiled import availability, compile_cache, draws
from mlpexp.models.stack_engine import initial_parameters
from mlpexp.nn.initialisation import INITIALISERS, initialise, uniform_bounds

pytestmark = pytest.mark.skipif(availability.unavailable() is not None, reason="no compiled engine here")

SEEDS = [0, 1, -1, 2**32 - 1, 2**32, -(2**63), 2**63 - 1, *range(10, 20)]


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 623, 624, 625, 626, 1249, 5000])
def test_permutations_are_those_of_torch(samples: int):
    orders, expected = (torch.empty(len(SEEDS), samples, dtype=torch.int64) for _ in range(2))
    draws.permutations(SEEDS, orders)
    batches.permutations(SEEDS, expected)
    assert torch.equal(orders, expected)


def test_orders_of_an_epoch_are_the_same_by_compiled_code():
    seeds = [5, 5, 7, 0, 2**63]
    compiled = batches.epoch_orders(100, seeds, 3, draw=draws.permutations)
    assert torch.equal(compiled, batches.epoch_orders(100, seeds, 3))
    assert torch.equal(compiled[2], batches.epoch_order(100, 7, 3))


def test_another_torch_draws_by_itself(monkeypatch: pytest.MonkeyPatch):
    def reversed_permutations(seeds: list[int], orders: torch.Tensor) -> None:
        for order in orders:
            order.copy_(torch.arange(len(order)).flip(0))

    monkeypatch.setattr(batches, "permutations", reversed_permutations)
    orders = torch.empty(2, 5, dtype=torch.int64)
    draws.permutations([0, 1], orders)
    assert orders.tolist() == [[4, 3, 2, 1, 0]] * 2


def test_uniform_numbers_are_those_of_torch():
    shapes = {"a": (3, 5), "b": (3,), "c": (400, 7), "d": (400,)}
    bounds = {"a": 5**-0.5, "b": 0.1, "c": 0.0, "d": 1 / 3}
    drawn = draws.uniforms(SEEDS, shapes, bounds)
    for i, seed in enumerate(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        for name, bound in bounds.items():
            expected = torch.zeros(shapes[name])
            if bound:
                expected.uniform_(-bound, bound, generator=generator)
            assert torch.equal(drawn[name][i], expected)


def test_a_processor_that_cannot_round_once_has_its_own_bits():
    """What torch does without fused multiply-add: the product is rounded, then the sum."""
    draw = compile_cache.function("random_draws", "uniforms")
    values, high = np.empty(1000, np.float32), np.array([0.3], np.float32)
    draw(np.array([7]), np.array([1000]), -high, high - -high, False, values)
    words = np.random.MT19937()
    words._legacy_seeding(7)  # type: ignore[attr-defined]
    shares = (words.random_raw(1000) & ((1 << 24) - 1)).astype(np.float32) * np.float32(2**-24)
    assert (values == shares * (high - -high) - high).all()


MODELS: list[dict[str, Any]] = [
    *({"init": name} for name in INITIALISERS),
    *({"activation": "swiglu", "init": name} for name in ("torch", "xavier_uniform")),
    {"parametrization": "mup", "width": 16, "base_width": 8},
    {"depth": 0},
    {"norm": "layer"},
    {"dropout": 0.1},
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_initial_values_of_many_runs_are_those_of_each_alone(model: dict[str, Any], monkeypatch):
    monkeypatch.setattr(availability, "MIN_EPOCHS", 1)
    cfg = checks.parse({"model": {"width": 12} | model, "stack": {"engine": "torch"}})
    configs = [replace(cfg, seed=seed, trainer=replace(cfg.trainer, accelerator="gpu")) for seed in range(12)]
    networks = [run.model.network(5, 3) for run in configs]
    together = initial_parameters(configs, networks)
    for run, (run_cfg, network) in enumerate(zip(configs, networks, strict=True)):
        alone = initialise(network, run_cfg.model, run_cfg.seed)
        assert list(together) == list(alone)
        assert all(torch.equal(together[name][run], values) for name, values in alone.items())


def test_initial_values_are_drawn_at_once_where_all_are_uniform():
    def is_uniform(**model: Any) -> bool:
        cfg = checks.parse({"model": model}).model
        return uniform_bounds(cfg.network(5, 3), cfg) is not None

    uniform = {"torch", "fan_in_uniform", "xavier_uniform", "kaiming_uniform"}
    assert {name for name in INITIALISERS if is_uniform(init=name)} == uniform
    assert not is_uniform(norm="layer")


def test_few_runs_and_those_of_the_torch_engine_are_drawn_by_torch():
    def stack(runs: int, epochs: int, engine: str, accelerator: str = "cpu") -> list[Config]:
        settings = {"stack": {"engine": engine}, "trainer": {"max_epochs": epochs, "accelerator": accelerator}}
        return [checks.parse(settings)] * runs

    assert availability.draws(stack(500, 10, "compiled"))
    assert availability.draws(stack(500, 10, "torch", "gpu"))
    assert not availability.draws(stack(500, 10, "torch"))
    assert not availability.draws(stack(499, 10, "compiled"))


def test_a_large_sweep_loads_its_functions_before_it_trains(monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []
    monkeypatch.setattr(compile_cache, "function", lambda module, name: loaded.append(name))
    cfg = checks.parse({"stack": {"engine": "torch"}, "trainer": {"accelerator": "gpu", "max_epochs": 10}})
    compile_cache.load_kernels([cfg] * 499, lambda line: None)
    assert loaded == []
    compile_cache.load_kernels([cfg] * 500, lambda line: None)
    assert loaded == ["permutations", "uniforms"]
