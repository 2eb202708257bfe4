"""A network of one's own in a stack, against plain loops of torch: microseconds of processor per run and step.

    python benchmarks/user_networks.py [RUNS]

Residual blocks with layer norm (depth 10, width 64) and a plain network (64-50-10), digits, batches of 32, SGD. Loop
and stack train the same batches and alternate; results are compared before times. One thread. Prints the table; writes
nothing.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from measuring import surroundings
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.vmap_engine import VmapEngine
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import UpdateSettings
from mlpexp.nn.user_class import load
from mlpexp.nn.user_module import UserModule

NETWORKS = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, num_inputs, num_classes, width=64, depth=10):
        super().__init__()
        self.first, self.last = nn.Linear(num_inputs, width), nn.Linear(width, num_classes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers):
            x = x + torch.tanh(layer(norm(x)))
        return self.last(x)


class Plain(nn.Sequential):
    def __init__(self, num_inputs, num_classes):
        super().__init__(nn.Linear(num_inputs, 50), nn.Tanh(), nn.Linear(50, num_classes))
"""
BATCH, STEPS, ROUNDS, LR = 32, 20, 5, 0.05


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    torch.set_num_threads(1)
    digits = load_digits()
    inputs = torch.from_numpy(digits.data / 16).float()[: BATCH * STEPS]
    labels = torch.from_numpy(digits.target)[: BATCH * STEPS]
    machine = surroundings()
    print(f"{machine['hardware']['cpu']}, torch {torch.__version__}, {runs} runs, {ROUNDS} rounds of {STEPS} steps\n")
    print("| network | plain loop, µs per run and step | stack | ratio | largest difference of a weight |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "benchmark_networks.py").write_text(NETWORKS)
        sys.path.append(directory)
        for name in ("Residual", "Plain"):
            compare(f"benchmark_networks.{name}", runs, inputs, labels)


def compare(target: str, runs: int, inputs: Tensor, labels: Tensor) -> None:
    layer = UserModule(target, "{}", load(target)[1], inputs.shape[1], 10)
    network, modules = NetworkSpec((layer,)), [layer.built(seed) for seed in range(runs)]
    stacked = {
        name: torch.stack([module.get_parameter(name.removeprefix("module.")).detach() for module in modules])
        for name in network.shapes
    }
    engine = VmapEngine(networks=[network] * runs, parameters=stacked, update=UpdateSettings(), seeds=range(runs))
    order, rates = torch.arange(len(inputs)), torch.full((runs,), LR, dtype=torch.float64)
    loops, stacks, sample = [], [], modules[: max(2, runs // 16)]  # some runs tell what a run of the loop costs
    for _ in range(ROUNDS):
        started = time.process_time()
        for module in sample:
            loop(module, inputs, labels)
        loops.append((time.process_time() - started) / len(sample) / STEPS)
        started = time.process_time()
        engine.train_epoch(Epoch(inputs, labels, order, BATCH, rates))
        stacks.append((time.process_time() - started) / runs / STEPS)
    difference = max(
        float((engine.parameters[name][run] - module.get_parameter(name.removeprefix("module.")).detach()).abs().max())
        for run, module in enumerate(sample)
        for name in network.shapes
    )
    assert difference < 1e-3, f"{target} differs from the loop by {difference}: times cannot be compared"
    single_us, stack_us = 1e6 * median(loops), 1e6 * median(stacks)
    print(
        f"| {target.rpartition('.')[2]} | {single_us:.0f} | {stack_us:.0f} | {single_us / stack_us:.1f} | "
        f"{difference:.0e} |",
        flush=True,
    )


def loop(module: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    module.train()
    for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
