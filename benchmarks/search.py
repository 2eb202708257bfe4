"""Whether the default sampler of a search finds better networks than random search, after 40, 100 and 300 trials.

    python benchmarks/search.py [--quick] [--repetitions 20] [--problems digits wine ...]

Each repetition searches depth, width, activation, initialisation, learning rate, momentum and weight decay with
`hydra.sweeper.sampler=tpe` and with `random`, with the generations that the sweeper has by default. Networks train
for five epochs, in stacks of all repetitions; trials and generations are those of `hydra/sweeper=optuna`, which writes
files besides.

The score of a search is the least `val/loss` that it has found. Its configuration is also trained with five other
seeds, since the least of many values is a lucky one too; their median is the second score. Compared are equal
repetitions: the mean difference with its 95 % interval (t) and the two-sided p of Wilcoxon's signed ranks. Writes
`search.json` and `search.md` beside itself; `--quick` does everything in a small form and writes nothing.
"""

import argparse
import copy
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from measuring import surroundings
from optuna.trial import Trial, TrialState
from scipy import stats

from mlpexp import data as datasets
from mlpexp.config import checks, schema
from mlpexp.config.schema import Config
from mlpexp.models.stack_module import StackModule
from mlpexp.search import samplers, search_space
from mlpexp.search.search_space import Space
from mlpexp.training.engine_choice import with_engine
from mlpexp.training.planner import plan
from mlpexp.training.train_stack import train_stack
from mlpexp.training.trainer_setup import quiet

SPACE = (
    "model.depth=range(1,4)",
    "model.width=range(16,65,16)",
    "model.activation=tanh,relu,gelu,sigmoid",
    "model.init=xavier_uniform,kaiming_uniform,torch",
    "optimizer.lr=tag(log,interval(0.001,1))",
    "optimizer.momentum=interval(0,0.95)",
    "optimizer.weight_decay=tag(log,interval(0.000001,0.1))",
)
FIXED = {"trainer.max_epochs": 5, "data.batch_size": 32, "tracking.diagnostics": False, "record": "table"}
CHECKED_SEEDS = range(1000, 1005)


class Size(NamedTuple):
    """How much of everything."""

    budgets: tuple[int, ...] = (40, 100, 300)
    repetitions: int = 20


QUICK = Size(budgets=(12,), repetitions=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form; writes nothing")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--budgets", type=int, nargs="+", help="numbers of trials")
    parser.add_argument("--batch-size", type=int, help="trials of a generation, for trying; writes nothing")
    parser.add_argument(
        "--problems", nargs="+", help="of digits, wine, breast_cancer, csv_iris, csv_diabetes; default: all"
    )
    asked = parser.parse_args()
    size = QUICK if asked.quick else Size()
    size = size._replace(
        repetitions=asked.repetitions or size.repetitions, budgets=tuple(asked.budgets or size.budgets)
    )
    samplers.silence_optuna()
    torch.set_num_threads(1)
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings(), "size": size._asdict()}
    place = Path(__file__)
    with tempfile.TemporaryDirectory() as directory, quiet():
        problems = _problems(Path(directory))
        names = asked.problems or (["wine"] if asked.quick else list(problems))
        document["scores"] = {name: {"tpe": {}, "random": {}} for name in names}
        for budget, name in product(size.budgets, names):
            for sampler, scores in document["scores"][name].items():
                scores[str(budget)] = _scores(problems[name], sampler, budget, size.repetitions, asked.batch_size)
            if not asked.quick and not asked.batch_size:  # after each, since the whole takes hours on a busy machine
                place.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
                place.with_suffix(".md").write_text(markdown(document))
    print(markdown(document))


def _problems(place: Path) -> dict[str, dict[str, Any]]:
    """The data of each problem; the CSV files are the iris flowers and the diabetes study, a regression."""
    from sklearn.datasets import load_diabetes, load_iris

    load_diabetes(as_frame=True).frame.to_csv(place / "diabetes.csv", index=False)
    load_iris(as_frame=True).frame.to_csv(place / "iris.csv", index=False)
    csv = {"data.name": "csv", "data.target": "target"}
    return {
        "digits": {"data.name": "digits"},
        "wine": {"data.name": "wine"},
        "breast_cancer": {"data.name": "breast_cancer"},
        "csv_iris": csv | {"data.path": str(place / "iris.csv")},
        "csv_diabetes": csv | {"data.path": str(place / "diabetes.csv"), "data.task": "regression"},
    }


