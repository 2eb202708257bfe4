"""What the benchmarks share: whole processes and stacks with their times, the notebook's bare loop, the machine."""

import gc
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp import data as datasets
from mlpexp.config import checks, schema
from mlpexp.engine.compiled.compile_cache import load_kernels
from mlpexp.runtime import fast_imports, software_versions
from mlpexp.training import trainer_setup
from mlpexp.training.engine_choice import with_engine
from mlpexp.training.planner import plan
from mlpexp.training.train_stack import train_stack

ROOT = Path(__file__).parents[1]
THREADS = 1  # as a run alone has

Curve = list[tuple[float, float]]


class Spent(NamedTuple):
    """What a process cost."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def spend(command: Sequence[str], directory: Path | None = None) -> Spent:
    """Run a command to its end, in an empty directory unless one is given."""
    if directory is None:
        with tempfile.TemporaryDirectory() as empty:
            return spend(command, Path(empty))
    # as an installed program, whose modules are compiled once
    around = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    started = time.perf_counter()
    with subprocess.Popen(list(command), cwd=directory, env=around, **streams) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()}")
    return Spent(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def stacks_in_trainer(runs: int, *, epochs: int = 10, **settings: Any) -> Callable[[], Spent]:
    """A function that trains the default network with seeds 0..runs in its stacks, with evaluation of all samples.

    Args:
        settings: of the configuration's `stack`, and `accelerator`.
    """
    plain = schema.defaults()
    plain["data"]["split"], plain["trainer"]["max_epochs"] = "none", epochs
    plain["trainer"]["accelerator"] = settings.get("accelerator", "cpu")
    plain["stack"] |= {key: value for key, value in settings.items() if key != "accelerator"}
    plain["tracking"] |= {"figures": False, "diagnostics": False}
    default = with_engine(checks.parse(plain))
    gc.set_threshold(fast_imports.ALLOCATIONS)  # as in the commands
    configs = [default.with_seed(seed) for seed in range(runs)]  # which share their parts, as those of a sweep do
    data = [datasets.prepare(cfg.data) for cfg in configs]

    def train(members: Sequence[int]) -> None:
        with trainer_setup.quiet():
            train_stack([configs[i] for i in members], [data[i] for i in members])

    load_kernels(configs, print)
    train([0, 1])  # what is loaded or compiled once
    stacks = [stack.runs for stack in plan(configs, data, memory_bytes=1 << 30).stacks]

    def turn() -> Spent:
        started, used = time.perf_counter(), time.process_time()
        for members in stacks:
            train(members)
        spent = Spent(time.perf_counter() - started, time.process_time() - used, 0.0)
        torch.set_num_threads(THREADS)
        return spent

    return turn


def bare_loop(
    inputs: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    widths: Sequence[int] = (50,),
    activation: type[nn.Module] = nn.Tanh,
    epochs: int = 10,
    order: Callable[[int], Tensor] | None = None,
) -> Curve:
    """The notebook's third part: loss and accuracy on everything after each epoch.

    Args:
        order: the samples' order in an epoch; None for their own order.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs_of_layer = inputs.shape[1]
    for width in widths:
        layers += [nn.Linear(inputs_of_layer, width), activation()]
        inputs_of_layer = width
    network = nn.Sequential(*layers, nn.Linear(inputs_of_layer, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    curve = []
    for epoch in range(epochs):
        x, y = (inputs, labels) if order is None else (inputs[order(epoch)], labels[order(epoch)])
        network.train()
        for start in range(0, len(x), 32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[start : start + 32]), y[start : start + 32]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            logits = network(inputs)
            loss, hits = F.cross_entropy(logits, labels), logits.argmax(1) == labels
        curve.append((loss.item(), hits.double().mean().item()))
    return curve


def close(curve: Curve, reference: Curve, tolerance: float = 1e-6) -> bool:
    """Whether two trainings have the same losses and accuracies, but for rounding in their averages.

    Args:
        tolerance: of a number; larger where the two have other roundings within.
    """
    return len(curve) == len(reference) and all(
        abs(a - b) <= tolerance
        for pair, partner in zip(curve, reference, strict=True)
        for a, b in zip(pair, partner, strict=True)
    )


def surroundings() -> dict[str, Any]:
    """Hardware and software."""
    path = Path("/proc/cpuinfo")
    rows = path.read_text().splitlines() if path.exists() else []
    names = [row.split(":")[1].strip() for row in rows if row.startswith("model name")]
    return {
        "hardware": {
            "cpu": names[0] if names else platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "threads": THREADS,
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": software_versions.versions(),
        "git_commit": software_versions.git_commit(),
    }
