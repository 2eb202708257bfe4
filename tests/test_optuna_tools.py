"""What Optuna's own programs read and write of a search's study; the proposals of a search are those of its sampler."""

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from conftest import train_as_new_processes
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlpexp import load_results
from mlpexp.config.overrides import parse
from mlpexp.search import search_space
from mlpexp.sweep.hydra_sweep import Sweep
from mlpexp.sweep.jobs import Job, Outcome

TINY = "data=iris trainer.max_epochs=3 record=table stack.engine=torch"
SPACE = "'optimizer.lr=tag(log,interval(0.001,1))' 'model.width=tag(log,int,interval(2,16))'"
SEARCH = f"-m hydra/sweeper=optuna name=s {TINY} {SPACE}"
PLACE = Path("multirun/s")

train = pytest.fixture(train_as_new_processes)


def study() -> optuna.Study:
    """As `optuna.load_study` of a user, by Optuna's own reader of journals."""
    if (PLACE / "optuna.db").exists():
        return optuna.load_study(study_name=None, storage=RDBStorage(f"sqlite:///{PLACE / 'optuna.db'}"))
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(PLACE / "optuna.log"))))


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("storage", ["", "hydra.sweeper.storage=sqlite"])
def test_a_study_has_names_times_and_the_values_that_were_trained(storage: str, train: Any, here: Path) -> None:
    before = datetime.now()
    objectives = "'hydra.sweeper.objectives=[val/acc,num_parameters]'"
    ended = train(f"{SEARCH} hydra.sweeper.n_trials=4 hydra.sweeper.batch_size=2 {objectives} {storage} seed=3,4")
    assert ended.code == 0, ended.err
    after = datetime.now()
    assert study().metric_names == ["val/acc", "num_parameters"]
    assert [direction.name for direction in study().directions] == ["MAXIMIZE", "MINIMIZE"]
    rows = {row["name"]: row for row in load_results(PLACE)}
    for number, trial in enumerate(study().trials):
        assert trial.number == trial.user_attrs["trial"] == number
        assert before <= trial.datetime_start < trial.datetime_complete <= after
        runs = [rows[name] for name in trial.user_attrs["runs"]]
        assert [row["seed"] for row in runs] == [3, 4]
        assert {(row["optimizer.lr"], row["model.width"]) for row in runs} == {tuple(trial.params.values())}
        assert trial.user_attrs["values of runs"] == [[row["val/acc"], row["num_parameters"]] for row in runs]
        assert trial.values == pytest.approx([sum(row[name] for row in runs) / 2 for name in study().metric_names])
    starts = [trial.datetime_complete for trial in study().trials]
    assert starts[1] <= study().trials[2].datetime_start


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("storage", ["", "hydra.sweeper.storage=sqlite"])
def test_pruned_trials_keep_their_numbers_and_have_their_last_values(storage: str, train: Any, here: Path) -> None:
    words = "hydra.sweeper.pruner=median hydra.sweeper.batch_size=4 hydra.sweeper.pruner_options={n_startup_trials:2}"
    ended = train(f"{SEARCH.replace('epochs=3', 'epochs=10')} {words} {storage} hydra.sweeper.n_trials=14")
    assert ended.code == 0, ended.err
    trials = study().trials
    assert [trial.user_attrs["trial"] for trial in trials] == [trial.number for trial in trials] == list(range(14))
    states = {trial.state for trial in trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    rows = {row["name"]: row for row in load_results(PLACE)}
    for trial in trials:
        (name,) = trial.user_attrs["runs"]
        assert rows[name]["epochs"] == (10 if trial.state == TrialState.COMPLETE else trial.last_step)
        if trial.state == TrialState.PRUNED:
            assert trial.value == trial.intermediate_values[trial.last_step]
        assert trial.duration and trial.duration.total_seconds() > 0


def test_notes_that_are_written_meanwhile_are_kept(train: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As optuna-dashboard writes them, through Optuna's storage."""
    ordinary = Sweep.train_jobs
    written: list[str] = []

    def notes() -> dict[str, Any]:
        storage = JournalStorage(JournalFileBackend(str(PLACE / "optuna.log")))
        return storage.get_study_system_attrs(storage.get_study_id_from_name("mlpexp"))

    def annotated(*arguments: Any) -> Any:
        storage = JournalStorage(JournalFileBackend(str(PLACE / "optuna.log")))
        written.append(f"note {len(written)}")
        storage.set_study_system_attr(storage.get_study_id_from_name("mlpexp"), "dashboard:note_str:0", written[-1])
        return ordinary(*arguments)

    monkeypatch.setattr(Sweep, "train_jobs", annotated)
    ended = train(f"{SEARCH} hydra.sweeper.n_trials=6 hydra.sweeper.batch_size=2")
    assert (ended.code, ended.err) == (0, "")
    assert (notes()["dashboard:note_str:0"], len(study().trials)) == ("note 2", 6)
    assert train(f"{SEARCH} hydra.sweeper.n_trials=8 hydra.sweeper.batch_size=2").code == 0
    assert (notes()["dashboard:note_str:0"], len(study().trials)) == (written[-1], 8)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # of groups
@pytest.mark.parametrize("conditions", [False, True])
def test_proposals_are_those_of_optuna_s_sampler_that_is_told_the_same_values(
    conditions: bool, train: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(params: Any) -> float:
        return abs(math.log(params["optimizer.lr"]) + 3) + params.get("optimizer.momentum", 0.3)

    def outcomes(_: Any, jobs: Sequence[Job], *others: Any) -> list[Outcome]:
        return [outcome({override.key: override.value for override in map(parse, job.overrides)}) for job in jobs]

    def outcome(params: dict[str, Any]) -> Outcome:
        return Outcome(result=SimpleNamespace(
            status="ok" if params["optimizer.lr"] < 0.1 else "diverged", objective=value(params), monitor="val/loss",
            metrics={}, message=None, num_parameters=1, seconds={}, epochs=1,
        ))  # type: ignore[arg-type]  # fmt: skip

    monkeypatch.setattr(Sweep, "train_jobs", outcomes)
    monkeypatch.setattr(Sweep, "conclude", lambda *_: None)
    monkeypatch.setattr(search_space, "DIGITS", 17)  # so that training has the values of the sampler
    space = "optimizer.name=sgd,rmsprop 'optimizer.momentum=interval(0,0.9)' 'optimizer.lr=tag(log,interval(0.001,1))'"
    given = "'hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}}'" if conditions else ""
    ended = train(
        f"-m hydra/sweeper=optuna name=s {space} {given} hydra.sweeper.n_trials=30 hydra.sweeper.batch_size=1"
    )
    assert ended.code == 0, ended.err
    plain = optuna.create_study()
    for number in range(30):
        digest = hashlib.sha256(f"0/{number}".encode()).digest()
        plain.sampler = TPESampler(
            seed=int.from_bytes(digest[:4], "big"),
            constant_liar=True, multivariate=conditions or None, group=conditions,
        )  # fmt: skip
        trial = plain.ask()
        trial.suggest_categorical("optimizer.name", ["sgd", "rmsprop"])
        if not conditions:
            trial.suggest_float("optimizer.momentum", 0, 0.9)
        trial.suggest_float("optimizer.lr", 0.001, 1, log=True)
        if conditions and trial.params["optimizer.name"] == "sgd":
            trial.suggest_float("optimizer.momentum", 0, 0.9)
        if trial.params["optimizer.lr"] < 0.1:
            plain.tell(trial, value(trial.params))
        else:  # TPE counts it as worse than those with a value
            plain.tell(trial, state=TrialState.PRUNED)
    assert [trial.params for trial in study().trials] == [trial.params for trial in plain.trials]
    assert {trial.state for trial in study().trials} == {TrialState.COMPLETE, TrialState.FAIL}
