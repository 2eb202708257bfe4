"""`hydra/sweeper=optuna`: what is asked for, what is told, how a search carries on."""

import fcntl
import hashlib
import json
import math
import multiprocessing
import os
import shlex
import shutil
import signal
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from conftest import run_script, train_as_new_processes
from optuna.trial import TrialState

from mlpexp import load_results
from mlpexp.runtime.errors import Interrupted
from mlpexp.search import finalists, samplers, study_storage
from mlpexp.search.search_record import Search
from mlpexp.search.study_journal import Journal
from mlpexp.sweep.jobs import Job, Outcome

SPACE = "'optimizer.lr=tag(log,interval(0.001,1))' 'model.width=tag(log,int,interval(4,64))' model.activation=tanh,relu"
SEARCH = "-m hydra/sweeper=optuna name=s"


def loss(job: Job) -> float:
    """A landscape with its minimum at lr = 0.1, width 16, relu."""
    cfg = job.config
    assert isinstance(cfg.model.width, int)
    distance = (math.log10(cfg.optimizer.lr) + 1) ** 2 + math.log2(cfg.model.width / 16) ** 2 / 4
    return distance + (cfg.model.activation != "relu") / 4 + cfg.seed / 100


train = pytest.fixture(train_as_new_processes)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Jobs are trained in no time, by `trained.by`; `trained.portions` are those that were handed over."""
    seen = SimpleNamespace(portions=[], by=loss, status="ok")

    def train_jobs(_: Any, jobs: Sequence[Job], writing: object) -> list[Outcome]:
        seen.portions.append(list(jobs))
        return [outcome(job) for job in jobs]

    def outcome(job: Job) -> Outcome:
        try:
            value = seen.by(job)
        except ValueError as error:
            return Outcome(error=error)
        status = seen.status if math.isfinite(value) else "diverged"
        metrics = {"val/loss": value, "val/acc": 1 / (1 + value)}
        return Outcome(
            result=SimpleNamespace(  # type: ignore[arg-type]
                status=status,
                objective=value,
                monitor="val/loss",
                metrics=metrics,
                message="diverged in epoch 0" if status == "diverged" else None,
                num_parameters=100 * job.config.model.width,  # type: ignore[operator]
                seconds={"fit": 1.0},
                epochs=1,
            )
        )

    seen.train_jobs = train_jobs
    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.train_jobs", train_jobs)
    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.conclude", lambda *_: None)
    return seen


def study(here: Path, storage: Any = None) -> optuna.Study:
    storage = storage or optuna.storages.JournalStorage(Journal(here / "multirun/s/optuna.log"))
    return optuna.load_study(study_name=None, storage=storage)


def typed(portions: Sequence[Sequence[Job]]) -> list[list[tuple[str, ...]]]:
    return [[job.overrides for job in portion] for portion in portions]


def test_a_run_at_chance_level_is_told_with_its_value(train: Any, here: Path, trained: Any) -> None:
    trained.by, trained.status = lambda job: 2.3 if job.config.optimizer.lr < 0.03 else loss(job), "chance"
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=8 hydra.sweeper.batch_size=8")
    assert (ended.code, "failed" in ended.err) == (0, False)
    states = [(trial.state.name, trial.value) for trial in study(here).get_trials()]
    assert len(states) == 8
    assert ("COMPLETE", 2.3) in states
    assert {state for state, _ in states} == {"COMPLETE"}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "cmaes"])
def test_a_generation_is_asked_for_and_trained_at_once(sampler: str, train: Any, here: Path, trained: Any) -> None:
    ended = train(
        f"{SEARCH} {SPACE} hydra.sweeper.n_trials=20 hydra.sweeper.batch_size=8 hydra.sweeper.sampler={sampler}"
    )
    assert ended.code == 0, ended.err
    assert [len(portion) for portion in trained.portions] == [8, 8, 4]
    jobs = [job for portion in trained.portions for job in portion]
    assert [job.number for job in jobs] == list(range(20))
    assert len({job.directory for job in jobs}) == 20
    assert all(0.001 <= job.config.optimizer.lr <= 1 and 4 <= job.config.model.width <= 64 for job in jobs)
    best = min(jobs, key=loss)
    assert study(here).best_value == pytest.approx(loss(best), abs=0)
    written = yaml.safe_load((here / "multirun/s/optimization_results.yaml").read_text())
    assert written == {
        "name": "optuna",
        "best_params": {
            "optimizer.lr": best.config.optimizer.lr,
            "model.width": best.config.model.width,
            "model.activation": best.config.model.activation,
        },
        "best_value": loss(best),
    }
    assert f"best of 20 trials: number {best.number + 1}, val/loss {loss(best):.6g}" in ended.out
    assert ended.out.count("trials ") == 3


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    ("trials", "sampler", "sizes"),
    [
        (40, "tpe", [5] * 8),
        (41, "tpe", [5] * 8 + [1]),
        (161, "tpe", [20] * 8 + [1]),
        (7, "cmaes", [1] * 7),
        (60, "random", [50, 10]),
    ],
)
def test_by_default_a_generation_is_an_eighth_of_the_trials_and_at_most_twenty(
    trials: int, sampler: str, sizes: list[int], train: Any, here: Path, trained: Any
) -> None:
    space = "'optimizer.lr=tag(log,interval(0.001,1))'"
    if sampler == "cmaes":  # needs two numbers
        space += " 'optimizer.weight_decay=interval(0,1)'"
    ended = train(f"{SEARCH} {space} hydra.sweeper.n_trials={trials} hydra.sweeper.sampler={sampler}")
    assert ended.code == 0, ended.err
    final = [20] if trials >= 40 else []
    assert [len(portion) for portion in trained.portions] == sizes + final
    up_to = "up to " if len(set(sizes)) > 1 else ""
    assert ended.out.splitlines()[0] == (
        f"search of {trials} trials: {len(sizes)} generations of {up_to}{sizes[0]}, sampler {sampler}, "
        f"objective val/loss{', then the best 5 with 4 further seeds' if final else ''}"
    )


def test_trials_of_one_generation_keep_away_from_each_other() -> None:
    made = samplers.sampler("tpe", 0, 0, 20)
    assert made._constant_liar is True  # type: ignore[attr-defined]


def test_what_it_learns_makes_it_better_than_chance(train: Any, here: Path, trained: Any) -> None:
    train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=60 hydra.sweeper.batch_size=20")
    means = [sum(map(loss, portion)) / len(portion) for portion in trained.portions]
    assert means[2] < means[0] / 2


def test_a_grid_goes_through_every_combination_in_the_order_of_a_sweep(train: Any, here: Path, trained: Any) -> None:
    grid = "model.width='range(8,33,8)' model.activation=tanh,relu optimizer.lr=0.1,0.2 trainer.max_epochs=3"
    ended = train(f"{SEARCH} {grid} hydra.sweeper.sampler=grid hydra.sweeper.batch_size=9")
    assert ended.code == 0, ended.err
    found = [job.overrides[1:] for portion in trained.portions for job in portion]
    trained.portions.clear()
    assert train(f"-m name=other {grid}").code == 0
    assert found == [job.overrides[1:] for portion in trained.portions for job in portion]
    assert len(found) == 16


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    ("sampler", "size"), [("tpe", 8), ("gp", 6), ("cmaes", 4), ("qmc", 4)]
)  # tpe's first ten are random
def test_a_search_carries_on_to_a_total_as_if_it_had_not_stopped(
    sampler: str, size: int, train: Any, here: Path, trained: Any
) -> None:
    total = 3 * size
    command = f"{SEARCH} {SPACE} hydra.sweeper.sampler={sampler} hydra.sweeper.batch_size={size}"
    train(f"{command} hydra.sweeper.n_trials={total}")
    whole = typed(trained.portions)
    shutil.rmtree(here / "multirun")
    trained.portions.clear()
    assert train(f"{command} hydra.sweeper.n_trials={size}").code == 0
    calls = []

    def killed(job: Job) -> float:
        calls.append(job)
        if len(calls) == 3 * size // 2:  # in the middle of the second generation
            raise Interrupted("stopped by SIGTERM", 143)
        return loss(job)

    trained.by = killed
    assert train(f"{command} hydra.sweeper.n_trials={total}").code == 143
    trained.by = loss
    trained.portions.clear()
    assert train(f"{command} hydra.sweeper.n_trials={total}").code == 0
    assert typed(trained.portions) == whole
    assert [trial.state for trial in study(here).trials] == [TrialState.COMPLETE] * total
    trained.portions.clear()
    train(f"{command} hydra.sweeper.n_trials={total}")
    assert typed(trained.portions) == whole  # recognised as done by the launcher, which is another test's
    assert len(study(here).trials) == total


def test_what_diverges_or_raises_is_a_failed_trial(train: Any, here: Path, trained: Any) -> None:
    def by(job: Job) -> float:
        if job.number == 3:
            raise ValueError("broken")
        return math.nan if job.number == 5 else loss(job)

    trained.by = by
    command = f"{SEARCH} {SPACE} hydra.sweeper.n_trials=8 hydra.sweeper.batch_size=8"
    ended = train(command)
    assert ended.code == 1
    assert "2 of 8 trials failed" in ended.err
    assert [trial.number for trial in study(here).trials if trial.state == TrialState.FAIL] == [3, 5]
    trained.by = lambda job: math.nan if job.number == 5 else loss(job)  # now number 3 is well
    assert train(command).code == 0
    states = [trial.state.name for trial in study(here).trials]
    assert states.count("FAIL") == 2 and states.count("COMPLETE") == 7  # the eighth in place of the one that raised
    trained.portions.clear()
    assert train(command).code == 0
    assert len(study(here).trials) == 9


def test_a_search_in_which_nothing_succeeds_says_why(train: Any, here: Path, trained: Any) -> None:
    """Divergence is an outcome, and would come again; an error may not."""
    trained.by = lambda job: math.nan
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 hydra.sweeper.final_seeds=2")
    assert (ended.code, ended.line) == (0, "none of 4 trials has an outcome: diverged in epoch 0 (4 times)")
    assert not (here / "multirun/s/optimization_results.yaml").exists()

    def broken(job: Job) -> float:
        raise ValueError("broken")

    trained.by = broken
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 name=t")
    assert ended.code == 1
    assert ended.lines == [
        "none of 4 trials has an outcome: ValueError: broken (4 times)",
        "train.py: 4 trials failed; the same command tries them again",
    ]


def test_the_sampler_keeps_away_from_where_runs_diverge(train: Any, here: Path, trained: Any) -> None:
    trained.by = lambda job: math.nan if job.config.optimizer.lr > 0.1 else job.config.optimizer.lr
    space = "'optimizer.lr=tag(log,interval(0.05,10))'"  # three quarters of it diverge
    ended = train(f"{SEARCH} {space} hydra.sweeper.n_trials=60")
    assert ended.code == 0, ended.err
    *generations, _ = trained.portions  # the last one is of the five best
    diverged = [sum(job.config.optimizer.lr > 0.1 for job in portion) for portion in generations]
    assert diverged[0] >= len(trained.portions[0]) / 2
    assert diverged[-1] <= 4
    states = [trial.state for trial in study(here).trials]
    assert states.count(TrialState.FAIL) == sum(diverged)
    assert f"{sum(diverged)} of 60 trials failed" in ended.err


def test_equal_trials_are_trained_once_and_told_the_same(train: Any, here: Path, trained: Any) -> None:
    ended = train(
        f"{SEARCH} model.width=4,8 optimizer.lr=0.1,0.2 hydra.sweeper.n_trials=30 hydra.sweeper.batch_size=10"
    )
    assert ended.code == 0, ended.err
    jobs = [job for portion in trained.portions for job in portion]
    assert len(jobs) == len({job.directory for job in jobs}) == 4
    trials = study(here).trials
    assert len(trials) == 30
    values = {tuple(trial.params.values()): trial.value for trial in trials}
    assert all(trial.value == values[tuple(trial.params.values())] for trial in trials)


def test_a_trial_is_the_mean_over_its_seeds(train: Any, here: Path, trained: Any) -> None:
    ended = train(f"{SEARCH} {SPACE} 'seed=range(3)' hydra.sweeper.n_trials=4 hydra.sweeper.batch_size=4")
    assert ended.code == 0, ended.err
    (portion,) = trained.portions
    assert [job.config.seed for job in portion] == [0, 1, 2] * 4
    trials = study(here).trials
    assert [trial.value for trial in trials] == [
        pytest.approx(sum(map(loss, portion[i : i + 3])) / 3) for i in range(0, 12, 3)
    ]
    assert all("seed" not in trial.params for trial in trials)


FINAL = f"{SEARCH} {SPACE} hydra.sweeper.n_trials=20 hydra.sweeper.final_seeds=3"


@pytest.mark.parametrize("seeds", [("", [0]), ("seed=5", [5]), ("hydra.sweeper.seeds=2", [0, 1])])
def test_the_best_trials_are_ranked_by_their_means_over_further_seeds(
    seeds: tuple[str, list[int]], train: Any, here: Path, trained: Any
) -> None:
    words, own = seeds
    trained.by = lambda job: loss(job) + (job.config.seed not in own) * (job.config.model.width % 7) / 5
    ended = train(f"{FINAL} {words}")
    assert ended.code == 0, ended.err
    final = trained.portions[-1]
    assert [job.config.seed for job in final] == [own[-1] + 1, own[-1] + 2, own[-1] + 3] * 5
    values: dict[tuple[Any, ...], list[float]] = {}
    for job in [job for portion in trained.portions for job in portion]:
        key = job.config.optimizer.lr, job.config.model.width, job.config.model.activation
        values.setdefault(key, []).append(trained.by(job))
    means = {key: sum(found) / len(found) for key, found in values.items() if len(found) == len(own) + 3}
    assert len(means) == 5
    searched = {key: sum(found[: len(own)]) for key, found in values.items()}
    assert set(means) == set(sorted(searched, key=searched.__getitem__)[:5])
    best = min(means, key=means.__getitem__)
    written = yaml.safe_load((here / "multirun/s/optimization_results.yaml").read_text())
    assert tuple(written["best_params"].values()) == best
    assert written["best_value"] == pytest.approx(means[best])
    assert [one["mean"] for one in written["finalists"]] == pytest.approx(sorted(means.values()))
    assert f"val/loss {means[best]:.6g}, the mean with 3 further seeds" in ended.out
    assert len(study(here).trials) == 20


def test_a_trial_without_some_of_its_seeds_is_no_finalist() -> None:
    """Its mean is over fewer seeds, which are not weighted as those of the others."""
    study = optuna.create_study()
    for value in (3.0, 1.0, 2.0):
        attributes = {study_storage.STOPPED: "after 4 of 5 runs"} if value == 1 else {}
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": value},
                distributions={"x": optuna.distributions.FloatDistribution(0, 9)},
                value=value,
                user_attrs=attributes,
            )
        )
    assert [trial.value for trial in finalists.best_trials(study)] == [2, 3]


def test_a_trial_that_diverges_with_a_further_seed_is_not_the_best(train: Any, here: Path, trained: Any) -> None:
    trained.by = lambda job: math.nan if job.config.seed == 2 and job.config.model.width < 30 else loss(job)
    ended = train(FINAL)
    assert ended.code == 0, ended.err
    finalists = yaml.safe_load((here / "multirun/s/optimization_results.yaml").read_text()).get("finalists", [])
    widths = {job.config.model.width for job in trained.portions[-1]}
    assert min(widths) < 30
    assert len(finalists) < 5
    assert all(one["params"]["model.width"] >= 30 for one in finalists)
    trained.by = lambda job: math.nan if job.config.seed else loss(job)
    num_earlier = len(trained.portions)
    ended = train(FINAL.replace("name=s", "name=t"))
    assert (ended.code, "no trial among the best has a value with all further seeds" in ended.err) == (0, True)
    written = yaml.safe_load((here / "multirun/t/optimization_results.yaml").read_text())
    assert written["best_value"] == min(loss(job) for portion in trained.portions[num_earlier:-1] for job in portion)


RANDOM = f"{SEARCH} {SPACE} hydra.sweeper.sampler=random"


@pytest.mark.parametrize(
    ("words", "final", "advised"),
    [
        ("hydra.sweeper.n_trials=40", 20, False),
        ("hydra.sweeper.n_trials=40 hydra.sweeper.final_seeds=1", 5, False),
        ("hydra.sweeper.n_trials=40 hydra.sweeper.final_seeds=0", 0, False),
        ("hydra.sweeper.n_trials=39", 0, True),
        ("hydra.sweeper.n_trials=40 hydra.sweeper.objectives=[num_parameters]", 0, False),
        ("hydra.sweeper.n_trials=40 'hydra.sweeper.objectives=[val/acc,num_parameters]'", 0, False),
    ],
)
def test_from_forty_trials_on_the_best_are_confirmed_with_further_seeds(
    words: str, final: int, advised: bool, train: Any, here: Path, trained: Any
) -> None:
    ended = train(f"{RANDOM} {words}")
    assert ended.code == 0, ended.err
    further = [job for portion in trained.portions for job in portion if job.config.seed]
    assert len(further) == final
    assert (f"then the best 5 with {final // 5} further seed" in ended.out.splitlines()[0]) == bool(final)
    assert ("the same command with hydra.sweeper.final_seeds=4" in ended.out) == advised
    if advised:
        trained.portions.clear()
        ended = train(f"{RANDOM} {words} hydra.sweeper.final_seeds=4")
        assert sum(job.config.seed > 0 for portion in trained.portions for job in portion) == 20
        assert "the mean with 4 further seeds" in ended.out and "the same command" not in ended.out


def test_a_search_of_a_version_that_did_not_confirm_its_best_trials_does_not_do_so_either(
    train: Any, here: Path, trained: Any
) -> None:
    assert train(f"{RANDOM} hydra.sweeper.n_trials=20").code == 0
    record = here / "multirun/s/search.jsonl"
    head, *others = record.read_bytes().splitlines(keepends=True)
    text = head.rstrip(b"\n").partition(b" ")[2].replace(b',"confirms":true', b"")
    assert b"confirms" in head and b"confirms" not in text
    record.write_bytes(b"".join([hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n", *others]))
    ended = train(f"{RANDOM} hydra.sweeper.n_trials=60")
    assert (ended.code, "damaged" in ended.err) == (0, False), ended.err
    assert not any(job.config.seed for portion in trained.portions for job in portion)
    assert "the same command with hydra.sweeper.final_seeds=4" in ended.out


def test_two_objectives_give_a_front(train: Any, here: Path, trained: Any) -> None:
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=30 'hydra.sweeper.objectives=[val/acc,num_parameters]'")
    assert ended.code == 0, ended.err
    jobs = [job for portion in trained.portions for job in portion]
    points = {(1 / (1 + loss(job)), 100.0 * job.config.model.width) for job in jobs}
    front = {(a, n) for a, n in points if not any(x >= a and y <= n and (x, y) != (a, n) for x, y in points)}
    written = yaml.safe_load((here / "multirun/s/optimization_results.yaml").read_text())
    assert {tuple(one["values"]) for one in written["solutions"]} == front
    assert f"{len(front)} of 30 trials that no other beats in val/acc and num_parameters" in ended.out


def test_values_that_contradict_each_other_fail_alone(train: Any, here: Path, trained: Any) -> None:
    ended = train(
        f"{SEARCH} optimizer.name=sgd,adam optimizer.momentum=0.0,0.9 hydra.sweeper.sampler=random "
        "hydra.sweeper.n_trials=12"
    )
    assert ended.code == 0, ended.err
    (jobs,) = trained.portions
    assert {(job.config.optimizer.name, job.config.optimizer.momentum) for job in jobs} == {
        ("sgd", 0.0),
        ("sgd", 0.9),
        ("adam", 0.0),
    }
    failed = [trial.params for trial in study(here).trials if trial.state == TrialState.FAIL]
    assert failed == [{"optimizer.name": "adam", "optimizer.momentum": "0.9"}] * len(failed) != []
    assert f"{len(failed)} of 12 trials failed: optimizer.momentum needs optimizer.name=sgd" in ended.err


def test_a_database_that_was_claimed_in_part_is_claimed_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may come between any two of its transactions."""
    search = Search(id="a", asked={"objectives": "val/loss"})
    ordinary, allowed = optuna.Study.set_user_attr, 0

    def counted(study: optuna.Study, key: str, value: Any) -> None:
        nonlocal allowed
        if allowed == 0:
            raise KeyboardInterrupt
        allowed -= 1
        ordinary(study, key, value)

    monkeypatch.setattr(optuna.Study, "set_user_attr", counted)
    for storage in ("sqlite", f"sqlite:///{here}/other.db"):
        for first in (0, 1):
            allowed = first
            with pytest.raises(KeyboardInterrupt):
                study_storage.StudyMirror(storage, here, ["val/loss"]).claim(search)
        allowed = 2
        study_storage.StudyMirror(storage, here, ["val/loss"]).claim(search)
    (here / "search.jsonl").touch()
    names, _ = study_storage.load(here)
    assert names == ["val/loss"]
    with sqlite3.connect(here / "optuna.db") as database:  # as versions left it that wrote the name first
        database.execute("delete from study_user_attributes where key = 'search'")
    database.close()
    allowed = 2
    study_storage.StudyMirror("sqlite", here, ["val/loss"]).claim(search)
    assert study_storage.load(here) is not None


