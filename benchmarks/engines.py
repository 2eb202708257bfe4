"""What a stack costs in each engine, by shape, optimizer and batch, beside the bare loop and a JAX program.

    python benchmarks/engines.py [--quick] [--jax]

CPU time of one thread for ten epochs of training on digits (1,797 samples) and for ten evaluations of them, per run.
The two engines' losses are compared before anything is timed. Then a thousand seeds of the default network in their
Trainers, without files, the engines and the bare loop by turns. GFLOP/s count the three matrix products of a step;
their share is of the peak of fused multiply-adds that this machine reaches in a loop without memory accesses. `--jax`
adds `jax_peer.py` on two threads. Writes `engines.md` and `engines.json`; `--quick` writes nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import ROOT, bare_loop, stacks_in_trainer, surroundings
from numba import njit
from sklearn.datasets import load_digits
from torch import Tensor

from mlpexp.engine.compiled.engine import CompiledEngine
from mlpexp.engine.compiled.vectors import LINE, fma, full, store
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.optimizers import UpdateSettings

# layer sizes, runs, optimizer, batch size
CASES: list[tuple[tuple[int, ...], int, str, int]] = [
    ((64, 50, 10), 64, "sgd", 32),
    ((64, 50, 10), 64, "adam", 32),
    ((64, 50, 10), 64, "sgd", 5),
    ((64, 50, 10), 64, "sgd", 128),
    ((64, 32, 10), 64, "sgd", 32),
    ((64, 128, 128, 128, 10), 8, "sgd", 32),
    ((64, 256, 256, 10), 4, "sgd", 32),
    ((64, *[16] * 20, 10), 32, "sgd", 32),
]
# in its Trainer: engine, threads, runs
TRAINERS = {
    "compiled": ("compiled", 1, 1000),
    "compiled, 2 threads": ("compiled", 2, 1000),
    "torch": ("torch", 1, 128),
}
EPOCHS = 10
PLACE = Path(__file__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two cases, one repetition; writes nothing")
    parser.add_argument("--jax", action="store_true", help="also the JAX program, 1,000 runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    inputs, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    peak = peak_gflops()
    loop = median_s(lambda: bare_loop(inputs, labels), 1 if arguments.quick else 5)
    rows = [
        measure(*case, inputs, labels, peak, 1 if arguments.quick else 5)
        for case in CASES[: 2 if arguments.quick else None]
    ]
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
        "peak_gflops": peak,
        "bare_loop_ms": 1e3 * loop,
        "rows": rows,
        "trainers": in_their_trainers(inputs, labels, 64 if arguments.quick else 1000, 1 if arguments.quick else 3),
        "jax": jax_peer(1000) if arguments.jax else earlier_jax(),
    }
    text = markdown(document)
    print(text)
    if not arguments.quick:
        PLACE.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
        PLACE.with_suffix(".md").write_text(text)


def measure(
    sizes: tuple[int, ...],
    runs: int,
    optimizer: str,
    batch: int,
    inputs: Tensor,
    labels: Tensor,
    peak: float,
    repeats: int,
) -> dict[str, Any]:
    """CPU ms a run of costs engines, once their losses agree."""
    generator = torch.Generator().manual_seed(0)
    shapes = list(pairwise(sizes))
    spec = multilayer_perceptron(sizes[0], sizes[1:-1], sizes[-1], "tanh")
    fan_ins = [inputs for inputs, _ in shapes for _ in range(2)]
    network: dict[str, Any] = {
        "networks": [spec] * runs,
        "parameters": {
            name: torch.empty(runs, *shape).uniform_(-1, 1, generator=generator) * fan_in**-0.5
            for (name, shape), fan_in in zip(spec.shapes.items(), fan_ins, strict=True)
        },
        "update": UpdateSettings(name=optimizer),
    }
    engines = {"torch": Engine(**network), "compiled": CompiledEngine(**network)}
    order = torch.stack([torch.randperm(len(inputs), generator=generator) for _ in range(runs)])
    rates = torch.full((runs,), 0.02 if optimizer == "sgd" else 0.001, dtype=torch.float64)
    for engine in engines.values():
        engine.train_epoch(Epoch(inputs, labels, order, batch, rates))
    losses = [engine.train_outcomes.losses.double().mean(1) for engine in engines.values()]
    difference = float((losses[0] / losses[1] - 1).abs().max())
    assert difference < 1e-5, f"{sizes}: the engines' losses differ by {difference:.1e}"
    row: dict[str, Any] = {"sizes": sizes, "optimizer": optimizer, "batch": batch, "runs": runs, "apart": difference}
    for name, engine in engines.items():
        scale = 1e3 * EPOCHS / runs
        row[f"{name}_train_ms"] = scale * median_s(
            lambda engine=engine: engine.train_epoch(Epoch(inputs, labels, order, batch, rates)), repeats
        )
        row[f"{name}_evaluate_ms"] = scale * median_s(lambda engine=engine: engine.evaluate(inputs, labels), repeats)
    operations = EPOCHS * len(inputs) * sum(6 * i * o for i, o in pairwise(sizes))
    row["gflops"] = operations / row["compiled_train_ms"] / 1e6
    row["share_of_peak"] = row["gflops"] / peak
    return row


def in_their_trainers(inputs: Tensor, labels: Tensor, limit: int, repeats: int) -> dict[str, Any]:
    """For each engine ms a run, of a clock and of processor, and costs of the bare loops around it, as medians.

    Args:
        limit: of the runs.
    """

    def bare() -> tuple[float, float]:
        started, used = time.perf_counter(), time.process_time()
        bare_loop(inputs, labels)
        return time.perf_counter() - started, time.process_time() - used

    turns = {
        name: (min(runs, limit), stacks_in_trainer(min(runs, limit), engine=kind, threads=threads))
        for name, (kind, threads, runs) in TRAINERS.items()
    }
    measured: dict[str, list[list[float]]] = {name: [] for name in turns}
    before = bare()
    for _ in range(repeats):
        for name, (runs, turn) in turns.items():
            spent, after = turn(), bare()
            loops = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            ms = [1e3 * spent.wall_s / runs, 1e3 * spent.cpu_s / runs]
            measured[name].append([*ms, loops[0] / ms[0] * 1e3, loops[1] / ms[1] * 1e3])
            before = after
    keys = ("wall_ms", "cpu_ms", "times_faster", "times_less_processor")
    return {
        name: {"runs": turns[name][0]} | dict(zip(keys, map(statistics.median, zip(*rows, strict=True)), strict=True))
        for name, rows in measured.items()
    }


def median_s(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of this thread, after one call that is not counted."""
    call()
    spent = []
    for _ in range(repeats):
        started = time.thread_time()
        call()
        spent.append(time.thread_time() - started)
    return statistics.median(spent)


