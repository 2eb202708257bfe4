"""What a run of a sweep costs, whole processes from start to last file, beside four other ways. All in one go.

    python benchmarks/sweeps.py [--quick]

The work: digits, all 1,797 of them (`data.split=none`), 10 epochs, batch 32, plain gradient descent. First the
answers are compared, then the times. Writes `sweeps.md`, `sweeps.json` and `sweeps.svg` beside itself, with
hardware, versions and date; `--quick` does everything in a small form and writes nothing.
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from measuring import ROOT, THREADS, Curve, Spent, bare_loop, close, spend, surroundings
from torch import nn

from mlpexp import checks, config, runs, training
from mlpexp.data.batches import epoch_order
from mlpexp.data.digits import digits_table
from mlpexp.data.prepared import prepare
from mlpexp.sweep.plan import plan
from mlpexp.sweep.results import load_results
from mlpexp.sweep.stack import train_stack

DEPTHS, WIDTHS = (1, 2, 3), (32, 64, 128)
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
GRID = ["model.depth=1,2,3", "model.width=32,64,128", "model.activation=tanh,relu,gelu"]
FACTORS = ("model.depth", "model.width", "model.activation")
TRAIN = [sys.executable, str(ROOT / "scripts/train.py")]
WORK = ["data.split=none"]
# at most so many ms a run on the machine of the targets, at least so many times faster than the bare loop
TARGETS = {"seeds": (12, 8.0), "grid x40": (22, 6.0), "grid x5": (60, 2.5), "grid x1": (250, None)}
ENGINE_TARGET = 18.0
MEMORY_TARGET = 1.3


class Size(NamedTuple):
    """How much of everything."""

    seeds: int = 1000
    many: int = 40
    few: int = 5
    sample: int = 6  # runs of the basic launcher
    bare: int = 5  # repetitions of the bare loop of the default network
    memory: tuple[int, int] = (1000, 10_000)
    epochs: int = 10


QUICK = Size(seeds=4, many=2, few=1, sample=2, bare=1, memory=(4, 8), epochs=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form, in some seconds a sweep; writes nothing")
    parser.add_argument("--no-memory", action="store_true", help="leave out the 10,000 runs")
    parser.add_argument("--scikit-learn", type=int, help=argparse.SUPPRESS)  # epochs: the part in its own process
    asked = parser.parse_args()
    if asked.scikit_learn:
        print(json.dumps(grid_search(asked.scikit_learn)))
        return
    torch.set_num_threads(THREADS)
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings()}
    document |= measure(QUICK if asked.quick else Size(), memory=not asked.no_memory)
    table = markdown(document)
    print(table)
    if not asked.quick:
        place = Path(__file__)
        place.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
        place.with_suffix(".md").write_text(table)
        plot(document, place.with_suffix(".svg"))


def measure(size: Size, *, memory: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bare = bare_loops(size)
        found: dict[str, Any] = {}
        ours = {
            "seeds": [f"seed=range({size.seeds})"],
            "grid x1": GRID,
            f"grid x{size.few}" if size.few > 1 else "grid x5": [*GRID, f"seed=range({size.few})"],
            f"grid x{size.many}" if size.many > 2 else "grid x40": [*GRID, f"seed=range({size.many})"],
        }
        for name, overrides in ours.items():
            say(f"{name}: our launcher")
            found[name] = sweep(overrides, place / name.replace(" ", "-"), size)
            say(f"  {found[name]['wall_s']:.1f} s, {found[name]['cpu_s']:.1f} s of processor")
        say("the answers are compared")
        assert_same_answers(place / "seeds", bare["curves"], FACTORS[:0])
        assert_same_answers(place / "grid-x1", bare["curves"], FACTORS)
        say(f"the grid by hydra/launcher=basic: {size.sample} runs and 1")
        basic = basic_launcher(place, size)
        say("the grid by scikit-learn")
        sklearn = scikit_learn(place, size)
        say("the engine in its Trainer, without files")
        engine = {kind: engine_alone(size, exact=kind == "exact") for kind in ("exact", "fused")}
        say(f"  {engine}")
        again = bare_loops(size)  # on both sides of all the rest
        grown = memory_growth(size) if memory else None
    per_run = {key: statistics.mean([bare[key], again[key]]) for key in ("seeds", "grid", "seeds_cpu", "grid_cpu")}
    say(f"bare loop, s a run: {per_run}")
    for name, row in found.items():
        alone = per_run["seeds" if name == "seeds" else "grid"]
        row["times_faster_than_bare_loop"] = alone / row["s_per_run"]
        cpu = per_run["seeds_cpu" if name == "seeds" else "grid_cpu"]
        row["times_less_processor_than_bare_loop"] = cpu * row["runs"] / row["cpu_s"]
        row["target_times"] = TARGETS[name][1]
        if name != "seeds":
            row["times_faster_than_basic_launcher"] = basic["s_per_run"] / row["s_per_run"]
    for row in engine.values():
        row["times_less_processor_than_bare_loop"] = per_run["seeds_cpu"] * row["runs"] / row["cpu_s"]
        row["times_faster_than_bare_loop"] = per_run["seeds"] / row["s_per_run"]
    return {
        "size": size._asdict(),
        "bare_loop_s_per_run": per_run,
        "sweeps": found,
        "basic_launcher": basic,
        "scikit_learn": sklearn,
        "engine": engine,
        "memory": grown,
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bare_loops(size: Size) -> dict[str, Any]:
    """Seconds a run of the default network and, on average, of the grid's; and the curves."""
    say("the bare loop")
    table = digits_table()
    x, y = torch.from_numpy(table.inputs / table.inputs.max()), torch.from_numpy(table.labels)
    curves: dict[tuple[Any, ...], Curve] = {}

    def seconds(seed: int, depth: int, width: int, activation: str) -> tuple[float, float]:
        loop = partial(
            bare_loop, x, y, seed=seed, widths=[width] * depth, activation=ACTIVATIONS[activation], epochs=size.epochs
        )
        started, used = time.perf_counter(), time.process_time()
        # the initial weights are our run's own: nn.Linear's, drawn with this seed
        curves[seed, depth, width, activation] = loop(order=lambda epoch: epoch_order(len(y), seed, epoch))
        return time.perf_counter() - started, time.process_time() - used

    seconds(0, 1, 50, "tanh")  # a warm-up
    default = [seconds(seed, 1, 50, "tanh") for seed in range(size.bare)]
    grid = [seconds(0, *point) for point in product(DEPTHS, WIDTHS, ACTIVATIONS)]
    walls, cpus = (
        {"seeds": statistics.median(one[i] for one in default), "grid": statistics.mean(one[i] for one in grid)}
        for i in (0, 1)
    )
    return walls | {f"{name}_cpu": value for name, value in cpus.items()} | {"curves": curves}


