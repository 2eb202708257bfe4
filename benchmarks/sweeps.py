"""What a run of a sweep costs, whole processes from start to last file, beside four other ways.

    python benchmarks/sweeps.py [--quick] [--only PART …] [--again]

The work: digits, all 1,797 of them (`data.split=none`), 10 epochs, batch 32, plain gradient descent. Each part
measures both sides by turns, after it has compared their answers, and is written to `sweeps.json` as soon as it is
done, with hardware, versions and date; the same command again measures what is missing there. At the end
`sweeps.md` and `sweeps.svg` are made of what is there. `--only 'large table'` takes minutes and is no part of the rest;
`--quick` does everything else in a small form, in a minute and a half, and writes nothing.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from measuring import ROOT, THREADS, Curve, Spent, bare_loop, close, spend, surroundings
from torch import nn

from mlpexp import data as datasets
from mlpexp.cli import hydra_app
from mlpexp.config.compose import Composer
from mlpexp.config.schema import DataConfig
from mlpexp.data.batches import epoch_order
from mlpexp.store import file_names, run_directory
from mlpexp.store.results_table import load_results
from mlpexp.sweep.checked_runs import check
from mlpexp.sweep.grid import specs

DEPTHS, WIDTHS = (1, 2, 3), (32, 64, 128)
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
GRID = ["model.depth=1,2,3", "model.width=32,64,128", "model.activation=tanh,relu,gelu"]
FACTORS = ("model.depth", "model.width", "model.activation")
NUM_ARCHITECTURES = len(DEPTHS) * len(WIDTHS) * len(ACTIVATIONS)
TRAIN = [sys.executable, str(ROOT / "scripts/train.py")]
WORK = ["data.split=none"]
TARGETS = {"seeds": 15, "many": 14, "few": 4.5, "grid": 1.4}  # so many times faster than the bare loop
TOLERANCE = 5e-3  # of losses and accuracies after ten epochs: the engines round differently, and training amplifies it
COMPOSE_TARGET_MS = 2.0
MEMORY_TARGET = 1.3
FURTHER_TARGET = 0.6  # of the processor time of training anew
SETTLE_S = 8  # ext4 does not use the places of files again that were removed in the last five seconds
PLACE = Path(__file__)


class Size(NamedTuple):
    """How much of everything."""

    seeds: int = 1000
    many: int = 40
    few: int = 5
    repeats: int = 3  # of each pair of sides, by turns
    sample: int = 6  # runs of the basic launcher
    bare: int = 5  # bare loops of the default network each time
    composed: int = 1000
    further: int = 1000
    table: tuple[int, int] = (10_000, 100_000)
    epochs: int = 10


QUICK = Size(seeds=64, many=3, few=2, repeats=1, sample=2, bare=1, composed=50, further=8, table=(8, 16), epochs=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a small form of everything but the large table; writes nothing"
    )
    parser.add_argument("--only", action="extend", nargs="+", choices=PARTS, help="measure these, also once more")
    parser.add_argument("--again", action="store_true", help="measure also what has been measured")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    size = QUICK if arguments.quick else Size()
    path = PLACE.with_suffix(".json")
    document: dict[str, Any] = {"size": size._asdict(), "parts": {}}
    if path.exists() and not arguments.quick:
        earlier = json.loads(path.read_text())
        now = json.loads(json.dumps(document["size"]))
        if now == now | earlier.get("size", {}):  # a size may have been added since
            document["parts"] = earlier["parts"]
    for name in arguments.only or [name for name in PARTS if name != "large table"]:
        if name in document["parts"] and not (arguments.only or arguments.again):
            say(f"{name}: measured on {document['parts'][name]['date']}")
            continue
        say(f"{name} …")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            header = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings()}
            document["parts"][name] = header | PARTS[name](size, Path(scratch))
        say(f"  {numbers_of(document['parts'][name])}; {time.perf_counter() - started:.0f} s")
        if not arguments.quick:
            path.write_text(json.dumps(document, indent=2) + "\n")
    table = markdown(document)
    print(table)
    if arguments.quick:
        with tempfile.TemporaryDirectory() as scratch:
            plot(document["parts"], Path(scratch) / "sweeps.svg")
    else:
        PLACE.with_suffix(".md").write_text(table)
        plot(document["parts"], PLACE.with_suffix(".svg"))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def numbers_of(part: Mapping[str, Any]) -> str:
    """The numbers of a part."""
    return ", ".join(f"{name} {value:.4g}" for name, value in part.items() if isinstance(value, int | float))


def sweep_beside_bare_loop(name: str, overrides: Sequence[str], seeds: int, size: Size, parent: Path) -> dict[str, Any]:
    """Whole sweeps of ours and bare loops by turns: medians, and the ratio of each sweep to the loops around it."""
    loops = bare_seeds if name == "seeds" else bare_grid
    curves, before = loops(size)
    sweeps, wall, cpu = [], [], []
    for turn in range(size.repeats):
        directory = parent / f"{name}-{turn}"
        sweeps.append(sweep([*overrides, f"seed=range({seeds})"], directory, size))
        if turn == 0:
            assert_same_answers(directory, curves, () if name == "seeds" else FACTORS)
        _, after = loops(size)
        wall.append((before.wall_s + after.wall_s) / 2 / sweeps[-1]["s_per_run"])
        cpu.append((before.cpu_s + after.cpu_s) / 2 / (sweeps[-1]["cpu_s"] / sweeps[-1]["runs"]))
        before = after
    medians = {key: statistics.median(sweep_cost[key] for sweep_cost in sweeps) for key in sweeps[0]}
    return medians | {
        "turns": size.repeats,
        "bare_loop_s": medians["s_per_run"] * statistics.median(wall),
        "times_faster_than_bare_loop": statistics.median(wall),
        "times_less_processor_than_bare_loop": statistics.median(cpu),
        "target_times": TARGETS[name],
    }


class Loops(NamedTuple):
    """A bare loop's seconds, on average over its networks."""

    wall_s: float
    cpu_s: float