@pytest.mark.parametrize("storage", ["sqlite", "sqlite:///other.db"])
def test_a_database_that_was_made_in_part_is_not_there(
    storage: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna, "create_study", killed)
        with pytest.raises(KeyboardInterrupt):
            study_storage.StudyMirror(storage, here, ["val/loss"])
    assert list(here.iterdir()) == []
    study_storage.StudyMirror(storage, here, ["val/loss"]).claim(Search(id="a", asked={"objectives": "val/loss"}))
    assert [path.suffix for path in here.iterdir()] == [".db"]


def test_a_database_with_two_studies_of_one_name_is_written_again(train: Any, here: Path, trained: Any) -> None:
    """Earlier versions left it, where they were killed between a table and its index."""
    command = f"{SEARCH} {SPACE} hydra.sweeper.storage=sqlite hydra.sweeper.n_trials="
    assert train(f"{command}2").code == 0
    with sqlite3.connect(here / "multirun/s/optuna.db") as database:
        database.execute("drop index ix_studies_study_name")
        database.execute("insert into studies (study_name) values ('mlpexp')")
    database.close()
    ended = train(f"{command}3")
    assert ended.code == 0
    assert "optuna.db.damaged-1" in ended.line and "Multiple rows" in ended.line
    assert len(study_storage.load(here / "multirun/s")[1].trials) == 3


