"""Whether the default sampler of a search finds better networks than random search, after 40, 100 and 300 trials.

    python benchmarks/search.py [--quick] [--repetitions 20] [--problems digits wine ...]
    python benchmarks/search.py --problems digits --into a.json    (and the others into b.json, at the same time)
    python benchmarks/search.py --join a.json b.json

Each repetition searches depth, width, activation, initialisation, learning rate, momentum and weight decay with
`hydra.sweeper.sampler=tpe` and with `random`, with the generations that the sweeper has by default. Networks train
for five epochs, in stacks of all repetitions; trials and generations are those of `hydra/sweeper=optuna`, which writes
files besides.

The first score of a search is the least `val/loss` that it has found. Since the least of many values is a lucky one
too, the configuration is also trained with five other seeds: the second score is their mean `val/loss` (diverged runs
count as the worst finite one). The third is that of the configuration that `hydra.sweeper.final_seeds=4` chooses among
the best trials. Compared are equal repetitions: the mean difference with its 95 % interval (t) and the two-sided p of
Wilcoxon's signed ranks. Writes `search.json` and `search.md` beside itself; `--quick` does everything in a small form
and writes nothing.
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
from mlpexp.search.finalists import best_trials
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
PROBLEMS = ("digits", "wine", "breast_cancer", "csv_iris", "csv_diabetes", "csv_anes96")
FIXED = {"trainer.max_epochs": 5, "data.batch_size": 32, "tracking.diagnostics": False, "record": "table"}
FINAL_SEEDS = range(1, 5)  # as `hydra.sweeper.final_seeds=4` has them
CHECKED_SEEDS = range(1000, 1005)


class Comparison(NamedTuple):
    """One table: a score of a sampler, compared with one of another or of the same."""

    title: str
    first: tuple[str, str]
    second: tuple[str, str]


COMPARISONS = (
    Comparison("Least val/loss found", ("tpe", "found"), ("random", "found")),
    Comparison("Chosen by final_seeds=4: val/loss with five other seeds", ("tpe", "final"), ("random", "final")),
    Comparison("What final_seeds=4 changes: val/loss with five other seeds", ("tpe", "final"), ("tpe", "again")),
    Comparison("Without final_seeds: val/loss with five other seeds", ("tpe", "again"), ("random", "again")),
)
SAMPLERS = ("tpe", "random")

# repetitions by the number of trials; more of the shortest searches, whose results vary most
REPETITIONS = {40: 40, 100: 20, 300: 20}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form; writes nothing")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--into", type=Path, help="write the scores to this file, and no page; continue what it has")
    parser.add_argument("--join", type=Path, nargs="+", help="make search.json and search.md of such files")
    parser.add_argument("--budgets", type=int, nargs="+", help="numbers of trials")
    parser.add_argument("--batch-size", type=int, help="trials of a generation, for trying; writes nothing")
    parser.add_argument(
        "--problems", nargs="+", help="of digits, wine, breast_cancer, csv_iris, csv_diabetes, csv_anes96; default: all"
    )
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.join:
        document = _joined([json.loads(path.read_text()) for path in arguments.join])
        _write(document)
        return
    repetitions = {12: 2} if arguments.quick else REPETITIONS
    repetitions = {budget: repetitions.get(budget, 20) for budget in arguments.budgets or repetitions}
    if arguments.repetitions:
        repetitions = dict.fromkeys(repetitions, arguments.repetitions)
    samplers.silence_optuna()
    torch.set_num_threads(1)
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings(), "repetitions": repetitions}
    with tempfile.TemporaryDirectory() as directory, quiet():
        problems = _problems(Path(directory))
        names = arguments.problems or (["wine"] if arguments.quick else list(problems))
        document["scores"] = {name: {sampler: {} for sampler in SAMPLERS} for name in names}
        if arguments.into and arguments.into.exists():
            document["scores"] |= _joined([document, json.loads(arguments.into.read_text())])["scores"]
        # a random search continues the shorter one: its trials do not depend on the number of trials
        random = {name: Searches("random", max(repetitions.values())) for name in names}
        for (budget, count), name, sampler in product(sorted(repetitions.items()), names, SAMPLERS):
            cells = document["scores"][name][sampler]
            started = time.process_time()
            searches = random[name].first(count) if sampler == "random" else Searches(sampler, count)
            is_known = str(budget) in cells
            if sampler == "random" or not is_known:
                searches.extend(problems[name], budget, arguments.batch_size)
            if is_known:
                continue
            scores = cells[str(budget)] = _scores(problems[name], searches)
            means = ", ".join(f"{score} {statistics.fmean(values):.5f}" for score, values in scores.items())
            spent = time.process_time() - started
            print(f"{name}, {sampler}, {budget} trials: {means}, {spent:.0f} s of CPU", flush=True)
            if arguments.into:  # after each, since the whole takes an hour on a busy machine
                arguments.into.write_text(json.dumps(document, indent=2) + "\n")
    print(markdown(document))
    if not arguments.quick and not arguments.batch_size and not arguments.into:
        _write(document)


def _write(document: dict[str, Any]) -> None:
    """Write both files; numbers of trials that were not measured now keep the least values that were found earlier."""
    path = Path(__file__)
    earlier = json.loads(path.with_suffix(".json").read_text())
    before = earlier.get("earlier", {"date": earlier["date"], "trials": []})
    kept = set()
    for name, cells in document["scores"].items():
        for sampler, budget in product(SAMPLERS, map(str, REPETITIONS)):
            found = earlier["scores"].get(name, {}).get(sampler, {}).get(budget, {}).get("found")
            if budget not in cells[sampler] and found:
                cells[sampler][budget] = {"found": found}
                kept.add(int(budget))
    if kept:
        document["earlier"] = before | {"trials": sorted(kept)}
    path.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    path.with_suffix(".md").write_text(markdown(document))


def _joined(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores of several problems that were measured by processes of their own.

    Raises:
        SystemExit: they were measured with different code.
    """
    commits = {str(document["git_commit"]) for document in documents}
    if len(commits) > 1:
        raise SystemExit(f"the scores are of several commits: {', '.join(sorted(commits))}; measure them anew with one")
    scores = {name: kinds for document in documents for name, kinds in document["scores"].items()}
    return documents[0] | {"scores": {name: scores[name] for name in PROBLEMS if name in scores}}