def bare_seeds(size: Size) -> tuple[dict[tuple[Any, ...], Curve], Loops]:
    return bare_loops([(seed, 1, 50, "tanh") for seed in range(size.bare)], size)


def bare_grid(size: Size) -> tuple[dict[tuple[Any, ...], Curve], Loops]:
    return bare_loops([(0, *point) for point in product(DEPTHS, WIDTHS, ACTIVATIONS)], size)


def bare_loops(points: Sequence[tuple[int, int, int, str]], size: Size) -> tuple[dict[tuple[Any, ...], Curve], Loops]:
    """The curves by seed, depth, width, activation; and the seconds."""
    table = datasets.load(DataConfig())
    x, y = torch.from_numpy(table.inputs / table.inputs.max()), torch.from_numpy(table.labels)
    loop = partial(bare_loop, x, y)
    loop(epochs=1)  # a warm-up
    curves: dict[tuple[Any, ...], Curve] = {}
    started, used = time.perf_counter(), time.process_time()
    for seed, depth, width, activation in points:
        # the initial weights are our run's own: nn.Linear's, drawn with this seed
        curves[seed, depth, width, activation] = loop(
            seed=seed,
            widths=[width] * depth,
            activation=ACTIVATIONS[activation],
            epochs=size.epochs,
            order=lambda epoch, seed=seed: epoch_order(len(y), seed, epoch),
        )
    walls, cpus = time.perf_counter() - started, time.process_time() - used
    return curves, Loops(walls / len(points), cpus / len(points))


def sweep(overrides: Sequence[str], directory: Path, size: Size, *more: str) -> dict[str, Any]:
    """A whole process of ours, from the command to the last file."""
    directory.mkdir(parents=True)
    epochs = f"trainer.max_epochs={size.epochs}"
    spent = spend([*TRAIN, "-m", *WORK, epochs, "name=it", *overrides, *more], directory)
    results = [
        run_directory.read_result(marker.parent)
        for marker in (directory / "multirun/it").glob(f"*/{file_names.RESULT}")
    ]
    # a deep network may not have learned anything yet after one or two epochs
    assert results and {result.status for result in results} <= {"ok"} | (
        {"chance", "diverged"} if size.epochs < 10 else set()
    )
    return per_run(spent, len(results))


def per_run(spent: Spent, count: int) -> dict[str, Any]:
    return {"runs": count, **spent._asdict(), "s_per_run": spent.wall_s / count}