def sweep(overrides: Sequence[str], place: Path, size: Size, *more: str) -> dict[str, Any]:
    """A whole process of ours, from the command to the last file."""
    place.mkdir(parents=True)
    epochs = f"trainer.max_epochs={size.epochs}"
    spent = spend([*TRAIN, "-m", *WORK, epochs, "name=it", *overrides, *more], place)
    results = [runs.read_result(marker.parent) for marker in (place / "multirun/it").glob(f"*/{runs.RESULT}")]
    assert results and all(result.status == "ok" for result in results)
    return per_run(spent, len(results))


def per_run(spent: Spent, count: int) -> dict[str, Any]:
    return {"runs": count, **spent._asdict(), "s_per_run": spent.wall_s / count}


def assert_same_answers(place: Path, curves: dict[tuple[Any, ...], Curve], factors: Sequence[str]) -> None:
    """Each run whose bare loop was measured has its losses and accuracies."""
    compared = 0
    for row in load_results(place / "multirun/it"):
        point = [row[name] for name in factors] or [1, 50, "tanh"]
        curve = curves.get((row.get("seed", 0), *point))
        if curve is not None:
            with (place / "multirun/it" / row["name"] / runs.METRICS).open() as file:
                ours = [(float(line["val/loss"]), float(line["val/acc"])) for line in csv.DictReader(file)]
            assert close(ours, curve), f"{row['name']} differs from the bare loop: their times cannot be compared"
            compared += 1
    assert compared >= (len(DEPTHS) * len(WIDTHS) * len(ACTIVATIONS) if factors else 1)