def peak_gflops() -> float:
    """Fused multiply-adds on numbers in registers: 12 independent chains of 16 numbers."""

    @njit(nogil=True)
    def chains(out, count):
        a = b = c = d = e = f = g = h = i = j = k = m = full(1.0)
        x = full(0.999)
        for _ in range(count):
            a, b, c, d = fma(a, x, 1.0), fma(b, x, 1.0), fma(c, x, 1.0), fma(d, x, 1.0)
            e, f, g, h = fma(e, x, 1.0), fma(f, x, 1.0), fma(g, x, 1.0), fma(h, x, 1.0)
            i, j, k, m = fma(i, x, 1.0), fma(j, x, 1.0), fma(k, x, 1.0), fma(m, x, 1.0)
        store(out, 0, a + b + c + d + e + f + g + h + i + j + k + m)

    out, count = np.zeros(LINE, np.float32), 5_000_000
    return 2 * 12 * LINE * count / min(median_s(lambda: chains(out, count), 1) for _ in range(5)) / 1e9


def jax_peer(runs: int) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/jax_peer.py"), str(runs)], capture_output=True, text=True, check=True
    )
    return {"runs": runs, "date": datetime.now(UTC).isoformat(timespec="seconds"), **json.loads(process.stdout)}


def earlier_jax() -> dict[str, Any] | None:
    """What was measured last."""
    path = PLACE.with_suffix(".json")
    earlier = json.loads(path.read_text()) if path.exists() else {}
    return earlier.get("jax") and {"date": earlier["date"], **earlier["jax"]}


def markdown(document: dict[str, Any]) -> str:
    hardware = document["hardware"]
    text = (
        f"{hardware['cpu']}, {hardware['vector_instructions']}, one thread, {document['date']}. "
        f"Peak of fused multiply-adds {document['peak_gflops']:.0f} GFLOP/s; bare loop in torch (64-50-10, ten epochs, "
        f"evaluation of all samples) {document['bare_loop_ms']:.0f} ms.\n\n"
        "CPU ms a run for ten epochs: training + evaluation of all samples.\n\n"
        f"{_cases_table(document['rows'])}"
        "\nSeeds of 64-50-10 in their Trainers, with evaluation of all samples, without files, beside the bare loop, "
        f"by turns; the load of the machine when the measurement began was {hardware['load']}.\n\n"
        f"{_trainers_table(document['trainers'])}"
    )
    if peer := document["jax"]:
        ms = 1e3 * peer["train_s"] / peer["runs"]
        text += (
            f"\nJAX (`vmap` over {peer['runs']:,} runs, `scan` over steps, all cores, no files): {ms:.1f} ms a run, "
            f"and {peer['compile_s']:.1f} s to compile ({peer['date']}).\n"
        )
    return text


def _cases_table(rows: Sequence[dict[str, Any]]) -> str:
    text = _line(["shape", "optimizer", "batch", "torch engine", "compiled engine", "times", "GFLOP/s", "of peak"])
    text += _line(["---"] * 8)
    for row in rows:
        sizes = row["sizes"]
        shape = "-".join(map(str, sizes)) if len(sizes) < 8 else f"{sizes[0]}-{len(sizes) - 2} x {sizes[1]}-{sizes[-1]}"
        costs = {name: (row[f"{name}_train_ms"], row[f"{name}_evaluate_ms"]) for name in ("torch", "compiled")}
        cells = [shape, row["optimizer"], row["batch"]]
        cells += [f"{train:.2f} + {evaluate:.2f}" for train, evaluate in costs.values()]
        times = sum(costs["torch"]) / sum(costs["compiled"])
        text += _line([*cells, f"{times:.1f}", f"{row['gflops']:.0f}", f"{row['share_of_peak']:.0%}"])
    return text


def _trainers_table(rows: dict[str, Any]) -> str:
    text = _line(["engine", "runs", "ms a run", "ms of processor", "times faster", "times less processor"])
    text += _line(["---"] * 6)
    for name in TRAINERS:
        row = rows[name]
        cells = [name, f"{row['runs']:,}", f"{row['wall_ms']:.2f}", f"{row['cpu_ms']:.2f}"]
        text += _line([*cells, f"{row['times_faster']:.1f}", f"{row['times_less_processor']:.1f}"])
    return text


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


if __name__ == "__main__":
    main()
