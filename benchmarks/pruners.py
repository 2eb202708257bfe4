"""What the pruners of a search save, and whether it finds worse networks with them.

    python benchmarks/pruners.py [--quick] [--repetitions 20] [--continue]

Each repetition is a search by `hydra/sweeper=optuna` in this process: without a pruner, and with each of them, with
equal numbers of trials and equal seeds, so that they have the same first generation. Trials of the Wilcoxon pruner have
eight seeds, and are compared with trials of eight seeds without a pruner. Measured are the processor time of the whole
command, files included; the trained epochs; how full the stacks are, as the mean over trained epochs of the share of
the places of a generation that train together; and the best `val/loss` of the trials that were trained to their ends.
Compared are equal repetitions: the median ratio of times, the mean difference of values with its 95 % interval (t), and
the two-sided p of Wilcoxon's signed ranks. Writes `pruners.json` and `pruners.md` beside itself; `--quick` does
everything in a small form and writes nothing.
"""

import argparse
import contextlib
import io
import json
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

from measuring import surroundings
from scipy import stats

from mlpexp import load_results
from mlpexp.api import hydra_session
from mlpexp.search.study_storage import STOPPED, load
from mlpexp.sweep.paused_runs import PausedRuns

SPACE = [
    "model.depth=range(1,3)",
    "model.width=16,32,64",
    "model.activation=tanh,relu",
    "optimizer.lr=tag(log,interval(0.001,1))",
    "optimizer.momentum=interval(0,0.95)",
]
COMMON = ["hydra/sweeper=optuna", "record=table", "tracking.diagnostics=false", "tracking.tensorboard=false"]
PROBLEMS = ("digits", "breast_cancer")
TRIALS, PLACES, EPOCHS, BATCH = 40, 8, 18, 128
SEEDS, EPOCHS_OF_SEEDS = 8, 6


def words(kind: str, problem: str, repetition: int, trials: int) -> list[str]:
    """The overrides of a search: `kind` is a pruner or `none`, with `, 8 seeds` where trials have several."""
    pruner, _, seeds = kind.partition(", ")
    given = {
        "data": problem,
        "data.batch_size": BATCH,
        "trainer.max_epochs": EPOCHS_OF_SEEDS if seeds else EPOCHS,
        "seed": 1000 * repetition,
        "hydra.sweeper.seed": repetition,
        "hydra.sweeper.n_trials": trials,
        "hydra.sweeper.batch_size": PLACES,
        "hydra.sweeper.final_seeds": 0,
    }
    if pruner != "none":
        given["hydra.sweeper.pruner"] = pruner
    if seeds:
        given["hydra.sweeper.seeds"] = SEEDS
    return [*COMMON, *SPACE, *(f"{key}={value}" for key, value in given.items())]


KINDS = ("none", "median", "asha", "hyperband", f"none, {SEEDS} seeds", f"wilcoxon, {SEEDS} seeds")


def rival(kind: str) -> str:
    """The search without a pruner that this one is compared with."""
    return ", ".join(["none", *kind.split(", ")[1:]])


def searched(kind: str, problem: str, repetition: int, trials: int) -> dict[str, float]:
    """The measured numbers of one search."""
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory), _watched() as portions:
        started = _processor_seconds()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place = hydra_session.sweep([*words(kind, problem, repetition, trials), "name=search"])
        seconds = _processor_seconds() - started
        rows = load_results(place)
        loaded = load(place)
    assert loaded is not None
    ends = loaded[1].get_trials(deepcopy=False)
    epochs = sum(portion * count for portion, count in portions)
    return {
        "seconds": seconds,
        "epochs": sum(row["epochs"] for row in rows),
        "fill": sum(portion * count * count for portion, count in portions) / epochs / PLACES if epochs else math.nan,
        "pruned": sum(trial.state.name == "PRUNED" or STOPPED in trial.user_attrs for trial in ends) / len(ends),
        "best": loaded[1].best_value,
    }