def basic_launcher(place: Path, size: Size) -> dict[str, Any]:
    """The same runs by Hydra's own launcher: the start, and what each run more costs."""

    def wall(count: int) -> float:
        # every fourth or so of the grid: all depths and widths are in the sample
        spread = ["model.depth=2", "model.width=64", f"seed=range({count})"]
        return sweep(spread, place / f"basic-{count}", size, "hydra/launcher=basic")["wall_s"]

    one, some = wall(1), wall(size.sample)
    marginal = (some - one) / (size.sample - 1)
    return {"runs_measured": size.sample, "start_s": one - marginal, "s_per_run": marginal, "extrapolated": True}


def scikit_learn(place: Path, size: Size) -> dict[str, Any]:
    (place / "sklearn").mkdir()
    command = [sys.executable, str(Path(__file__).absolute()), "--scikit-learn", str(size.epochs)]
    return per_run(spend(command, place / "sklearn"), len(DEPTHS) * len(WIDTHS) * len(ACTIVATIONS))


def grid_search(epochs: int) -> float:
    """scikit-learn's grid search over the same grid (sigmoid in place of gelu, which it lacks); best accuracy."""
    import warnings

    import numpy as np
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    os.environ["PYTHONWARNINGS"] = "ignore"  # ten epochs do not converge, it says 27 times
    warnings.simplefilter("ignore")
    table = digits_table()
    everything = np.arange(len(table.labels))
    network = MLPClassifier(
        solver="sgd", learning_rate_init=0.1, momentum=0, alpha=0, batch_size=32, max_iter=epochs, random_state=0
    )
    grid = {
        "hidden_layer_sizes": [(width,) * depth for depth, width in product(DEPTHS, WIDTHS)],
        "activation": ["tanh", "relu", "logistic"],
    }
    search = GridSearchCV(network, grid, cv=[(everything, everything)], refit=False, n_jobs=2)
    search.fit(table.inputs / 16, table.labels)
    if epochs >= 10:
        assert search.best_score_ > 0.95, search.best_score_
    return float(search.best_score_)


def engine_alone(size: Size, *, exact: bool) -> dict[str, Any]:
    """Seconds a run of the seeds' stacks in their Trainers."""
    configs = []
    for seed in range(size.seeds):
        plain = config.defaults()
        plain["seed"], plain["data"]["split"], plain["stack"]["exact"] = seed, "none", exact
        plain["trainer"]["max_epochs"] = size.epochs
        plain["tracking"] |= {"figures": False, "diagnostics": False}
        configs.append(checks.parse(plain))
    data = [prepare(digits_table(), cfg.data) for cfg in configs]
    stacks = plan(configs, data, 1 << 30).stacks
    with training.Quiet():
        train_stack(configs[:2], data[:2])  # a warm-up
        started, used = time.perf_counter(), time.process_time()
        for stack in stacks:
            train_stack([configs[i] for i in stack.runs], [data[i] for i in stack.runs])
        elapsed = time.perf_counter() - started
        used = time.process_time() - used
    return {"runs": size.seeds, "wall_s": elapsed, "cpu_s": used, "s_per_run": elapsed / size.seeds}


def memory_growth(size: Size) -> dict[str, Any]:
    """Peak memory of many short runs beside that of fewer."""
    say("memory")
    small, large = (
        spend([*TRAIN, "-m", f"seed=range({count})", "name=it", "trainer.max_epochs=1", "data.batch_size=512"])
        for count in size.memory
    )
    return {
        "runs": list(size.memory),
        "peak_mib": [small.peak_mib, large.peak_mib],
        "wall_s": [small.wall_s, large.wall_s],
        "ratio": large.peak_mib / small.peak_mib,
        "target": MEMORY_TARGET,
    }


