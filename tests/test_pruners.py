"""`hydra.sweeper.pruner`: trials that are behind the others end early; `hydra.sweeper.seeds`: a trial is a mean."""

import csv
import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import train_as_new_processes
from optuna.trial import TrialState

from mlpexp import load_results
from mlpexp.runtime.errors import Interrupted
from mlpexp.search.pruners import PRUNERS
from mlpexp.search.study_journal import Journal
from mlpexp.sweep.paused_runs import PausedRuns

SPACE = "'optimizer.lr=tag(log,interval(0.003,1))' model.width=3,5"
TINY = "data.batch_size=256 trainer.max_epochs=6 tracking.diagnostics=false tracking.tensorboard=false"
SEARCH = f"-m hydra/sweeper=optuna name=s {SPACE} {TINY} hydra.sweeper.n_trials=15 hydra.sweeper.batch_size=6"
SEEDS = 6
EXTRA = {"wilcoxon": f"hydra.sweeper.seeds={SEEDS}"}
MOMENTS = {"median": 8, "asha": 3, "hyperband": 4, "wilcoxon": 4}  # stages that are trained before the interruption
PLACE = Path("multirun/s")


train = pytest.fixture(train_as_new_processes)


def command(pruner: str) -> str:
    return f"{SEARCH} hydra.sweeper.pruner={pruner} {EXTRA.get(pruner, '')}"


def trials() -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(Journal(PLACE / "optuna.log"))
    return sorted(
        optuna.load_study(study_name=None, storage=storage).trials, key=lambda trial: trial.user_attrs["trial"]
    )


def curve(name: str) -> list[float]:
    with (PLACE / name / "metrics.csv").open(newline="") as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file)]


def picture() -> tuple[Any, ...]:
    """What must come out the same, to the bit."""
    rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in load_results(PLACE)]
    told = [(trial.state, trial.values, trial.params, trial.intermediate_values) for trial in trials()]
    return rows, told, (PLACE / "search.jsonl").read_text().split("\n")[1:]


