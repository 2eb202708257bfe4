"""A stack on a GPU: its results beside the CPU's for every registry entry, then what a run costs.

    python benchmarks/gpu.py [--whole]

First ten epochs of every activation and of every optimizer that can share a stack are compared with the CPU's. Then,
for stacks of 128, 1,000 and 4,000 runs of digits (64-50-10 and 64-128-128-128-10, ten epochs, batches of 32): training
launched step by step, the same captured as a CUDA graph, and an evaluation of all samples. Then the stacks in their
Trainer, with `stack.engine=torch` on the CPU beside it, and what is drawn on the CPU for them. `--whole` adds whole
processes of 10,000 runs with `record=table`. Prints the table; writes nothing.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from measuring import ROOT, spend, stacks_in_trainer, surroundings
from sklearn.datasets import load_digits
from torch import Tensor

from mlpexp.config import checks
from mlpexp.data import batches
from mlpexp.data.batches import epoch_orders
from mlpexp.engine.compiled import draws
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.captured_engine import CapturedEngine, CudaGraphs
from mlpexp.engine.torch.engine import Engine
from mlpexp.models.stack_engine import initial_parameters
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings

EPOCHS = 10
SHAPES = ((64, 50, 10), (64, 128, 128, 128, 10))
RUNS = (128, 1000, 4000)
TOLERANCE = 1e-4  # of a mean loss after ten epochs, relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="also whole processes of 10,000 runs, some minutes")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; run this on a machine with one")
    device = torch.device("cuda")
    inputs, labels = samples()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CPU {surroundings()['hardware']['cpu']}\n")
    print(
        "| entry | largest relative difference of a run's mean loss from the CPU's | epochs captured |\n|---|---|---|"
    )
    for name, difference, reason in compare(inputs[:200], labels[:200], device):
        print(f"| {name} | {difference:.1e} | {reason or 'yes'} |")
        assert difference < TOLERANCE, f"{name} differs from the CPU: times cannot be compared"
    print("\nms a run for ten epochs\n\n| shape | runs | step by step | captured | evaluation |\n|---|---|---|---|---|")
    for sizes in SHAPES:
        for runs in RUNS:
            cells = [f"{ms:.4f}" for ms in measure(sizes, runs, inputs.to(device), labels.to(device))]
            print(f"| {'-'.join(map(str, sizes))} | {runs:,} | {' | '.join(cells)} |", flush=True)
    print(
        "\nin its Trainer, with evaluation of all samples\n\n"
        "| runs | device | ms a run, median of three stacks | ms of processor |\n|---|---|---|---|"
    )
    for runs, accelerator in ((128, "cpu"), *((runs, "gpu") for runs in RUNS)):
        turn = stacks_in_trainer(runs, engine="torch", accelerator=accelerator)
        spent = sorted((turn() for _ in range(3)), key=attrgetter("wall_s"))[1]
        print(
            f"| {runs:,} | {accelerator} | {1e3 * spent.wall_s / runs:.3f} | {1e3 * spent.cpu_s / runs:.3f} |",
            flush=True,
        )
    print("\nten epochs outside of the engine, ms of processor a run\n")
    print("| runs | orders, torch | compiled | initial values, torch | compiled | all of a stack of two runs |")
    print("|---|---|---|---|---|---|")
    for runs in RUNS[1:]:
        cells = [f"{ms:.4f}" for ms in measure_draws(runs, len(inputs))]
        pair = stacks_in_trainer(2, engine="torch", accelerator="gpu")()
        print(f"| {runs:,} | {' | '.join(cells)} | {1e3 * pair.cpu_s:.1f} |", flush=True)
    if arguments.whole:
        print("\n| whole process, record=table | seconds | of processor |\n|---|---|---|")
        for runs in (2, 10_000):
            command = [sys.executable, str(ROOT / "scripts/train.py"), "-m", f"seed=range({runs})", "record=table"]
            spent = spend([*command, "trainer.accelerator=gpu"])
            print(f"| {runs:,} runs | {spent.wall_s:.1f} | {spent.cpu_s:.1f} |", flush=True)


def samples() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


def stack(sizes: Sequence[int], runs: int, activation: str, optimizer: str, device: torch.device) -> dict[str, Any]:
    """The arguments of an engine: runs of one network with parameters of their own."""
    generator = torch.Generator().manual_seed(0)
    network = multilayer_perceptron(sizes[0], sizes[1:-1], sizes[-1], activation)
    parameters = {
        name: (torch.empty(runs, *shape).uniform_(-1, 1, generator=generator) * shape[-1] ** -0.5).to(device)
        for name, shape in network.shapes.items()
    }
    return {"networks": [network] * runs, "parameters": parameters, "update": UpdateSettings(name=optimizer)}


def orders(samples: int, runs: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(epoch)
    return torch.stack([torch.randperm(samples, generator=generator) for _ in range(runs)])


def compare(
    inputs: Tensor, labels: Tensor, device: torch.device, graphs: CudaGraphs | None = None, runs: int = 8
) -> list[tuple[str, float, str | None]]:
    """For every entry: how far the losses of the last of ten epochs are from the CPU's, and why none was captured."""
    cases = [(name, "sgd") for name in ACTIVATIONS]
    cases += [("tanh", name) for name, rule in OPTIMIZERS.items() if rule.trains_alone is None and name != "sgd"]
    rows = []
    for activation, optimizer in cases:
        sizes = (inputs.shape[1], 16, 12, int(labels.max()) + 1)
        cpu = Engine(**stack(sizes, runs, activation, optimizer, torch.device("cpu")))
        gpu = CapturedEngine(graphs=graphs, **stack(sizes, runs, activation, optimizer, device))
        rates = torch.full((runs,), 0.05 if optimizer == "sgd" else 0.001, dtype=torch.float64)
        on_device = inputs.to(device), labels.to(device)
        for epoch in range(EPOCHS):
            order = orders(len(inputs), runs, epoch)
            cpu.train_epoch(Epoch(inputs, labels, order, 32, rates))
            gpu.train_epoch(Epoch(*on_device, order.to(device), 32, rates.to(device)))
        losses = [
            engine.evaluate(*data).losses.double().mean(1).cpu()
            for engine, data in ((cpu, (inputs, labels)), (gpu, on_device))
        ]
        difference = float((losses[1] / losses[0] - 1).abs().max())
        rows.append((activation if optimizer == "sgd" else optimizer, difference, gpu.plain_reason))
    return rows