def assert_same_answers(directory: Path, curves: dict[tuple[Any, ...], Curve], factors: Sequence[str]) -> None:
    """Each run whose bare loop was measured has its losses and accuracies."""
    compared = 0
    for row in load_results(directory / "multirun/it"):
        point = [row[name] for name in factors] or [1, 50, "tanh"]
        curve = curves.get((row.get("seed", 0), *point))
        if curve is not None:
            with (directory / "multirun/it" / row["name"] / file_names.METRICS).open() as file:
                ours = [(float(line["val/loss"]), float(line["val/acc"])) for line in csv.DictReader(file)]
            assert close(ours, curve, TOLERANCE), (
                f"{row['name']} differs from the bare loop: their times cannot be compared"
            )
            compared += 1
    assert compared >= (NUM_ARCHITECTURES if factors else 1)


def basic_launcher(size: Size, directory: Path) -> dict[str, Any]:
    """The same runs by Hydra's own launcher: the start, and what each run more costs."""

    def wall(count: int) -> float:
        # every fourth or so of the grid: all depths and widths are in the sample
        overrides = ["model.depth=2", "model.width=64", f"seed=range({count})"]
        return sweep(overrides, directory / f"basic-{count}", size, "hydra/launcher=basic")["wall_s"]

    first_wall, sample_wall = wall(1), wall(size.sample)
    marginal = (sample_wall - first_wall) / (size.sample - 1)
    return {"runs_measured": size.sample, "start_s": first_wall - marginal, "s_per_run": marginal, "extrapolated": True}


def scikit_learn(size: Size, directory: Path) -> dict[str, Any]:
    (directory / "sklearn").mkdir()
    command = [sys.executable, str(ROOT / "benchmarks/grid_search.py"), str(size.epochs)]
    return per_run(spend(command, directory / "sklearn"), NUM_ARCHITECTURES)


def composition(size: Size, directory: Path) -> dict[str, Any]:
    """Composing and checking configurations, as the launcher does before anything is trained."""
    hydra_app.register()
    runs = specs([[f"seed={i}", f"optimizer.lr={0.01 * (1 + i % 10)}"] for i in range(size.composed)])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        times = []
        for _ in range(size.repeats):
            started = time.perf_counter()
            check(Composer(loader, master), runs)
            times.append(time.perf_counter() - started)
        before = time.perf_counter()
        loader.load_sweep_config(master, runs[-1].texts)
        by_hydra = time.perf_counter() - before
    return {
        "configurations": size.composed,
        "ms_each": 1000 * statistics.median(times) / size.composed,
        "ms_each_by_hydra": 1000 * by_hydra,
        "target": COMPOSE_TARGET_MS,
    }


def table(size: Size, directory: Path) -> dict[str, Any]:
    """Many runs of two epochs with `record=table`: seconds, files and peak memory."""
    return _in_table(size.table[0], directory)


def further(size: Size, parent: Path) -> dict[str, Any]:
    """A sweep trained to twice its epochs by the second command, beside the same runs trained anew for all of them."""
    document: dict[str, Any] = {"runs": size.further, "turns": size.repeats, "target": FURTHER_TARGET}
    first_epochs, all_epochs = size.epochs // 2, size.epochs
    for network, overrides in {"64-50-10": [], "64-256-256-10": ["model.depth=2", "model.width=256"]}.items():
        sides: dict[str, list[Spent]] = {"further": [], "anew": []}
        for turn in range(size.repeats):
            directory = parent / f"{network}-{turn}"
            directory.mkdir()

            def train(name: str, epochs: int, directory: Path = directory, overrides: list[str] = overrides) -> Spent:
                seeds = f"seed=range({size.further})"
                return spend(
                    [*TRAIN, "-m", seeds, f"trainer.max_epochs={epochs}", f"name={name}", *overrides], directory
                )

            train("further", first_epochs)
            time.sleep(SETTLE_S)
            sides["further"].append(train("further", all_epochs))
            time.sleep(SETTLE_S)
            sides["anew"].append(train("anew", all_epochs))
            _assert_equal_metrics(directory / "multirun/further", directory / "multirun/anew", size.further)
            shutil.rmtree(directory)
            time.sleep(SETTLE_S)
        for key in ("wall_s", "cpu_s"):
            medians = {side: statistics.median(getattr(cost, key) for cost in spent) for side, spent in sides.items()}
            document |= {f"{network}_{side}_{key}": value for side, value in medians.items()}
            document[f"{network}_ratio_{key}"] = medians["further"] / medians["anew"]
    return document