def test_sqlite_lies_in_the_sweeps_directory(train: Any, here: Path, trained: Any) -> None:
    command = f"{SEARCH} {SPACE} hydra.sweeper.storage=sqlite hydra.sweeper.n_trials="
    assert train(f"{command}2").code == 0
    assert train(f"{command}3").code == 0
    with sqlite3.connect(here / "multirun/s/optuna.db") as database:
        assert database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone() == (3,)
    database.close()


def test_a_torn_line_of_the_journal_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    journal.append_logs([{"a": 1}, {"b": 2}])
    journal.flush()
    with (tmp_path / "log").open("a") as file:
        file.write('{"torn": ')
    again = Journal(tmp_path / "log")
    assert again.read_logs(1) == [{"b": 2}]
    again.append_logs([{"c": 3}])
    again.flush()
    assert [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()] == [{"a": 1}, {"b": 2}, {"c": 3}]


GRID = "model.width='range(4,16)' hydra.sweeper.sampler=grid hydra.sweeper.batch_size=4"
ASKED = f"{SPACE} hydra.sweeper.n_trials=12 hydra.sweeper.batch_size=4"


@pytest.mark.parametrize("space", [GRID, ASKED])
@pytest.mark.parametrize("moment", [0, 6, 8])
@pytest.mark.thorough(sample=2)
def test_a_signal_while_trials_are_asked_for_loses_none(
    space: str, moment: int, train: Any, here: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(f"{SEARCH} {space}")
    whole = typed(trained.portions)
    shutil.rmtree(here / "multirun")
    ask, asked = optuna.Study.ask, []

    def interrupted(self: optuna.Study, *arguments: Any) -> optuna.Trial:
        asked.append(1)
        if len(asked) == moment + 1:
            raise Interrupted("stopped by SIGTERM", 143)
        return ask(self, *arguments)

    monkeypatch.setattr(optuna.Study, "ask", interrupted)
    assert train(f"{SEARCH} {space}").code == 143
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.train_jobs", trained.train_jobs)
    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.conclude", lambda *_: None)
    trained.portions.clear()
    assert train(f"{SEARCH} {space}").code == 0
    assert typed(trained.portions) == whole
    assert {trial.state for trial in study(here).trials} == {TrialState.COMPLETE}
    assert len(study(here).trials) == 12


@pytest.mark.parametrize("name", ["search.jsonl", "optuna.log"])
@pytest.mark.parametrize("space", [GRID, ASKED])
@pytest.mark.thorough(sample=2)
def test_a_cut_or_damaged_file_changes_no_trial(space: str, name: str, train: Any, here: Path, trained: Any) -> None:
    train(f"{SEARCH} {space}")
    whole, place = typed(trained.portions), here / "multirun/s"
    content = {name: (place / name).read_bytes() for name in ("search.jsonl", "optuna.log")}
    size = len(content[name])
    for cut in (1, size // 3, size - 1):
        for damaged in (content[name][:cut], content[name][:cut] + b"\xff" + content[name][cut + 1 :]):
            for other, bytes_ in content.items():
                (place / other).write_bytes(damaged if other == name else bytes_)
            trained.portions.clear()
            ended = train(f"{SEARCH} {space}")
            assert ended.code == 0, ended.err
            assert typed(trained.portions) == whole
            assert (place / "search.jsonl").read_bytes().count(b"\n") == 4
            values = {trial.user_attrs["trial"]: trial.value for trial in study(here).trials}
            assert values == {job.number: loss(job) for portion in trained.portions for job in portion}


def test_a_search_of_a_version_without_a_record_carries_on(train: Any, here: Path, trained: Any) -> None:
    command = f"{SEARCH} {SPACE} hydra.sweeper.batch_size=8 hydra.sweeper.n_trials="
    train(f"{command}24")
    whole, place = typed(trained.portions), here / "multirun/s"
    trials, asked = study(here).trials, study(here).user_attrs["search"]
    lines = (place / "search.jsonl").read_text().splitlines()[1:]
    recorded = [params for line in lines for params in json.loads(line.partition(" ")[2])["trials"]]  # not rounded
    for name in ("search.jsonl", "optuna.log"):
        (place / name).unlink()
    journal = Journal(place / "optuna.log")
    former = optuna.create_study(study_name="mlpexp", storage=optuna.storages.JournalStorage(journal))
    former.set_user_attr("search", asked)
    for trial in trials[:16]:
        state = TrialState.COMPLETE if trial.number != 3 else TrialState.FAIL
        value = trial.value if state == TrialState.COMPLETE else None
        attributes = {"generation": 8 * (trial.number // 8)}
        former.add_trial(
            optuna.create_trial(
                state=state,
                value=value,
                params=recorded[trial.number],
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )
    former.add_trial(  # tried again with success
        optuna.create_trial(
            value=trials[3].value,
            params=recorded[3],
            distributions=trials[3].distributions,
            user_attrs={"generation": 0, "replaces": 3},
        )
    )
    former.enqueue_trial(recorded[20])
    former.ask(trials[20].distributions)  # asked for when it was killed
    journal.flush()
    trained.portions.clear()
    assert train(f"{command}24").code == 0
    assert typed(trained.portions) == whole
    complete = [trial for trial in study(here).trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.value for trial in complete) == sorted(trial.value for trial in trials)
    refused = train(f"{SEARCH} model.width=4,16 hydra.sweeper.n_trials=2")
    assert (refused.code, "holds another search" in refused.line) == (2, True)


@pytest.mark.parametrize(
    "content", ["my diary, without a line's end", "two\nlines\n", '{"my": "data"}\n', '{"my": "data"}']
)
def test_a_file_that_is_no_journal_is_not_overwritten(content: str, train: Any, here: Path, trained: Any) -> None:
    (here / "mine.txt").write_text(content)
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 hydra.sweeper.storage=mine.txt")
    assert (ended.code, "mine.txt is not an Optuna journal" in ended.line) == (2, True), ended.err
    assert (here / "mine.txt").read_text() == content
    assert trained.portions == []


def test_a_link_or_a_fifo_is_refused_as_storage(train: Any, here: Path, trained: Any) -> None:
    (here / "target").write_text("")
    (here / "link").symlink_to(here / "target")
    os.mkfifo(here / "fifo")
    for name in ("link", "fifo", "."):
        ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 hydra.sweeper.storage={name}")
        assert (ended.code, "is not a regular file" in ended.line) == (2, True), ended.err
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 hydra.sweeper.storage=absent/log")
    assert (ended.code, "there is no directory absent" in ended.line) == (2, True), ended.err
    assert (here / "target").read_text() == ""


def test_links_in_the_directory_of_a_search_are_not_followed(train: Any, here: Path, trained: Any) -> None:
    place = here / "multirun/s"
    train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4")
    for name in ("search.jsonl", "optuna.log"):
        (here / name).write_text("precious")
        (place / name).unlink()
        (place / name).symlink_to(here / name)
        ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4")
        assert (ended.code, "symbolic link" in ended.line) == (2, True), ended.err
        assert (here / name).read_text() == "precious"
        (place / name).unlink()


def test_two_searches_cannot_share_one_storage(train: Any, here: Path, trained: Any) -> None:
    words = f"{SPACE} hydra.sweeper.n_trials=4"
    for storage in ("journal.log", f"sqlite:///{here}/shared.db"):
        first = f"-m hydra/sweeper=optuna name=a {words} hydra.sweeper.storage={storage}"
        assert train(first).code == 0
        before = {path: path.read_bytes() for path in here.glob("*.log")}
        refused = train(f"-m hydra/sweeper=optuna name=b {words} hydra.sweeper.storage={storage}")
        assert (refused.code, "holds the study of another search" in refused.line) == (2, True), refused.err
        assert {path: path.read_bytes() for path in here.glob("*.log")} == before
        again = train(first)
        assert again.code == 0, again.err
        shutil.rmtree(here / "multirun")


def test_a_journal_outside_of_the_sweep_is_locked(train: Any, here: Path, trained: Any) -> None:
    command = f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4 hydra.sweeper.storage=journal.log"
    assert train(command).code == 0
    with (here / "journal.log").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = train(command)
        assert (ended.code, "journal.log is in use by another search" in ended.line) == (2, True), ended.err
    assert train(command).code == 0


def test_somebody_else_s_lines_in_the_journal_are_not_overwritten(train: Any, here: Path, trained: Any) -> None:
    def intrude(job: Job) -> float:
        with (here / "journal.log").open("ab") as file:
            file.write(b'{"op_code":9}\n')
        return loss(job)

    trained.by = intrude
    ended = train(f"{SEARCH} {SPACE} hydra.sweeper.n_trials=1 hydra.sweeper.storage=journal.log")
    assert (ended.code, "was changed by another program" in ended.line) == (2, True), ended.err
    assert (here / "journal.log").read_bytes().endswith(b'{"op_code":9}\n')


REFUSED = {
    "optimizer.lr=0.1": "nothing to search",
    "model.activation=tanh,tahn": "unknown activation 'tahn'",
    "model.dept=1,2": "did you mean model.depth?",
    "'optimizer.lr=interval(1,0.1)'": "is no interval",
    "'model.width=tag(int,interval(3.2,3.8))'": "there is no whole number between 3.2 and 3.8",
    "'model.width=tag(log,interval(1,300))'": "give 'model.width=tag(log,int,interval(1,300))'",
    "'optimizer.lr=tag(log,interval(0,1))'": "begins above 0",
    "'optimizer.lr=interval(-1,1)'": "optimizer.lr=-1.0 is out of range",
    "'seed=interval(0,9)' model.width=4,8": "seed=range(5)",
    "model.width=4,8 hydra.sweeper.sampler=tp": "unknown sampler 'tp'",
    "model.width=4,8 hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0 is out of range",
    "model.width=4,8 hydra.sweeper.sampler=cmaes": "needs two numbers",
    "'optimizer.lr=interval(0,1)' hydra.sweeper.sampler=grid": "optimizer.lr=0.0 is out of range",
    "'optimizer.lr=interval(0.1,1)' hydra.sweeper.sampler=grid": "a grid needs single values",
    "model.width=4,8 hydra.sweeper.objectives=[test/acc]": "no test left",
    "model.width=4,8 hydra.sweeper.objectives=[acc]": "unknown objective 'acc'",
    "model.width=4,8 hydra.sweeper.n_trails=3": "n_trails",
    "'model.width=range(2,1000000000)'": "parameters and would need about",
    "model.width=4,8 hydra.sweeper.objectives=3": "hydra.sweeper.objectives=3 is no list of metrics",
    "name=a,b model.width=4,8": "name is searched, but is no setting of a network",
    "model.width=4,8 monitor=val/acc,val/loss": "'hydra.sweeper.objectives=[val/loss]'",
    "model.width=4,8 hydra.sweeper.final_seeds=-1": "hydra.sweeper.final_seeds=-1 is out of range",
    "model.width=4,8 hydra.sweeper.final_seeds=2 hydra.sweeper.objectives=[val/acc,seconds]": "by one objective",
    "optimizer.name=sgd,adam 'optimizer.momentum=interval(0.5,0.9)'": "optimizer.momentum needs optimizer.name=sgd",
}


@pytest.mark.parametrize("arguments", REFUSED)
@pytest.mark.thorough(sample=6)
def test_a_search_that_cannot_be_is_refused_in_one_line(arguments: str, train: Any, here: Path, trained: Any) -> None:
    ended = train(f"{SEARCH} {arguments}")
    assert ended.code == 2, ended.err
    assert REFUSED[arguments] in ended.line
    assert trained.portions == []
    assert not (here / "multirun/s/optuna.log").exists()


def test_of_a_key_that_is_given_twice_the_later_one_is_searched(train: Any, here: Path, trained: Any) -> None:
    ended = train(f"{SEARCH} optimizer.lr=0.1,0.2 model.width=4,8 ++optimizer.lr=0.3 hydra.sweeper.n_trials=2")
    assert ended.code == 0, ended.err
    assert {job.config.optimizer.lr for portion in trained.portions for job in portion} == {0.3}
    assert "optimizer.lr" not in study(here).trials[0].params


def test_a_space_with_fewer_points_than_trials_is_named(train: Any, here: Path, trained: Any) -> None:
    space = "'model.width=range(4,9,4)' model.activation=tanh,relu hydra.sweeper.n_trials"
    said = "the space has 4 different trials, fewer than the 5 that are asked for"
    assert said in train(f"{SEARCH} {space}=5").err
    assert said not in train(f"{SEARCH.replace('=s', '=t')} {space}=4").err
    conditions = "'hydra.sweeper.conditions={model.activation:{model.width:4}}'"
    ended = train(f"{SEARCH.replace('=s', '=u')} {space}=5 {conditions}")
    assert "the space has 3 different trials" in ended.err


def test_one_objective_needs_no_list(train: Any, here: Path, trained: Any) -> None:
    assert train(f"{SEARCH} {SPACE} hydra.sweeper.objectives=val/acc hydra.sweeper.n_trials=2").code == 0
    assert study(here).direction.name == "MAXIMIZE"


def test_a_report_reads_the_study_that_was_written_last(train: Any, here: Path, trained: Any) -> None:
    command = f"{SEARCH} {SPACE} hydra.sweeper.batch_size=2"
    for storage, count in (("journal", 2), ("sqlite", 4), ("journal", 6)):
        assert train(f"{command} hydra.sweeper.n_trials={count} hydra.sweeper.storage={storage}").code == 0
        loaded = study_storage.load(here / "multirun/s")
        assert loaded is not None and len(loaded[1].trials) == count
    assert not (here / "journal").exists()


def test_another_search_in_the_same_place_is_refused(train: Any, here: Path, trained: Any) -> None:
    assert train(f"{SEARCH} model.width=4,8 hydra.sweeper.n_trials=2").code == 0
    ended = train(f"{SEARCH} model.width=4,16 hydra.sweeper.n_trials=2")
    assert (ended.code, "holds another search: model.width is 4,8 there and 4,16 here" in ended.line) == (2, True)


def test_without_optuna_one_line_says_what_to_install(train: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in [name for name in sys.modules if name.startswith("mlpexp.search.")]:
        monkeypatch.delitem(sys.modules, name)
    ended = train(f"{SEARCH} model.width=4,8")
    assert (ended.code, ended.line) == (
        2,
        "train.py: hydra/sweeper=optuna needs the package optuna: pip install 'mlpexp[search]'",
    )


def test_a_search_leaves_what_any_sweep_leaves(train: Callable[..., Any], here: Path) -> None:
    tiny = "'optimizer.lr=tag(log,interval(0.3,1))' model.width=16,17 trainer.max_epochs=2 data.batch_size=64"
    command = f"{SEARCH} {tiny} hydra.sweeper.batch_size=3 hydra.sweeper.n_trials="
    assert train(f"{command}3").code == 0
    ended = train(f"{command}6")
    assert ended.code == 0, ended.err
    rows = load_results(here / "multirun/s")
    assert [row["run"] for row in rows] == list(range(6))
    assert {row["status"] for row in rows} == {"ok"}
    told = [trial.value for trial in study(here).trials]
    assert told == [row["val/loss"] for row in rows]
    assert (here / "multirun/s" / rows[0]["name"] / "checkpoints/best.ckpt").is_file()
    before = (here / "multirun/s/results.csv").read_bytes()
    assert train(f"{command}6").code == 0
    assert (here / "multirun/s/results.csv").read_bytes() == before


def test_a_killed_search_reaches_its_total_trains_nothing_twice_and_makes_its_report(train: Any, here: Path) -> None:
    words = f"{SEARCH} {SPACE} hydra.sweeper.n_trials=12 hydra.sweeper.batch_size=4 trainer.max_epochs=4 report=true"
    place = here / "multirun/s"
    process = multiprocessing.get_context("fork").Process(target=run_script, args=("train.py", shlex.split(words)))
    with warnings.catch_warnings(
        action="ignore", category=DeprecationWarning
    ):  # of Python 3.12: this process has threads
        process.start()
    deadline = time.monotonic() + 120
    while len(list(place.glob("*/result.json"))) < 6 and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.005)  # the first generation, and a part of the second
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in place.glob("*/result.json")}
    assert 4 <= len(before) < 12
    ended = train(words)
    assert ended.code == 0, ended.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    trials = [trial for trial in study(here).get_trials() if "does not count" not in trial.user_attrs]
    assert len(trials) == 12
    assert all(trial.state.is_finished() for trial in trials)
    assert len(load_results(place)) == len(list(place.glob("*/result.json"))) == 12
    assert "The report: multirun/s/report/index.html" in ended.out
    page = (place / "report/index.html").read_text()
    assert all(key in page for key in ("optimizer.lr", "model.width", "12 runs"))


def test_recorded_parameters_outside_of_the_space_are_refused(train: Any, here: Path, trained: Any) -> None:
    command = f"{SEARCH} {SPACE} hydra.sweeper.n_trials=4"
    assert train(command).code == 0
    path = here / "multirun/s/search.jsonl"
    header, *generations = path.read_text().splitlines(keepends=True)
    content = json.loads(generations[0].partition(" ")[2])
    for wrong in ({"optimizer.lr": 5.0}, {"model.activation": "gelu"}, {"model.activation": 3}):
        changed = json.dumps(content | {"trials": [content["trials"][0] | wrong]}, separators=(",", ":"))
        path.write_text(f"{header}{hashlib.sha256(changed.encode()).hexdigest()} {changed}\n")
        ended = train(command)
        assert (ended.code, "trial 1 of the record is outside of the space" in ended.line) == (2, True), ended.err