def _processor_seconds() -> float:
    """Of this process and of its workers that have ended: a large search without a pruner has some."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


@contextlib.contextmanager
def _watched() -> Iterator[list[tuple[int, int]]]:
    """Of each group that trains together: its epochs, and the number of its runs."""
    portions: list[tuple[int, int]] = []
    ordinary = PausedRuns.train

    def train(self: PausedRuns, places: Sequence[int], until: int | None, report: Any) -> Any:
        before = {place: len(self.states[place].record.history) if place in self.states else 0 for place in places}
        yield from ordinary(self, places, until, report)
        after = [len(self.states[place].record.history) for place in places if place in self.states]
        if places:
            portions.append((max(after, default=0) - min(before.values()), len(places)))

    with mock.patch.object(PausedRuns, "train", train):
        yield portions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form; writes nothing")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--continue", action="store_true", dest="continues", help="keep what pruners.json has")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    repetitions, trials = (1, 16) if arguments.quick else (arguments.repetitions, TRIALS)
    document: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **surroundings()}
    document["searches"] = {problem: {kind: {} for kind in KINDS} for problem in PROBLEMS}
    if arguments.continues:
        earlier = json.loads(Path(__file__).with_suffix(".json").read_text())["searches"]
        for problem, kind in product(PROBLEMS, KINDS):
            document["searches"][problem][kind] |= earlier[problem][kind]
    for kind in KINDS:  # imports and compiles
        searched(kind, "iris", 0, 2)
    for repetition, problem in product(range(repetitions), PROBLEMS):
        for kind in arguments.kinds:  # by turns, so that other work on the machine disturbs all alike
            done = document["searches"][problem][kind]
            if str(repetition) not in done:
                done[str(repetition)] = searched(kind, problem, repetition, trials // 2 if "seeds" in kind else trials)
        print(f"{problem}, repetition {repetition + 1} of {repetitions}", flush=True)
        if not arguments.quick:
            Path(__file__).with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
            Path(__file__).with_suffix(".md").write_text(markdown(document))
    print(markdown(document))


def markdown(document: dict[str, Any]) -> str:
    lines = [
        "# What the pruners of a search save",
        "",
        f"{document['date'][:10]}, {document['hardware']['cores']} processors, shared with other work; "
        f"`python benchmarks/pruners.py`. {_repetitions(document)} of",
        f"{TRIALS} trials with {EPOCHS} epochs, {PLACES} in training at the same time; those with {SEEDS} seeds of "
        f"{TRIALS // 2} trials with {EPOCHS_OF_SEEDS} epochs. Ratios and",
        "differences are those to the search without a pruner, with equal seeds. `full` is the mean share of places",
        "that train together, over the trained epochs; `time` is processor time.",
        "",
        "| problem | pruner | pruned | epochs | time | full | best val/loss | difference, 95 % interval | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for problem, kind in product(PROBLEMS, KINDS):
        own, other = (document["searches"][problem][name] for name in (kind, rival(kind)))
        if common := sorted(own.keys() & other.keys(), key=int):
            lines.append(_row(problem, kind, [own[name] for name in common], [other[name] for name in common]))
    return "\n".join(lines) + "\n"


def _repetitions(document: dict[str, Any]) -> str:
    counts = [min(map(len, kinds.values())) for kinds in document["searches"].values()]
    return f"{' and '.join(map(str, counts))} searches"


def _row(problem: str, kind: str, own: list[dict[str, float]], other: list[dict[str, float]]) -> str:
    def mean(key: str) -> float:
        return statistics.fmean(search[key] for search in own)

    cells = [problem, kind, f"{mean('pruned'):.0%}"]
    if kind.startswith("none"):
        seconds = statistics.median(search["seconds"] for search in own)
        cells += [f"{mean('epochs'):,.0f}", f"{seconds:.1f} s", "", f"{mean('best'):.4g}", "", ""]
        return f"| {' | '.join(cells)} |"
    for key in ("epochs", "seconds"):
        ratios = [one[key] / two[key] for one, two in zip(own, other, strict=True)]
        cells.append(f"{statistics.median(ratios):.2f}")
    differences = [one["best"] - two["best"] for one, two in zip(own, other, strict=True)]
    half = math.nan
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    p = float(stats.wilcoxon(differences).pvalue) if any(differences) else 1.0
    average = statistics.fmean(differences)
    is_full = "" if kind.startswith("wilcoxon") else f"{mean('fill'):.0%}"  # whose stages have several seeds
    cells += [is_full, f"{mean('best'):.4g}"]
    cells += [f"{average:.2g} ({average - half:.2g} to {average + half:.2g})", f"{p:.2g}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