def _problems(directory: Path) -> dict[str, dict[str, Any]]:
    """The data of each problem; the CSV files are the iris flowers, the American national election study of 1996 (the
    vote), and the diabetes study, a regression."""
    from sklearn.datasets import load_diabetes, load_iris
    from statsmodels.datasets import anes96

    load_diabetes(as_frame=True).frame.to_csv(directory / "diabetes.csv", index=False)
    load_iris(as_frame=True).frame.to_csv(directory / "iris.csv", index=False)
    anes96.load_pandas().data.astype({"vote": int}).to_csv(directory / "anes96.csv", index=False)
    csv = {"data.name": "csv", "data.target": "target"}
    return {
        "digits": {"data.name": "digits"},
        "wine": {"data.name": "wine"},
        "breast_cancer": {"data.name": "breast_cancer"},
        "csv_iris": csv | {"data.path": str(directory / "iris.csv")},
        "csv_diabetes": csv | {"data.path": str(directory / "diabetes.csv"), "data.task": "regression"},
        "csv_anes96": csv | {"data.path": str(directory / "anes96.csv"), "data.target": "vote"},
    }


class Searches:
    """The searches of all repetitions with one sampler, which train together."""

    def __init__(self, sampler: str, repetitions: int) -> None:
        self.sampler = sampler
        self.studies = [optuna.create_study(direction="minimize") for _ in range(repetitions)]
        self.done = 0  # trials of each search
        self.space = search_space.read(OverridesParser.create().parse_overrides(list(SPACE)))

    def first(self, repetitions: int) -> "Searches":
        """The same, with the first repetitions only."""
        del self.studies[repetitions:]
        return self

    def extend(self, problem: dict[str, Any], budget: int, size: int | None) -> None:
        """Search until each study has so many trials."""
        batch = samplers.batch_size(self.sampler, size, budget)
        while self.done < budget:
            count = min(batch, budget - self.done)
            trials = [trial for seed in range(len(self.studies)) for trial in self._ask(seed, batch, count)]
            values = _measured([_config(problem, trial.params, 0) for trial in trials])
            for number, (trial, value) in enumerate(zip(trials, values, strict=True)):
                study = self.studies[number // count]
                if math.isfinite(value):
                    study.tell(trial, value)
                else:
                    study.tell(trial, state=TrialState.PRUNED)
            self.done += count

    def _ask(self, seed: int, batch: int, count: int) -> list[Trial]:
        study = self.studies[seed]
        study.sampler = samplers.sampler(self.sampler, seed, self.done, batch)
        return [study.ask(self.space.distributions) for _ in range(count)]


def _scores(problem: dict[str, Any], searches: Searches) -> dict[str, list[float]]:
    """Each score of each repetition."""
    best = [best_trials(study) for study in searches.studies]
    scores: dict[str, list[float]] = {"found": [study.best_value for study in searches.studies]}
    final = iter(
        _measured([_config(problem, t.params, seed) for finalists in best for t in finalists for seed in FINAL_SEEDS])
    )
    sums = [[trial.value + sum(next(final) for _ in FINAL_SEEDS) for trial in finalists] for finalists in best]
    selected = {
        "again": [finalists[0] for finalists in best],
        "final": [finalists[values.index(min(values))] for finalists, values in zip(best, sums, strict=True)],
    }
    for score, trials in selected.items():
        outcomes = _measured([_config(problem, trial.params, seed) for trial in trials for seed in CHECKED_SEEDS])
        worst = max(value for value in outcomes if math.isfinite(value))
        count = len(CHECKED_SEEDS)
        runs = [outcomes[i : i + count] for i in range(0, len(outcomes), count)]
        scores[score] = [statistics.fmean(min(value, worst) for value in values) for values in runs]
        scores[f"{score}_diverged"] = [sum(not math.isfinite(value) for value in values) for values in runs]
    return scores


def _config(problem: dict[str, Any], params: dict[str, Any], seed: int) -> Config:
    plain = copy.deepcopy(schema.defaults())
    for key, value in {**FIXED, **problem, **params, "seed": seed}.items():
        node: Any = plain
        *path, name = key.split(".")
        for group in path:
            node = node[group]
        node[name] = value
    return with_engine(checks.parse(plain))


def _measured(configs: Sequence[Config]) -> list[float]:
    """The least `val/loss` of each run over its epochs; infinite where it diverged."""
    data = [datasets.prepare(cfg.data) for cfg in configs]
    outcomes = [math.inf] * len(configs)
    for stack in plan(configs, data).stacks:
        module: StackModule = train_stack([configs[run] for run in stack.runs], [data[run] for run in stack.runs])
        for run, record in zip(stack.runs, module.records, strict=True):
            if math.isfinite(record.history[-1]["val/loss"]):
                outcomes[run] = record.progress.best_value
    return outcomes


def markdown(document: dict[str, Any]) -> str:
    lines = [
        "# Search against random search",
        "",
        f"{document['date'][:10]}, commit {document['git_commit'][:10]}, {os.cpu_count()} processors, shared with",
        "other work, on which the results do not depend; `python benchmarks/search.py`. Means over repetitions, their",
        "difference, and the p of Wilcoxon's signed ranks; `tpe` is the default sampler. `found` is the least",
        "`val/loss` of a search. It is in part a lucky one, so its configuration is trained with five other seeds:",
        "`again` is their mean, `final` the mean for the configuration that `hydra.sweeper.final_seeds=4` chooses.",
        "wine, csv_diabetes and csv_anes96 had no part in the choice of the defaults.",
    ]
    if earlier := document.get("earlier"):
        trials = " and ".join(map(str, earlier["trials"]))
        lines += [
            "",
            f"Values `found` at {trials} trials are of {earlier['date'][:10]}, with equal samplers and seeds; the",
            "random trials of that day were others after the first 40.",
        ]
    for comparison in COMPARISONS:
        names = [f"{sampler}: {score}" for sampler, score in (comparison.first, comparison.second)]
        lines += [
            "",
            f"## {comparison.title}",
            "",
            f"| problem | trials | {names[0]} | {names[1]} | difference, 95 % interval | better in | p |",
        ]
        lines.append("|---|---|---|---|---|---|---|")
        for name, scores in document["scores"].items():
            for budget in scores["random"]:
                first, second = (
                    scores[sampler].get(budget, {}).get(score)
                    for sampler, score in (comparison.first, comparison.second)
                )
                if first and second:
                    lines.append(_row(name, budget, first, second))
    return "\n".join(lines) + "\n"


def _row(name: str, budget: str, first: Sequence[float], second: Sequence[float]) -> str:
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, half = statistics.fmean(differences), math.nan
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    p = float(stats.wilcoxon(differences).pvalue) if any(differences) else 1.0
    better = sum(difference < 0 for difference in differences)
    equal = f", {differences.count(0.0)} equal" if 0.0 in differences else ""
    return (
        f"| {name} | {budget} | {statistics.fmean(first):.5g} | {statistics.fmean(second):.5g} "
        f"| {mean:.3g} ({mean - half:.3g} to {mean + half:.3g}) | {better} of {len(differences)}{equal} | {p:.2g} |"
    )


if __name__ == "__main__":
    main()
