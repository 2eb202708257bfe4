"""The compiled engine: equal to the torch engine to rounding, and a run's bits depend on the run alone."""

import hashlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from numba import njit

from mlpexp.config import checks
from mlpexp.engine.compiled import availability, cache_directory, compile_cache, elementary
from mlpexp.engine.compiled.availability import COMPILED_OPTIMIZERS, unsupported
from mlpexp.engine.compiled.compile_cache import load_kernels
from mlpexp.engine.compiled.engine import CompiledEngine
from mlpexp.engine.compiled.vectors import LINE, load, store
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.activations import ACTIVATIONS, Activation
from mlpexp.nn.layers import Activate, Linear
from mlpexp.nn.network import NetworkSpec, forward, multilayer_perceptron
from mlpexp.nn.optimizers import UpdateSettings

COMPILED = [name for name, entry in ACTIVATIONS.items() if entry.compiled]
SIZES = [13, 20, 7, 5]
SAMPLES = 75  # the last batch is smaller


def networks(names: Sequence[str], seed: int = 0, sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Networks with these activations, and their parameters."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, fan_in: int) -> Tensor:
        return torch.empty(*shape).uniform_(-1, 1, generator=generator) / math.sqrt(fan_in)

    specs = [multilayer_perceptron(sizes[0], sizes[1:-1], sizes[-1], name) for name in names]
    weights = [drawn(len(names), o, i, fan_in=i) for i, o in pairwise(sizes)]
    biases = [drawn(len(names), o, fan_in=i) for i, o in pairwise(sizes)]
    tensors = [tensor for pair in zip(weights, biases, strict=True) for tensor in pair]
    return {"networks": specs, "parameters": dict(zip(specs[0].shapes, tensors, strict=True))}


def samples(seed: int = 1, count: int = SAMPLES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, SIZES[0], generator=generator)
    return inputs, torch.randint(SIZES[-1], (count,), generator=generator)


def orders(num_runs: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(SAMPLES, generator=generator) for _ in range(num_runs)])


def rates(num_runs: int, lr: float = 0.1) -> Tensor:
    return torch.full((num_runs,), lr, dtype=torch.float64)