def _assert_equal_metrics(first_sweep: Path, second_sweep: Path, runs: int) -> None:
    """All runs of both sweeps have the same epochs, bit for bit."""
    names = [path.parent.name for path in second_sweep.glob(f"*/{file_names.METRICS}")]
    assert len(names) == runs
    for name in names:
        first, second = [(sweep / name / file_names.METRICS).read_bytes() for sweep in (first_sweep, second_sweep)]
        assert first == second, f"{name} differs after further training"


def large_table(size: Size, directory: Path) -> dict[str, Any]:
    """Ten times as many: what a run more costs, in seconds and memory."""
    small, large = (_in_table(count, directory / str(count)) for count in size.table)
    return large | {"small": small, "memory_ratio": large["peak_mib"] / small["peak_mib"], "target": MEMORY_TARGET}


def _in_table(runs: int, directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    spent = spend([*TRAIN, "-m", f"seed=range({runs})", "name=it", "trainer.max_epochs=2", "record=table"], directory)
    files = sum(1 for path in (directory / "multirun/it").rglob("*") if path.is_file())
    with (directory / "multirun/it/results.csv").open() as file:
        assert sum(1 for _ in file) == runs + 1
    return per_run(spent, runs) | {"files": files}


def _grid(name: str, seeds: Callable[[Size], int]) -> Callable[[Size, Path], dict[str, Any]]:
    return lambda size, place: sweep_beside_bare_loop(name, GRID, seeds(size), size, place)


PARTS: dict[str, Callable[[Size, Path], dict[str, Any]]] = {
    "seeds": lambda size, place: sweep_beside_bare_loop("seeds", [], size.seeds, size, place),
    "grid": _grid("grid", lambda size: 1),
    "few": _grid("few", lambda size: size.few),
    "many": _grid("many", lambda size: size.many),
    "compose": composition,
    "basic": basic_launcher,
    "scikit-learn": scikit_learn,
    "further": further,
    "table": table,
    "large table": large_table,
}


def markdown(document: Mapping[str, Any]) -> str:
    """The page of what has been measured."""
    parts, size = document["parts"], document["size"]
    latest = max(parts.values(), key=lambda part: part["date"])
    hardware, versions = latest["hardware"], latest["versions"]
    loads = [f"{name} {part['hardware']['load']}" for name, part in parts.items()]
    lines = [
        "# What a run of a sweep costs",
        "",
        f"Whole processes, from the command to the last file on disk; {latest['date']}, {hardware['cpu']}, "
        f"{hardware['cores']} cores ({hardware['vector_instructions']}), torch {versions['torch']}, lightning "
        f"{versions['lightning']}; the load when each part began: "
        f"{', '.join(loads)}.",
        f"The work: digits (1,797 samples), {size['epochs']} epochs, batch 32. The grid: depth 1, 2, 3, width 32, "
        "64, 128, tanh, relu, gelu. Losses and accuracies of our runs and of the bare loop agreed before "
        "anything was compared. Medians of both sides measured by turns.",
        "",
        *_sweep_rows(parts, size),
        *_peer_rows(parts),
        *_sentences(parts, size),
    ]
    return "\n".join(lines) + "\n"


def _sweep_rows(parts: Mapping[str, Any], size: Mapping[str, Any]) -> list[str]:
    """The head of the table, and a row for each sweep."""
    lines = [
        "| | runs | seconds | of processor | ms a run | beside the bare loop | beside launcher=basic | peak MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    basic, names = parts.get("basic"), _names(size)
    for name in filter(parts.__contains__, TARGETS):
        row = parts[name]
        slow = basic["s_per_run"] / row["s_per_run"] if basic and name != "seeds" else None
        lines.append(
            f"| **{names[name]}** | {row['runs']:,} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | "
            f"{1000 * row['s_per_run']:.1f} | {row['times_faster_than_bare_loop']:.1f} times faster, wanted "
            f"{TARGETS[name]:g} ({row['times_less_processor_than_bare_loop']:.1f} by processor) | "
            f"{f'{slow:.0f} times faster' if slow else ''} | {row['peak_mib']:.0f} |"
        )
    return lines


def _peer_rows(parts: Mapping[str, Any]) -> list[str]:
    """The rows of the bare loop, of scikit-learn and of Hydra's own launcher."""
    lines = []
    for name, networks in (("seeds", "of 64-50-10"), ("grid", "average of the grid")):
        if name in parts:
            lines.append(f"| bare loop, {networks} | 1 | | | {1000 * parts[name]['bare_loop_s']:.1f} | 1 | | |")
    if sklearn := parts.get("scikit-learn"):
        lines.append(
            f"| scikit-learn's GridSearchCV, n_jobs=2, no files | {sklearn['runs']} | {sklearn['wall_s']:.1f} | "
            f"{sklearn['cpu_s']:.1f} | {1000 * sklearn['s_per_run']:.1f} | | | {sklearn['peak_mib']:.0f} |"
        )
    if basic := parts.get("basic"):
        grid_s = basic["start_s"] + NUM_ARCHITECTURES * basic["s_per_run"]
        lines += [
            f"| hydra/launcher=basic, the grid once | {NUM_ARCHITECTURES} | {grid_s:.0f} | | "
            f"{1000 * basic['s_per_run']:.0f} more each | | 1 | |",
            "",
            f"The last row is extrapolated from {basic['runs_measured']} runs and 1 of depth 2 and width 64.",
        ]
    return lines


def _sentences(parts: Mapping[str, Any], size: Mapping[str, Any]) -> list[str]:
    """Composition, further training, and sweeps that are written to one table."""
    lines = []
    if composed := parts.get("compose"):
        lines.append(
            f"\nComposing and checking {composed['configurations']:,} configurations takes "
            f"{composed['ms_each']:.2f} ms each, wanted at most {composed['target']:g}; Hydra itself composes one in "
            f"{composed['ms_each_by_hydra']:.0f} ms."
        )
    if longer := parts.get("further"):
        ratios = ", ".join(
            f"{longer[f'{network}_ratio_cpu_s']:.2f} of the processor time and {longer[f'{network}_ratio_wall_s']:.2f} "
            f"of the seconds for {network}"
            for network in ("64-50-10", "64-256-256-10")
        )
        lines.append(
            f"\nTraining {longer['runs']:,} runs from {size['epochs'] // 2} to {size['epochs']} epochs takes {ratios} "
            f"of training them anew, wanted at most {longer['target']:g}."
        )
    for name in ("table", "large table"):
        if row := parts.get(name):
            lines.append(
                f"\n`record=table`, {row['runs']:,} runs of two epochs: {row['wall_s']:.1f} s, {row['cpu_s']:.1f} s of "
                f"processor, {row['files']} files, {row['peak_mib']:.0f} MiB at most."
            )
    if large := parts.get("large table"):
        lines[-1] += (
            f" That is {large['memory_ratio']:.2f} times the memory of {large['small']['runs']:,}, wanted at most "
            f"{large['target']:g}."
        )
    return lines


def _names(size: Mapping[str, Any]) -> dict[str, str]:
    return {
        "seeds": f"{size['seeds']:,} seeds of 64-50-10",
        "grid": "the grid once",
        "few": f"{size['few']} seeds of the grid",
        "many": f"{size['many']} seeds of the grid",
    }


def plot(parts: Mapping[str, Any], path: Path) -> None:
    """Milliseconds a run, on a logarithmic axis."""
    from matplotlib.figure import Figure

    sweeps = {name: parts[name] for name in TARGETS if name in parts}
    labels = {"seeds": "many seeds of one", "grid": "the grid once", "few": "a few seeds of the grid"}
    bars = {
        f"mlpexp, {labels.get(name, 'many seeds of the grid')}": 1000 * row["s_per_run"] for name, row in sweeps.items()
    }
    loops = {"seeds": "bare loop, 64-50-10", "grid": "bare loop, grid"}
    bars |= {label: 1000 * parts[name]["bare_loop_s"] for name, label in loops.items() if name in parts}
    peers = {"scikit-learn": "scikit-learn, grid", "basic": "hydra/launcher=basic, grid"}
    bars |= {label: 1000 * parts[name]["s_per_run"] for name, label in peers.items() if name in parts}
    if not bars:
        return
    order = sorted(bars, key=bars.__getitem__, reverse=True)
    figure = Figure(figsize=(7, 0.7 + 0.32 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#0072B2" if name.startswith("mlpexp") else "#999999" for name in order]
    bar_container = axes.barh(order, [bars[name] for name in order], color=colours)
    axes.bar_label(bar_container, [f"{bars[name]:,.0f}" for name in order], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(left=1, right=3 * max(bars.values()))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("ms a run, whole process")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
