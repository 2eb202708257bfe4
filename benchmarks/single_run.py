"""What one run costs beyond the notebook's bare loop, and one command beyond its imports. Both sides in one go.

    python benchmarks/single_run.py [--repeats 9] [--processes 5]

Prints one line per measurement and writes them, with hardware, versions and date, to `single_run.json` beside it.
Targets: `fit` takes at most 4 times the bare loop, the command at most 2 s more than its imports.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from measuring import ROOT, THREADS, bare_loop, close, spend, surroundings

from mlpexp import data as datasets
from mlpexp.cli import hydra_app
from mlpexp.config.schema import Config, DataConfig
from mlpexp.store import file_names
from mlpexp.training import single_run

IMPORTS = "import torch, lightning, sklearn.datasets"
FIT_TARGET, PROCESS_TARGET_S = 4.0, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="of the training on both sides")
    parser.add_argument("--processes", type=int, default=5, help="of the whole commands on both sides")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    measured = {"fit": fit(arguments.repeats), "process": process(arguments.processes)}
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings(), **measured}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written to {path}")


def fit(repeats: int) -> dict[str, Any]:
    """Seconds of `Trainer.fit` in a real run of `experiment=notebook`, against the same training as a bare loop."""
    hydra_app.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra_app.parse(compose("train", ["experiment=notebook", f"threads={THREADS}"]))
    cfg = replace(cfg, tracking=cfg.tracking.settled(alone=True))  # as `scripts/train.py` does, with all figures
    table = datasets.load(DataConfig())
    inputs, labels = torch.from_numpy(table.inputs / table.inputs.max()), torch.from_numpy(table.labels)

    def ours() -> float:
        curve, seconds = run(cfg)
        assert close(curve, bare[0]), "the two trainings differ: their times cannot be compared"
        return seconds

    def theirs() -> float:
        started = time.perf_counter()
        bare[0] = bare_loop(inputs, labels)
        return time.perf_counter() - started

    bare = [bare_loop(inputs, labels)]  # also a warm-up
    ours()
    seconds_of = alternate({"bare_loop": theirs, "fit": ours}, repeats)
    ratio = seconds_of["fit"]["median"] / seconds_of["bare_loop"]["median"]
    ratio_of_minima = seconds_of["fit"]["min"] / seconds_of["bare_loop"]["min"]
    print(f"bare loop   {line(seconds_of['bare_loop'])}")
    print(f"fit         {line(seconds_of['fit'])}")
    reached = word(ratio <= FIT_TARGET)
    print(f"fit : bare loop = {ratio:.2f} (of the minima {ratio_of_minima:.2f}), at most {FIT_TARGET:g}: {reached}")
    return seconds_of | {"ratio": ratio, "ratio_of_minima": ratio_of_minima, "target": FIT_TARGET}


def run(cfg: Config) -> tuple[list[tuple[float, float]], float]:
    """The same columns of a real run's `metrics.csv`, and the seconds of its `fit`."""
    with tempfile.TemporaryDirectory() as directory:
        result = single_run.train(cfg, Path(directory) / "run")
        with (Path(directory) / "run" / file_names.METRICS).open() as file:
            curve = [(float(row["val/loss"]), float(row["val/acc"])) for row in csv.DictReader(file)]
    return curve, result.seconds["fit"]


def process(repeats: int) -> dict[str, Any]:
    """Seconds of the whole default command, with all its figures, against those of its imports."""
    train = [sys.executable, str(ROOT / "scripts/train.py")]
    commands = {"imports": [sys.executable, "-c", IMPORTS], "command": train}
    walls = {name: partial(wall, command) for name, command in commands.items()}
    seconds_of = alternate(walls, repeats)
    # processor time hardly depends on who else is busy
    cpu = {name: statistics.median(spend(command).cpu_s for _ in range(3)) for name, command in commands.items()}
    more = seconds_of["command"]["median"] - seconds_of["imports"]["median"]
    of_minima = seconds_of["command"]["min"] - seconds_of["imports"]["min"]
    more_cpu = cpu["command"] - cpu["imports"]
    print(f"imports     {line(seconds_of['imports'])}, {cpu['imports']:.2f} s of processor")
    print(f"command     {line(seconds_of['command'])}, {cpu['command']:.2f} s of processor")
    print(
        f"command - imports = {more:.2f} s (of the minima {of_minima:.2f}, of processor time {more_cpu:.2f}), "
        f"at most {PROCESS_TARGET_S:g}: {word(more <= PROCESS_TARGET_S)}"
    )
    return seconds_of | {
        "cpu": cpu,
        "difference_s": more,
        "difference_of_minima_s": of_minima,
        "difference_cpu_s": more_cpu,
        "target_s": PROCESS_TARGET_S,
    }


def wall(command: list[str]) -> float:
    return spend(command).wall_s


def alternate(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Any]:
    """Median, minimum and all seconds of each side, taken in turns, so that noise meets both."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            seconds[name].append(measure())
    return {
        name: {"median": statistics.median(values), "min": min(values), "all": values}
        for name, values in seconds.items()
    }


def line(measured: dict[str, Any]) -> str:
    return f"{measured['median']:.3f} s (min {measured['min']:.3f}, {len(measured['all'])} times)"


def word(reached: bool) -> str:
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    main()
