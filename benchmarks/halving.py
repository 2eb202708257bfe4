"""The time that successive halving saves and how often it keeps the best: 1,000 candidates, rungs 1, 3, 9, 27.

    python benchmarks/halving.py [--quick]

The candidates are trained to the end, as one sweep in one process; then the same command with `halving.rungs` trains
them with halving, in one process too. The runs that halving keeps must be those that the curves of the first sweep
predict, with the same numbers. How often halving keeps a candidate of the true top 1 % is counted over repetitions of
1,000 candidates drawn from those and as many others (other seeds, other rates), all of which were trained to the end:
their curves predict which candidates halving keeps, since the numbers of a run do not depend on the other runs.
Writes `halving.json` and `halving.md` beside itself; `--quick` does everything in a small form and writes nothing.
"""

import argparse
import csv
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from measuring import ROOT, Spent, spend, surroundings

from mlpexp.store.results_table import load_results

SHARE_TARGET, KEPT_TARGET = 0.25, 18
FACTOR = 3
TOP = 0.01


class Size(NamedTuple):
    """How much of everything."""

    pool: int = 2000
    candidates: int = 1000
    rungs: tuple[int, ...] = (1, 3, 9)
    epochs: int = 27
    repetitions: int = 20


QUICK = Size(pool=24, candidates=16, rungs=(1,), epochs=3, repetitions=4)
DEPTHS, WIDTHS, ACTIVATIONS = (1, 2, 3), (64, 128, 256), ("tanh", "relu", "gelu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form, in half a minute; writes nothing")
    parser.add_argument("--candidates", type=int, help="of the sweeps that are timed")
    parser.add_argument("--pool", type=int, help="candidates that are trained to the end")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    size = size._replace(candidates=arguments.candidates or size.candidates, pool=arguments.pool or size.pool)
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings(), "size": size._asdict()}
    document |= measure(size)
    table = markdown(document)
    print(table)
    if not arguments.quick:
        path = Path(__file__)
        path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
        path.with_suffix(".md").write_text(table)


def measure(size: Size) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as empty:
        directory = Path(empty)
        timed, remaining = grid(size.candidates), size.pool - size.candidates
        full = sweep(directory, "full", size, timed)
        halved = sweep(directory, "halved", size, timed, f"halving.rungs=[{','.join(map(str, size.rungs))}]")
        curves = read(directory / "full")
        check(directory, size, curves)
        if remaining > 0:
            sweep(directory, "rest", size, grid(remaining, first_seed=1), "tracking.tensorboard=false")
            curves |= read(directory / "rest")
        pool = list(curves.values())
        training = [sum(row["seconds"] for row in load_results(directory / name)) for name in ("full", "halved")]
    generator = random.Random(0)
    num_kept, regret = 0, []
    for _ in range(size.repetitions):
        sample = generator.sample(pool, size.candidates)
        ends = sorted(min(curve) for curve in sample)
        best = min(min(sample[i]) for i in survivors(sample, size.rungs))
        num_kept += best <= ends[max(0, math.ceil(TOP * len(ends)) - 1)]
        regret.append(best - ends[0])
    return {
        "full": full._asdict(), "halved": halved._asdict(),
        "share_wall": halved.wall_s / full.wall_s, "share_cpu": halved.cpu_s / full.cpu_s,
        "full_training_s": training[0], "halved_training_s": training[1], "share_training": training[1] / training[0],
        "pool": len(pool), "kept": num_kept, "repetitions": size.repetitions,
        "median_regret": statistics.median(regret),
    }  # fmt: skip