def settings(name: str, num_runs: int) -> UpdateSettings:
    """Momentum, Nesterov, betas and weight decay in some runs and not in others."""
    each = torch.arange(num_runs)
    betas = torch.stack([0.9 - 0.1 * (each % 2), 0.999 - 0.01 * (each % 3)], -1).double()
    per_run = {"momentum": (each % 2) * 0.9, "nesterov": each % 4 == 3} if name == "sgd" else {"betas": betas}
    return UpdateSettings(name=name, weight_decay=(each % 3).double() * 1e-3, per_run=per_run)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Of the mean losses, (R, n)."""
    return float((ours.double().mean(1) / theirs.double().mean(1) - 1).abs().max())


@pytest.mark.parametrize("optimizer", COMPILED_OPTIMIZERS)
@pytest.mark.thorough(sample=1)
def test_losses_equal_those_of_the_torch_engine_to_rounding_for_every_activation(optimizer):
    names = COMPILED
    num_runs = len(names)
    made = networks(names)
    engines = [engine(**made, update=settings(optimizer, num_runs)) for engine in (Engine, CompiledEngine)]
    inputs, labels = samples()
    lr = rates(num_runs, 0.05 if optimizer == "sgd" else 0.003)
    for epoch in range(10):
        for engine in engines:
            engine.train_epoch(Epoch(inputs, labels, orders(num_runs, epoch), 32, lr))
    torch_engine, compiled = engines
    assert relative(compiled.train_outcomes.losses, torch_engine.train_outcomes.losses) < 1e-5
    assert torch.equal(compiled.train_outcomes.predictions, torch_engine.train_outcomes.predictions)
    ours, theirs = compiled.evaluate(inputs, labels), torch_engine.evaluate(inputs, labels)
    assert relative(ours.losses, theirs.losses) < 1e-5
    assert torch.equal(ours.predictions, theirs.predictions)
    for run, network in enumerate(made["networks"]):
        logits = forward(network, {name: values[run] for name, values in compiled.parameters.items()}, inputs).logits
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(ours.losses[run], losses, rtol=1e-4, atol=1e-4)
    assert {name: len(tensors) for name, tensors in compiled.state.items()} == {
        name: len(tensors) for name, tensors in torch_engine.state.items()
    }
    have_state = slice(1, None, 2) if optimizer == "sgd" else slice(None)  # a run without momentum has none
    for name, tensors in compiled.state.items():
        for mine, other in zip(tensors, torch_engine.state[name], strict=True):
            mine, other = mine[have_state], other[have_state]  # noqa: PLW2901
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_class_weights_labels_and_inputs_may_differ_from_run_to_run():
    num_runs = 4
    made = networks(["tanh"] * num_runs)
    inputs, labels = samples()
    others, _ = samples(5)
    generator = torch.Generator().manual_seed(0)
    case: dict[str, Any] = {
        "inputs": torch.cat([inputs, others]),
        "labels": torch.stack([labels.roll(i) for i in range(num_runs)]),
        "class_weights": torch.rand(num_runs, SIZES[-1], generator=generator) + 0.5,
        "first_rows": torch.tensor([[0], [SAMPLES], [0], [SAMPLES]]),
    }
    engines = [engine(**made, update=UpdateSettings()) for engine in (Engine, CompiledEngine)]
    index = orders(num_runs, 7)[:, :20]
    for engine in engines:
        by_step = rates(num_runs) * torch.tensor([[1.0], [0.5], [0.25]], dtype=torch.float64)
        engine.train_epoch(
            Epoch(
                case["inputs"],
                case["labels"],
                orders(num_runs),
                32,
                by_step,
                class_weights=case["class_weights"],
                first_rows=case["first_rows"],
            )
        )
    theirs, ours = engines
    torch.testing.assert_close(ours.train_outcomes.losses, theirs.train_outcomes.losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.train_outcomes.weights, theirs.train_outcomes.weights)
    ours_evaluated, evaluated = (
        engine.evaluate(case["inputs"], case["labels"], index, case["first_rows"]) for engine in (ours, theirs)
    )
    torch.testing.assert_close(ours_evaluated.losses, evaluated.losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours_evaluated.labels, evaluated.labels)
    assert torch.equal(ours_evaluated.predictions, evaluated.predictions)


def test_every_parameter_may_have_a_rate_and_a_decay_of_its_own():
    made, (inputs, labels) = networks(["tanh"] * 2), samples()
    tensors = 2 * (len(SIZES) - 1)
    lr = [rates(2, 0.01 * (i + 1)) for i in range(tensors)]
    decay = [torch.tensor([0.0, 1e-3 * (i + 1)], dtype=torch.float64) for i in range(tensors)]
    for name in COMPILED_OPTIMIZERS:
        update = UpdateSettings(name=name, weight_decay=decay)
        engines = [engine(**made, update=update) for engine in (Engine, CompiledEngine)]
        for engine in engines:
            engine.train_epoch(Epoch(inputs, labels, orders(2), 32, lr))
        for key, mine in engines[1].parameters.items():
            torch.testing.assert_close(mine, engines[0].parameters[key], rtol=1e-3, atol=1e-4)


def trained(runs: Sequence[int], *, threads: int = 1, poison: int | None = None, epochs: int = 2) -> list[Tensor]:
    """Parameters of these runs of eight after training them together; `poison` is a run that diverges."""
    made = networks(["tanh", "gelu"] * 4)
    rows = torch.tensor(runs)
    lr = rates(8)
    if poison is not None:
        lr[poison] = 1e30
    engine = CompiledEngine(
        networks=[made["networks"][i] for i in runs],
        parameters={name: values[rows] for name, values in made["parameters"].items()},
        update=settings("sgd", 8).rows(rows),
        threads=threads,
    )
    for epoch in range(epochs):
        engine.train_epoch(Epoch(*samples(), orders(8, epoch)[rows], 32, lr[rows]))
    return [torch.cat([w.flatten(1) for w in engine.parameters.values()], 1)[i] for i in range(len(runs))]


def test_a_runs_bits_do_not_depend_on_its_neighbours_its_place_or_threads():
    together = trained(range(8))
    for other in (trained(range(8), threads=3), trained(range(7, -1, -1))[::-1], [trained([i])[0] for i in range(8)]):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(together, other, strict=True))


def test_a_run_that_diverges_stays_nan_and_leaves_its_neighbours_alone():
    together, poisoned = trained(range(8)), trained(range(8), poison=3)
    assert not torch.isfinite(poisoned[3]).all()
    assert all(torch.equal(together[i], poisoned[i]) for i in range(8) if i != 3)


def test_runs_that_stay_go_on_with_the_same_bits_when_others_leave():
    made, (inputs, labels) = networks(["tanh"] * 4), samples()
    whole, shrinking = (CompiledEngine(**made, update=settings("adam", 4)) for _ in range(2))
    stay = torch.tensor([0, 2])
    for epoch in range(3):
        if epoch == 1:
            shrinking.keep(stay)
        whole.train_epoch(Epoch(inputs, labels, orders(4, epoch), 32, rates(4, 0.01)))
        rows = torch.arange(4) if epoch == 0 else stay
        shrinking.train_epoch(Epoch(inputs, labels, orders(4, epoch)[rows], 32, rates(len(rows), 0.01)))
    assert all(torch.equal(whole.parameters[name][stay], b) for name, b in shrinking.parameters.items())
    assert all(torch.equal(a[stay], b) for a, b in zip(whole.state["exp_avg"], shrinking.state["exp_avg"], strict=True))


def double_precision_losses(made: dict[str, list[Tensor]], batch: int, lr: float, epochs: int) -> Tensor:
    """Of a tanh network by plain gradient descent with autograd in float64: the last epoch's losses."""
    tensors = list(made["parameters"].values())
    layers = [
        (w[0].double().requires_grad_(), b[0].double().requires_grad_())
        for w, b in zip(tensors[::2], tensors[1::2], strict=True)
    ]
    inputs, labels = samples()
    losses = []
    for epoch in range(epochs):
        losses = []
        for index in orders(1, epoch)[0].split(batch):
            h = inputs[index].double()
            for weight, bias in layers[:-1]:
                h = torch.tanh(h @ weight.T + bias)
            each = torch.nn.functional.cross_entropy(
                h @ layers[-1][0].T + layers[-1][1], labels[index], reduction="none"
            )
            losses.append(each.detach())
            parameters = [p for layer in layers for p in layer]
            for p, gradient in zip(parameters, torch.autograd.grad(each.mean(), parameters), strict=True):
                p.data -= lr * gradient
    return torch.cat(losses)