def _scores(
    problem: dict[str, Any], sampler: str, budget: int, repetitions: int, batch: int | None
) -> dict[str, list[float]]:
    """Both scores of each repetition; smaller is better."""
    space = search_space.read(OverridesParser.create().parse_overrides(list(SPACE)))
    started = time.process_time()
    best = _search(space, problem, sampler, budget, repetitions, batch)
    values = _values([_config(problem, params, seed) for params, _ in best for seed in CHECKED_SEEDS])
    count = len(CHECKED_SEEDS)
    again = [statistics.median(values[i : i + count]) for i in range(0, len(values), count)]
    worst = max(filter(math.isfinite, again))  # where a network diverges with most seeds
    scores = {"found": [value for _, value in best], "again": [min(score, worst) for score in again]}
    shown = ", ".join(f"{name} {statistics.fmean(of):.5f}" for name, of in scores.items())
    spent = time.process_time() - started
    print(f"{problem['data.name']} {sampler} {budget}: {shown}, {spent:.0f} s of CPU", flush=True)
    return scores


def _search(
    space: Space, problem: dict[str, Any], sampler: str, budget: int, repetitions: int, size: int | None
) -> list[tuple[dict[str, Any], float]]:
    """Parameters and value of the best trial of each repetition; all repetitions train together."""
    studies = [optuna.create_study(direction="minimize") for _ in range(repetitions)]
    batch = samplers.batch_size(sampler, size, budget)
    for first in range(0, budget, batch):
        asked: list[list[Trial]] = []
        for seed, study in enumerate(studies):
            study.sampler = samplers.sampler(sampler, seed, first, batch)
            asked.append([study.ask(space.distributions) for _ in range(min(batch, budget - first))])
        trials = [trial for own in asked for trial in own]
        values = iter(_values([_config(problem, trial.params, 0) for trial in trials]))
        for study, own in zip(studies, asked, strict=True):
            for trial in own:
                value = next(values)
                if math.isfinite(value):
                    study.tell(trial, value)
                else:
                    study.tell(trial, state=TrialState.PRUNED)
    return [(study.best_params, study.best_value) for study in studies]


def _config(problem: dict[str, Any], params: dict[str, Any], seed: int) -> Config:
    plain = copy.deepcopy(schema.defaults())
    for key, value in {**FIXED, **problem, **params, "seed": seed}.items():
        node: Any = plain
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        node[last] = value
    return with_engine(checks.parse(plain))


def _values(configs: Sequence[Config]) -> list[float]:
    """The least `val/loss` of each run over its epochs; infinite where it diverged."""
    data = [datasets.prepare(cfg.data) for cfg in configs]
    values = [math.inf] * len(configs)
    for stack in plan(configs, data).stacks:
        module: StackModule = train_stack([configs[run] for run in stack.runs], [data[run] for run in stack.runs])
        for run, record in zip(stack.runs, module.records, strict=True):
            if math.isfinite(record.history[-1]["val/loss"]):
                values[run] = record.progress.best_value
    return values


def markdown(document: dict[str, Any]) -> str:
    size = document["size"]
    lines = [
        "# Search against random search",
        "",
        f"{size['repetitions']} repetitions, {document['date'][:10]}, {os.cpu_count()} processors;",
        "`python benchmarks/search.py`. Means over repetitions of the least `val/loss` that a search has found, and of",
        "the median `val/loss` of its configuration with five other seeds. A negative difference: the default sampler",
        "`tpe` is better than `random`; p is that of Wilcoxon's signed ranks.",
    ]
    for kind, title in (("found", "Least value found"), ("again", "Its configuration with other seeds")):
        lines += [
            "",
            f"## {title}",
            "",
            "| problem | trials | tpe | random | difference, 95 % interval | better in | p |",
        ]
        lines.append("|---|---|---|---|---|---|---|")
        lines += [
            _row(name, budget, found["tpe"][budget][kind], found["random"][budget][kind])
            for name, found in document["scores"].items()
            for budget in found["random"]
        ]
    return "\n".join(lines) + "\n"


def _row(name: str, budget: str, tpe: Sequence[float], random: Sequence[float]) -> str:
    differences = [a - b for a, b in zip(tpe, random, strict=True)]
    mean, half = statistics.fmean(differences), math.nan
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    p = float(stats.wilcoxon(differences).pvalue)
    better = sum(one < 0 for one in differences)
    return (
        f"| {name} | {budget} | {statistics.fmean(tpe):.5g} | {statistics.fmean(random):.5g} "
        f"| {mean:.3g} ({mean - half:.3g} to {mean + half:.3g}) | {better} of {len(differences)} | {p:.2g} |"
    )


if __name__ == "__main__":
    main()