def grid(count: int, first_seed: int = 0) -> list[str]:
    """Overrides of a grid of `count` candidates: three architecture keys, and learning rates on a logarithmic scale."""
    shapes = [DEPTHS, WIDTHS, ACTIVATIONS] if count >= 54 else [(1,), (16,), ("tanh",)]
    rates = -(-count // math.prod(map(len, shapes)))
    learning_rates = [f"{10 ** (-3 + 3.3 * (i + 0.5 * (first_seed % 2)) / rates):.5g}" for i in range(rates)]
    depths, widths, activations = (",".join(map(str, values)) for values in shapes)
    return [
        f"seed={first_seed}", f"model.depth={depths}", f"model.width={widths}", f"model.activation={activations}",
        f"optimizer.lr={','.join(learning_rates)}",
    ]  # fmt: skip


def sweep(directory: Path, name: str, size: Size, overrides: Sequence[str], *more: str) -> Spent:
    command = [sys.executable, str(ROOT / "scripts/train.py"), "-m", f"hydra.sweep.dir={name}", *overrides]
    command += [f"trainer.max_epochs={size.epochs}", "hydra.sweep.subdir=${hydra.job.num}", *more]
    return spend([*command, "hydra.launcher.backend=process"], directory)


def read(directory: Path) -> dict[str, list[float]]:
    """The validation losses of each run, epoch by epoch; infinite where it is no number."""
    curves = {}
    for path in sorted(directory.glob("*/metrics.csv")):
        with path.open(newline="") as file:
            values = [float(row["val/loss"]) for row in csv.DictReader(file)]
        curves[f"{directory.name}/{path.parent.name}"] = [v if math.isfinite(v) else math.inf for v in values]
    return curves


def survivors(curves: Sequence[Sequence[float]], rungs: Sequence[int]) -> list[int]:
    """The candidates that all rungs keep, by the curves of all."""
    candidates = list(range(len(curves)))
    for rung in rungs:
        candidates = sorted(candidates, key=lambda i: min(curves[i][:rung]))[: -(-len(candidates) // FACTOR)]
    return candidates


def check(directory: Path, size: Size, curves: dict[str, list[float]]) -> None:
    """Halving has kept the runs that the curves predict, with the same numbers."""
    names = sorted(curves, key=lambda name: int(name.rpartition("/")[2]))
    expected = {int(names[i].rpartition("/")[2]) for i in survivors([curves[name] for name in names], size.rungs)}
    trained = {row["run"] for row in load_results(directory / "halved") if row["epochs"] == size.epochs}
    if trained != expected:
        raise SystemExit(f"halving kept {sorted(trained)}, the curves predict {sorted(expected)}")
    for run in sorted(trained):
        full, halved = (directory / sweep_name / str(run) / "metrics.csv" for sweep_name in ("full", "halved"))
        if full.read_bytes() != halved.read_bytes():
            raise SystemExit(f"run {run} has other numbers with halving than without")


def markdown(document: dict[str, Any]) -> str:
    size, full, halved = document["size"], document["full"], document["halved"]
    time_verdict = "met" if max(document["share_wall"], document["share_cpu"]) <= SHARE_TARGET else "missed"
    kept_verdict = "met" if document["kept"] >= KEPT_TARGET * document["repetitions"] / 20 else "missed"
    hardware = document["hardware"]
    return "\n".join([
        "# Successive halving against training all to the end", "",
        f"{document['date']}; {hardware['cpu']}, {hardware['cores']} cores, load {hardware['load']}, "
        f"{hardware['threads']} thread; torch {document['versions']['torch']}.", "",
        f"{size['candidates']:,} candidates asked for, rungs {', '.join(map(str, size['rungs']))}, "
        f"{size['epochs']} epochs at the last, one in {FACTOR} goes on. Whole processes, all files written.", "",
        "| | wall s | CPU s | peak MiB |", "|---|---:|---:|---:|",
        f"| all to the end | {full['wall_s']:.1f} | {full['cpu_s']:.1f} | {full['peak_mib']:.0f} |",
        f"| halving | {halved['wall_s']:.1f} | {halved['cpu_s']:.1f} | {halved['peak_mib']:.0f} |",
        f"| share | {document['share_wall']:.3f} | {document['share_cpu']:.3f} | |", "",
        f"Target: at most {SHARE_TARGET} of the time: {time_verdict}. Of the training alone (the sum of `seconds` in "
        f"results.csv, without start-up and files, which both have): {document['halved_training_s']:.1f} of "
        f"{document['full_training_s']:.1f} s, a share of {document['share_training']:.3f}; in epochs it is 1/9.", "",
        "Both in one process; an ordinary sweep of this length would use all cores by itself, halving uses one.", "",
        f"A candidate of the true top 1 % was kept in {document['kept']} of {document['repetitions']} repetitions "
        f"(target {KEPT_TARGET} of 20: {kept_verdict}), each of {size['candidates']:,} candidates drawn from a pool of "
        f"{document['pool']:,}.", f"Median loss given away beside the best: {document['median_regret']:.4f} nats.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