def measure(sizes: Sequence[int], runs: int, inputs: Tensor, labels: Tensor) -> list[float]:
    """ms a run for ten epochs: plain, captured, and for ten evaluations."""
    device = inputs.device
    order = orders(len(inputs), runs, 0).to(device)
    rates = torch.full((runs,), 0.1, dtype=torch.float64, device=device)
    plain, captured = (kind(**stack(sizes, runs, "tanh", "sgd", device)) for kind in (Engine, CapturedEngine))
    scale = 1e3 * EPOCHS / runs
    return [
        *(
            scale * seconds(lambda e=engine: e.train_epoch(Epoch(inputs, labels, order, 32, rates)))
            for engine in (plain, captured)
        ),
        scale * seconds(lambda: captured.evaluate(inputs, labels)),
    ]


def measure_draws(runs: int, samples: int) -> list[float]:
    """ms of processor a run for the orders of ten epochs and for initial values, each by torch and by compiled code."""
    cfg = checks.parse({"trainer": {"accelerator": "gpu", "max_epochs": EPOCHS}, "stack": {"engine": "torch"}})
    configs = [cfg.with_seed(seed) for seed in range(runs)]
    networks = [run.model.network(64, 10) for run in configs]
    draws.permutations([0], torch.empty(1, 2, dtype=torch.int64))  # compiles
    draws.uniforms([0], {"weight": (1, 1)}, {"weight": 1.0})
    times = []
    for draw in (batches.permutations, draws.permutations):
        started = time.process_time()
        for epoch in range(EPOCHS):
            epoch_orders(samples, range(runs), epoch, draw=draw)
        times.append(time.process_time() - started)
    for alone in (True, False):
        started = time.process_time()
        if alone:
            for run, network in zip(configs, networks, strict=True):
                initialise(network, run.model, run.seed)
        else:
            initial_parameters(configs, networks)
        times.append(time.process_time() - started)
    return [1e3 * spent / runs for spent in times]


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Of a call, on average, after three that are not counted."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


if __name__ == "__main__":
    main()