def judged_by_optuna(pruner: str, recorded: list[optuna.trial.FrozenTrial]) -> dict[int, tuple[int, bool]]:
    """The last step of each trial, and whether it is pruned there: by Optuna's class alone, in a study of its own.

    Trials come as `search.jsonl` records. Those that are furthest behind advance by one comparison: all report what is
    recorded of them, and then Optuna is asked in the order of their numbers.
    """
    kinds: dict[str, tuple[optuna.pruners.BasePruner, list[list[int]]]] = {
        "median": (optuna.pruners.MedianPruner(n_warmup_steps=1), [[1], [2], [3], [4], [5], []]),
        "asha": (optuna.pruners.SuccessiveHalvingPruner(min_resource=1), [[1], [4], []]),
        "hyperband": (optuna.pruners.HyperbandPruner(max_resource=6), [[1], [3], []]),
        "wilcoxon": (optuna.pruners.WilcoxonPruner(), [[0, 1, 2, 3], [4], [5]]),
    }
    judge, stages_steps = kinds[pruner]
    study = optuna.create_study(study_name="mlpexp", pruner=judge)
    coming = [json.loads(line.partition(" ")[2]) for line in (PLACE / "search.jsonl").read_text().splitlines()[1:]]
    active: dict[int, optuna.Trial] = {}
    stages: dict[int, int] = {}
    ends: dict[int, tuple[int, bool]] = {}
    clock = 0
    while coming or active:
        while coming and (not active or coming[0].get("clock", 0) <= clock):
            for _ in coming.pop(0)["trials"]:
                trial = study.ask()
                active[trial.number], stages[trial.number] = trial, 0
        group = [number for number in sorted(active) if stages[number] == min(stages[other] for other in active)]
        stage = stages[group[0]]
        for number in group:
            for step in stages_steps[stage]:
                active[number].report(recorded[number].intermediate_values[step], step)
        for number in group:
            stages[number] += 1
            is_last = stages[number] == len(stages_steps)
            is_pruned = not is_last and active[number].should_prune()
            if is_pruned or is_last:
                ends[number] = max(stages_steps[stage], default=-1), is_pruned
                state = TrialState.PRUNED if is_pruned and pruner != "wilcoxon" else TrialState.COMPLETE
                values = None if state == TrialState.PRUNED else recorded[number].values
                study.tell(active.pop(number), values, state)
        clock += 1
    return ends


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # of the Wilcoxon pruner
@pytest.mark.parametrize("pruner", PRUNERS)
def test_optuna_alone_would_have_pruned_the_same_trials_at_the_same_epochs(pruner: str, train: Any, here: Path) -> None:
    assert train(command(pruner)).code == 0
    recorded = trials()
    ends = judged_by_optuna(pruner, recorded)
    assert sorted(ends) == [trial.user_attrs["trial"] for trial in recorded] == list(range(15))
    stopped = {number: step for number, (step, is_pruned) in ends.items() if is_pruned}
    assert stopped == {
        trial.user_attrs["trial"]: max(trial.intermediate_values)
        for trial in recorded
        if trial.state == TrialState.PRUNED or "stopped" in trial.user_attrs
    }
    assert stopped


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_an_interrupted_search_makes_the_same_decisions(
    pruner: str, train: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = train(command(pruner))
    assert ended.code == 0, ended.err
    whole = picture()
    rows = whole[0]
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert [row["run"] for row in rows] == sorted(row["run"] for row in rows)
    if pruner == "wilcoxon":
        assert len(rows) < 15 * SEEDS  # some trials without their last seeds
    else:
        assert 1 <= len(stopped) < 15
        assert all(row["epochs"] < 6 for row in stopped)
        assert all(row["epochs"] == 6 for row in rows if row["status"] == "ok")
    assert sum(trial.state == TrialState.PRUNED for trial in trials()) == len(stopped)
    shutil.rmtree(PLACE)
    ordinary, calls = PausedRuns.train, []

    def interrupted(self: PausedRuns, *arguments: Any) -> Any:
        yield from ordinary(self, *arguments)
        calls.append(1)
        if len(calls) == MOMENTS[pruner]:
            raise Interrupted("stopped by SIGTERM", 143)

    monkeypatch.setattr(PausedRuns, "train", interrupted)
    assert train(command(pruner)).code == 143
    monkeypatch.setattr(PausedRuns, "train", ordinary)
    for _ in range(2):  # the second start trains nothing
        assert train(command(pruner)).code == 0
        assert picture() == whole


def test_the_median_of_the_trained_trials_decides(train: Any, here: Path) -> None:
    """Against curves: the second generation is compared with the first one, of which all trials train to the end."""
    options = "'hydra.sweeper.pruner_options={n_startup_trials:6,n_warmup_steps:2}'"
    words = command("median").replace("n_trials=15", "n_trials=12")
    assert train(f"{words} {options}").code == 0
    rows = load_results(PLACE)
    first, second = rows[:6], rows[6:]
    assert {row["epochs"] for row in first} == {6}
    best = {row["run"]: [min(curve(row["name"])[: epoch + 1]) for epoch in range(row["epochs"])] for row in rows}
    for row in second:
        mine = best[row["run"]]
        behind = [
            epoch
            for epoch in range(2, 6)
            if epoch <= len(mine) and mine[epoch - 1] > statistics.median(best[one["run"]][epoch - 1] for one in first)
        ]
        assert row["epochs"] == (behind[0] if behind else 6)
        assert row["status"] == ("stopped" if behind else "ok")


def test_a_survivor_has_the_bits_of_a_run_without_rivals(train: Any, here: Path) -> None:
    assert train(command("asha")).code == 0
    rows = load_results(PLACE)
    stopped = next(row for row in rows if row["status"] == "stopped")
    whole = next(row for row in rows if row["status"] == "ok")
    both = [(row, curve(row["name"])) for row in (stopped, whole)]
    for row, mine in both:
        shutil.rmtree(PLACE)
        assert train(f"-m name=s optimizer.lr={row['optimizer.lr']} model.width={row['model.width']} {TINY}").code == 0
        (alone,) = load_results(PLACE)
        assert curve(alone["name"])[: len(mine)] == mine


def test_places_that_become_free_are_filled(train: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    ordinary = PausedRuns.train

    def watched(self: PausedRuns, places: Any, *others: Any) -> Any:
        sizes.append(len(self.in_training))
        yield from ordinary(self, places, *others)

    monkeypatch.setattr(PausedRuns, "train", watched)
    assert train(command("asha")).code == 0
    generations = len((PLACE / "search.jsonl").read_text().splitlines()) - 1
    assert generations > 3  # of 15 trials with 6 places
    while_asking = sizes[: next(i for i, row in enumerate(sizes) if i and row < 4)]
    assert max(sizes) <= 6 and min(while_asking) >= 4


def test_a_table_keeps_pruned_trials_too(train: Any, here: Path) -> None:
    words = f"{command('hyperband')} early_stopping.patience=3"
    assert train(words).code == 0
    rows = picture()[0]
    shutil.rmtree(PLACE)
    for _ in range(2):
        assert train(f"{words} record=table").code == 0
        assert [(row["status"], row["epochs"], row["val/loss"]) for row in picture()[0]] == [
            (row["status"], row["epochs"], row["val/loss"]) for row in rows
        ]


def test_seeds_are_trained_side_by_side_and_told_as_their_mean(train: Any, here: Path) -> None:
    words = f"-m hydra/sweeper=optuna name=s {SPACE} {TINY} hydra.sweeper.n_trials=4 hydra.sweeper.seeds=3 seed=7"
    ended = train(f"{words} hydra.sweeper.pruner=median hydra.sweeper.batch_size=2")
    assert ended.code == 0, ended.err
    rows = load_results(PLACE)
    assert [row["seed"] for row in rows] == [7, 8, 9] * 4
    means = [math.fsum(row["val/loss"] for row in rows[i : i + 3]) / 3 for i in range(0, 12, 3)]
    assert [trial.value for trial in trials()] == means
    shutil.rmtree(PLACE)
    assert train(f"-m hydra/sweeper=optuna name=s {SPACE} {TINY} hydra.sweeper.n_trials=4 seed='range(7,10)' "
                 "hydra.sweeper.batch_size=2").code == 0  # fmt: skip
    assert [row["val/loss"] for row in load_results(PLACE)] == [row["val/loss"] for row in rows]


def test_further_seeds_of_the_best_trials_are_trained_once_and_as_any_run(train: Any, here: Path) -> None:
    words = f"-m hydra/sweeper=optuna name=s {SPACE} {TINY} hydra.sweeper.n_trials=6 hydra.sweeper.batch_size=3"
    words += " trainer.max_epochs=3 hydra.sweeper.pruner=median"
    assert train(words).code == 0
    before = {path: path.stat().st_mtime_ns for path in PLACE.glob("*/result.json")}
    ended = train(f"{words} hydra.sweeper.final_seeds=2")
    assert ended.code == 0, ended.err
    further = [row for row in load_results(PLACE) if row["seed"]]
    assert [row["seed"] for row in further] == [1, 2] * (len(further) // 2)
    assert all(row["status"] != "stopped" for row in further)
    after = {path: path.stat().st_mtime_ns for path in PLACE.glob("*/result.json")}
    assert (len(after), after | before) == (len(before) + len(further), after)
    first = further[0]
    alone = f"-m name=alone seed=1 optimizer.lr={first['optimizer.lr']} model.width={first['model.width']}"
    assert train(f"{alone} {TINY} trainer.max_epochs=3").code == 0
    (metrics,) = Path("multirun/alone").glob("*/metrics.csv")
    assert metrics.read_text() == (PLACE / first["name"] / "metrics.csv").read_text()
    assert train(f"{words} hydra.sweeper.final_seeds=2").code == 0
    assert {path: path.stat().st_mtime_ns for path in PLACE.glob("*/result.json")} == after


def test_a_trial_with_a_run_that_diverges_fails(train: Any, here: Path) -> None:
    words = f"-m hydra/sweeper=optuna name=s optimizer.lr=0.1,1e38 {TINY} model.activation=relu model.width=4"
    ended = train(f"{words} hydra.sweeper.n_trials=6 hydra.sweeper.pruner=median hydra.sweeper.seeds=2")
    assert ended.code == 0, ended.err
    rows = load_results(PLACE)
    assert {row["status"] for row in rows if row["optimizer.lr"] > 1} == {"diverged"}
    assert {row["status"] for row in rows if row["optimizer.lr"] < 1} <= {"ok", "chance"}
    assert {(float(trial.params["optimizer.lr"]) > 1, trial.state) for trial in trials()} == {
        (True, TrialState.FAIL),
        (False, TrialState.COMPLETE),
    }


REFUSED = {
    "hydra.sweeper.pruner=wilcoxon hydra.sweeper.seeds=4": "add hydra.sweeper.seeds=5",
    "hydra.sweeper.pruner=wilcoxon hydra.sweeper.seeds=5 'hydra.sweeper.pruner_options={p_threshold:0.01}'": "seeds=8",
    "hydra.sweeper.pruner=wilcoxon hydra.sweeper.seeds=5 'hydra.sweeper.pruner_options={p_threshold:0}'": "raise p_thr",
    "hydra.sweeper.pruner=asha 'hydra.sweeper.pruner_options={reduction_factor:2.5}'": "2.5 is no whole number",
    "hydra.sweeper.pruner=hyperband 'hydra.sweeper.pruner_options={min_resource:0}'": "min_resource",
    "hydra.sweeper.pruner=hyperband 'hydra.sweeper.pruner_options={reduction_factor:1}'": "reduction_factor",
    "hydra.sweeper.pruner=hyperband 'hydra.sweeper.pruner_options={bootstrap_count:-1}'": "bootstrap_count",
    "hydra.sweeper.pruner=hyperband 'hydra.sweeper.pruner_options={min_resource:3,max_resource:2}'": "no bracket",
    "hydra.sweeper.pruner=medain": "did you mean median?",
    "hydra.sweeper.pruner=wilcoxon": "add hydra.sweeper.seeds=5",
    "hydra.sweeper.seeds=0": "must be a whole number from 1",
    "hydra.sweeper.seeds=3 seed=1,2": "leave out one of the two",
    "hydra.sweeper.pruner=median 'hydra.sweeper.pruner_options={warmup:3}'": "median has n_startup_trials",
    "hydra.sweeper.pruner=median 'hydra.sweeper.pruner_options={n_warmup_steps:many}'": "is no number",
    "hydra.sweeper.pruner=asha 'hydra.sweeper.pruner_options={reduction_factor:1}'": "reduction_factor",
    "hydra.sweeper.pruner=median 'hydra.sweeper.pruner_options={interval_steps:0}'": "interval_steps",
    "'hydra.sweeper.pruner_options={n_warmup_steps:3}'": "need a pruner",
    "hydra.sweeper.pruner=median hydra.sweeper.pruner_options=3": "is no mapping",
    "hydra.sweeper.pruner=median trainer.max_epochs=1": "raise trainer.max_epochs",
    "hydra.sweeper.pruner=median 'hydra.sweeper.objectives=[val/acc,num_parameters]'": "choose one",
    "hydra.sweeper.pruner=median hydra.sweeper.objectives=[num_parameters]": "choose one",
    "hydra.sweeper.pruner=median hydra/launcher=basic": "leave out hydra/launcher",
    "hydra.sweeper.pruner=median hydra.launcher.backend=loky": "trains in this process",
    "hydra.sweeper.pruner=median model.variant=torch_nn,backprop": "model.variant=backprop trains alone",
}


@pytest.mark.thorough(sample=5)
@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_pruned_is_refused_in_one_line(arguments: str, train: Any, here: Path) -> None:
    ended = train(f"-m hydra/sweeper=optuna name=s {SPACE} hydra.sweeper.n_trials=4 {arguments}")
    assert ended.code == 2, ended.err
    assert REFUSED[arguments] in ended.line
    assert not (PLACE / "optuna.log").exists()


def test_another_pruner_in_the_same_place_is_refused(train: Any, here: Path) -> None:
    words = f"-m hydra/sweeper=optuna name=s {SPACE} {TINY} hydra.sweeper.n_trials=2"
    assert train(words).code == 0
    ended = train(f"{words} hydra.sweeper.pruner=median")
    assert (ended.code, "hydra.sweeper.pruner is not given there and median here" in ended.line) == (2, True)