def test_it_is_as_close_to_double_precision_as_torch_is():
    distances = {"compiled": 0.0, "torch": 0.0}
    for seed in range(5):
        made = networks(["tanh"], seed)
        expected = double_precision_losses(made, 32, 0.1, 10)
        for name, kind in (("compiled", CompiledEngine), ("torch", Engine)):
            engine = kind(**made, update=UpdateSettings())
            for epoch in range(10):
                engine.train_epoch(Epoch(*samples(), orders(1, epoch), 32, rates(1)))
            distances[name] += float((engine.train_outcomes.losses[0].double() - expected).abs().mean())
    assert distances["compiled"] < 1.5 * distances["torch"] + 1e-7


def applied(function: Any, x: np.ndarray) -> np.ndarray:
    @njit
    def loop(values, out):
        for i in range(0, len(values), LINE):
            store(out, i, function(load(values, i)))

    padded = np.resize(x, -(-len(x) // LINE) * LINE).astype(np.float32)
    out = np.empty_like(padded)
    loop(padded, out)
    return out[: len(x)]


REFERENCES = {
    "exp": (np.exp, (-80, 80), 1.5),
    "expm1": (np.expm1, (0.1, 80), 2.5),
    "log": (np.log, (1.0, 1e6), 1.5),
    "tanh": (np.tanh, (-12, 12), 3.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), (-60, 60), 3.0),
    "softplus": (lambda x: np.logaddexp(0, x), (-60, 60), 4.0),
    "erf": (np.vectorize(math.erf), (-5, 5), 3.0),
    "sin": (np.sin, (-100, 100), 2.5),
    "cos": (np.cos, (-100, 100), 2.5),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_elementary_functions_are_accurate_to_the_last_places(name):
    reference, (low, high), ulps = REFERENCES[name]
    x = np.random.default_rng(0).uniform(low, high, 20_000).astype(np.float32)
    expected = reference(x.astype(np.float64))
    # beside a zero of sin or cos the error is that of the argument's reduction
    unit = np.spacing(np.maximum(np.abs(expected), 1e-3 if name in ("sin", "cos") else 0).astype(np.float32))
    assert np.max(np.abs(applied(getattr(elementary, name), x) - expected) / unit) < ulps
    assert np.isnan(applied(getattr(elementary, name), np.full(LINE, np.nan))).all()


def digest() -> str:
    content = hashlib.sha256()
    for parameters in trained(range(8)):
        content.update(parameters.numpy().tobytes())
    return content.hexdigest()


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="needs a processor with AVX2")
def test_code_for_another_instruction_set_gives_the_same_bits():
    program = (
        "import test_compiled_engine as t; from mlpexp.engine.compiled.matrix_kernels import LANES; "
        "print(LANES, t.digest())"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["8", digest()], done.stderr


def test_what_has_no_compiled_form_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(ACTIVATIONS._entries, "cube", replace(ACTIVATIONS["tanh"], compiled=None))
    tanh, cube = (multilayer_perceptron(3, [4, 5], 2, name) for name in ("tanh", "cube"))
    assert unsupported(tanh, "sgd") is None
    assert unsupported(multilayer_perceptron(3, [], 2, "cube"), "sgd") is None  # there is no activation in it
    assert "'cube' has no compiled form; choose one of tanh" in (unsupported(cube, "sgd") or "")
    assert "'lion' has no compiled form; choose one of sgd" in (unsupported(tanh, "lion") or "")
    assert "only plain dense layers" in (unsupported(NetworkSpec((*tanh.layers[:1], *tanh.layers[2:])), "sgd") or "")
    with pytest.raises(ValueError, match="'cube' has no compiled form"):
        CompiledEngine(**networks(["cube"]), update=UpdateSettings())


@dataclass(frozen=True)
class Narrow(Linear):
    """A layer that is a dense layer to `isinstance` only."""


def test_a_layer_that_is_not_known_is_left_to_torch():
    plain = multilayer_perceptron(3, [4], 2, "tanh").layers
    other = Narrow(3, 4)
    assert unsupported(NetworkSpec(plain), "sgd") is None
    for layers in ((other, *plain[1:]), (*plain[:-1], Narrow(4, 2)), (*plain, Activate("tanh"))):
        assert "only plain dense layers" in (unsupported(NetworkSpec(layers), "sgd") or "")


def test_settings_of_an_optimizer_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="sgd has no compiled form with dampening"):
        CompiledEngine(**networks(["tanh"]), update=UpdateSettings(per_run={"dampening": torch.ones(1)}))


def test_an_activation_of_a_plugin_brings_its_compiled_form(monkeypatch):
    def cube(x):
        return x * x * x

    entry = Activation(
        function=cube,
        derivative=lambda x, h: 3 * x * x,
        gain=1.0,
        compiled=lambda v: (lambda x: x * x * x, lambda x, h: x * x * 3.0),
    )
    monkeypatch.setitem(ACTIVATIONS._entries, "test_cube", entry)
    made, (inputs, labels) = networks(["test_cube"] * 2), samples()
    engines = [engine(**made, update=UpdateSettings()) for engine in (Engine, CompiledEngine)]
    for engine in engines:
        engine.train_epoch(Epoch(inputs, labels, orders(2), 32, rates(2, 0.01)))
    assert relative(engines[1].train_outcomes.losses, engines[0].train_outcomes.losses) < 1e-5
    directory = compile_cache.directory_of_cache()
    assert directory is not None and not any(directory.rglob("*test_cube*"))  # its code may change


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A cache of its own, and a call that forgets what this process has loaded, as a new process has not."""

    def forget() -> None:
        for loaded in (compile_cache.function, compile_cache.activation):
            loaded.cache_clear()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    yield forget
    forget()


def test_only_what_a_sweep_uses_is_compiled_and_that_is_said_once(nothing_compiled, tmp_path):
    cfg = checks.parse({"stack": {"engine": "compiled"}, "model": {"activation": "identity"}})
    said: list[str] = []
    load_kernels([cfg], said.append)
    assert said == ["compiling 6 functions of the engine, once on this machine: about 11 seconds"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    assert {path.name.split("-")[0].rpartition(".")[2] for path in files} == {
        *("product", "train", "evaluate", "sgd", "identity_forward", "identity_backward")
    }
    nothing_compiled()
    load_kernels([cfg], said.append)
    assert len(said) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == files


def test_a_cache_directory_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile_cache.directory_of_cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fine"))
    found = compile_cache.directory_of_cache()
    assert found is not None and found.is_dir()


def test_a_new_version_removes_the_compiled_functions_that_no_installation_uses(monkeypatch, tmp_path):
    opened: dict[Path, int] = {}
    monkeypatch.setattr(cache_directory, "_opened", opened)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sources").mkdir()
    mine, others = tmp_path / "sources", tmp_path / "removed"
    old = time.time() - 10 * cache_directory.UNKNOWN_S

    def directory(digest: str, sources: Path | None, used: float) -> Path:
        found = cache_directory.opened(sources or mine, digest)
        assert found is not None
        if sources is None:
            (found / cache_directory.INSTALLATIONS).unlink()
        (found / "code.nbi").touch()
        for path in found.iterdir():
            os.utime(path, (used, used))
        return found

    others.mkdir()
    kept = [directory("1" * 16, others, old), directory("2" * 16, mine, time.time())]
    in_use = directory("3" * 16, mine, old)
    former = [directory("4" * 16, mine, old), directory("5" * 16, None, old)]
    gone = directory("6" * 16, tmp_path / "gone", time.time())
    former.append(gone)
    for path, handle in opened.items():  # the other processes have ended
        if path != in_use:
            os.close(handle)
    newest = directory("7" * 16, mine, time.time())
    assert set(newest.parent.iterdir()) == {newest, in_use, *kept}
    assert not any(path.exists() for path in former)
    others.rmdir()
    directory("8" * 16, mine, time.time())
    assert not kept[0].exists()
    assert in_use.exists()
    os.close(opened[in_use])


def test_a_missing_numba_is_said_with_the_way_to_install_it(monkeypatch):
    availability.unavailable.cache_clear()
    monkeypatch.setattr("mlpexp.engine.compiled.availability.find_spec", lambda name: None)
    assert "mlpexp[fast]" in (availability.unavailable() or "")
    availability.unavailable.cache_clear()
