"""What the benchmarks share: whole processes with their time and memory, the notebook's bare loop, the machine."""

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

from mlpexp.runtime import software_versions

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
    started = time.perf_counter()
    with subprocess.Popen(list(command), cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - started
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.decode()}")
    return Spent(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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
    below = inputs.shape[1]
    for width in widths:
        layers += [nn.Linear(below, width), activation()]
        below = width
    network = nn.Sequential(*layers, nn.Linear(below, 10))
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


def close(one: Curve, other: Curve) -> bool:
    """Whether two trainings have the same losses and accuracies, but for rounding in their averages."""
    return len(one) == len(other) and all(
        abs(a - b) <= 1e-6 for pair, partner in zip(one, other, strict=True) for a, b in zip(pair, partner, strict=True)
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