def markdown(found: dict[str, Any]) -> str:
    """The whole document as a page."""
    hardware, size = found["hardware"], found["size"]
    bare, basic, sklearn = found["bare_loop_s_per_run"], found["basic_launcher"], found["scikit_learn"]
    named = {"seeds": f"{size['seeds']:,} seeds of 64-50-10"}
    lines = [
        "# What a run of a sweep costs",
        "",
        f"Whole processes, from the command to the last file on disk; {found['date']}, {hardware['cpu']}, "
        f"{hardware['cores']} cores ({hardware['vector_instructions']}), load {hardware['load']} at the start, "
        f"torch {found['versions']['torch']}, lightning {found['versions']['lightning']}.",
        f"The work: digits (1,797 samples), {size['epochs']} epochs, batch 32. The grid: depth 1, 2, 3, width 32, "
        "64, 128, tanh, relu, gelu. Losses and accuracies of our runs and of the bare loop agreed before "
        "anything was compared.",
        "",
        "| | runs | seconds | of processor | ms a run | beside the bare loop | beside launcher=basic | peak MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in found["sweeps"].items():
        times = row["times_faster_than_bare_loop"]
        wanted = f", wanted {row['target_times']:g}" if row["target_times"] else ""
        slow = row.get("times_faster_than_basic_launcher")
        lines.append(
            f"| **{named.get(name, name)}** | {row['runs']:,} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | "
            f"{1000 * row['s_per_run']:.1f} | {times:.1f} times faster{wanted} "
            f"({row['times_less_processor_than_bare_loop']:.1f} by processor) | "
            f"{f'{slow:.0f} times faster' if slow else ''} | {row['peak_mib']:.0f} |"
        )
    for kind, row in found["engine"].items():
        wanted = f", wanted {ENGINE_TARGET:g}" if kind == "exact" else ""
        lines.append(
            f"| the engine in its Trainer, {kind} | {row['runs']:,} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | "
            f"{1000 * row['s_per_run']:.1f} | {row['times_faster_than_bare_loop']:.1f} times faster{wanted} "
            f"({row['times_less_processor_than_bare_loop']:.1f} by processor) | | |"
        )
    grid_s = basic["start_s"] + 27 * basic["s_per_run"]
    lines += [
        f"| bare loop of 64-50-10 | 1 | | | {1000 * bare['seeds']:.1f} | 1 | | |",
        f"| bare loop, average of the grid | 1 | | | {1000 * bare['grid']:.1f} | 1 | | |",
        f"| scikit-learn's GridSearchCV, n_jobs=2, no files | {sklearn['runs']} | {sklearn['wall_s']:.1f} | "
        f"{sklearn['cpu_s']:.1f} | {1000 * sklearn['s_per_run']:.1f} | | | {sklearn['peak_mib']:.0f} |",
        f"| hydra/launcher=basic, the grid once | 27 | {grid_s:.0f} | | {1000 * basic['s_per_run']:.0f} more each | "
        f"| 1 | |",
        "",
        f"The last row is extrapolated from {basic['runs_measured']} runs and 1 of depth 2 and width 64.",
    ]
    if (memory := found["memory"]) is not None:
        small, large = memory["runs"]
        lines.append(
            f"Peak memory of {large:,} runs of one epoch is {memory['ratio']:.2f} times that of {small:,} "
            f"({memory['peak_mib'][1]:.0f} and {memory['peak_mib'][0]:.0f} MiB), wanted at most {memory['target']:g}."
        )
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """Milliseconds a run, on a logarithmic axis."""
    from matplotlib.figure import Figure

    bars = {f"mlpexp, {name}": 1000 * row["s_per_run"] for name, row in found["sweeps"].items()}
    bars |= {
        "bare loop, 64-50-10": 1000 * found["bare_loop_s_per_run"]["seeds"],
        "bare loop, grid": 1000 * found["bare_loop_s_per_run"]["grid"],
        "scikit-learn, grid": 1000 * found["scikit_learn"]["s_per_run"],
        "hydra/launcher=basic, grid": 1000 * found["basic_launcher"]["s_per_run"],
    }
    order = sorted(bars, key=bars.__getitem__, reverse=True)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#0072B2" if name.startswith("mlpexp") else "#999999" for name in order]
    drawn = axes.barh(order, [bars[name] for name in order], color=colours)
    axes.bar_label(drawn, [f"{bars[name]:,.3g}" for name in order], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(right=3 * max(bars.values()))
    axes.set_xlabel("ms a run, whole process")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
