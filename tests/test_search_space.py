"""`hydra.sweeper.conditions`: keys that are searched beside some values of others; `warm_start`: known outcomes."""

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import run_script, train_as_new_processes
from test_events import hparams_page

from mlpexp import load_results
from mlpexp.search import samplers
from mlpexp.search.study_journal import Journal

TINY = "data.batch_size=256 trainer.max_epochs=2 model.width=3 stack.engine=torch record=table"
PLACE = Path("multirun/s")
OPTIMIZERS = "optimizer.name=sgd,adam 'optimizer.momentum=interval(0.5,0.9)' 'optimizer.lr=tag(log,interval(0.01,0.1))'"
THREE = "model.depth=1,2 model.bias=true,false model.norm=none,batch"
ONLY_SGD = "'hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}}'"


train = pytest.fixture(train_as_new_processes)


def trials() -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(Journal(PLACE / "optuna.log"))
    return optuna.load_study(study_name=None, storage=storage).trials


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_a_key_with_a_condition_is_searched_where_it_holds(sampler: str, train: Any, here: Path) -> None:
    command = f"-m hydra/sweeper=optuna name=s {OPTIMIZERS} {ONLY_SGD} {TINY} hydra.sweeper.sampler={sampler} "
    ended = train(f"{command} hydra.sweeper.n_trials=8 hydra.sweeper.batch_size=4")
    assert (ended.code, "failed" in ended.err) == (0, False), ended.err
    rows = load_results(PLACE)
    assert len(rows) == 8
    assert {row["optimizer.name"] for row in rows} == {"sgd", "adam"}
    assert {trial.params["optimizer.name"] for trial in trials() if "optimizer.momentum" in trial.params} == {"sgd"}
    assert {trial.params["optimizer.name"] for trial in trials() if "optimizer.momentum" not in trial.params} == {
        "adam"
    }
    before = (PLACE / "search.jsonl").read_text()
    shutil.rmtree(PLACE)
    assert train(f"{command} hydra.sweeper.n_trials=4 hydra.sweeper.batch_size=4").code == 0
    assert train(f"{command} hydra.sweeper.n_trials=8 hydra.sweeper.batch_size=4").code == 0
    assert (PLACE / "search.jsonl").read_text().splitlines()[1:] == before.splitlines()[1:]


def test_a_grid_has_each_point_of_a_conditional_space_once(train: Any, here: Path) -> None:
    space = "optimizer.name=adam,sgd optimizer.momentum=0.5,0.9 optimizer.lr=0.01,0.02"
    ended = train(f"-m hydra/sweeper=optuna name=s {space} {ONLY_SGD} {TINY} record=run hydra.sweeper.sampler=grid")
    assert ended.code == 0, ended.err
    assert len(trials()) == len(load_results(PLACE)) == 2 + 4
    searched = {"optimizer.name", "optimizer.lr", "optimizer.momentum"}
    _, shown = hparams_page(PLACE)
    assert len(shown) == 6
    for row in shown:  # nothing that is equal in all runs hides the metrics
        is_adam = row.hparams["optimizer.name"].string_value == "adam"
        assert row.hparams.keys() == searched - ({"optimizer.momentum"} if is_adam else set())


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ("{optimizer.nesterov:{optimizer.name:sgd}}", "optimizer.nesterov is not searched"),
        ("{optimizer.momentum:{optimizer.name:lion}}", "optimizer.name=lion is not searched; searched are sgd, adam"),
        ("{optimizer.momentum:{optimizer.lr:0.1}}", "optimizer.lr has no single values"),
        ("{optimizer.lr:{optimizer.momentum:0.5}}", "optimizer.momentum has no single values"),
        ("{optimizer.name:{optimizer.name:sgd}}", "depend on each other"),
        ("{optimizer.momentum:sgd}", "is no mapping"),
        ("{optimizer.momentum:{optimizer.name:[]}}", "optimizer.name=[] is not searched"),
        ("{optimizer.momentum:{optimizer.name:[sgd,null]}}", "optimizer.name=null is not searched"),
        ("{optimizer.momentum:{optimizer.name:sgd,model.norm:none}}", "model.norm is not searched"),
        ("3", "is no mapping"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(conditions: str, said: str, train: Any, here: Path) -> None:
    ended = train(f"-m hydra/sweeper=optuna name=s {OPTIMIZERS} 'hydra.sweeper.conditions={conditions}'")
    assert (ended.code, said in ended.line) == (2, True), ended.err


@pytest.mark.parametrize(
    ("space", "conditions", "points"),
    [
        ("model.depth=range(1,4) model.norm=none,batch", "{model.norm:{model.depth:[2,3]}}", 1 + 2 * 2),
        ("model.width=[4,4],[8] model.bias=true,false", "{model.bias:{model.width:[4,4]}}", 1 + 2),
        ("model.width=[4,4],[8],[2] model.bias=true,false", "{model.bias:{model.width:[[4,4],[8]]}}", 1 + 2 * 2),
        ("model.bias=true,false model.norm=none,batch", "{model.norm:{model.bias:true}}", 1 + 2),
        ("early_stopping.patience=null,2 model.bias=true,false", "{model.bias:{early_stopping.patience:null}}", 1 + 2),
        ("optimizer.lr=1e-3,0.1 model.bias=true,false", "{model.bias:{optimizer.lr:0.001}}", 1 + 2),
        (THREE, "{model.norm:{model.depth:2,model.bias:true}}", 5),
        (THREE, "{model.norm:{model.bias:true},model.bias:{model.depth:2}}", 4),
        ("optimizer=adam,sgd model.bias=true,false", "{model.bias:{optimizer:sgd}}", 3),
        ("+trainer.gradient_clip_val=0.5,1 model.bias=true,false", "{model.bias:{trainer.gradient_clip_val:0.5}}", 3),
    ],
)  # fmt: skip
def test_conditions_on_all_kinds_of_values(space: str, conditions: str, points: int, train: Any, here: Path) -> None:
    words = f"-m hydra/sweeper=optuna name=s {space} hydra.sweeper.sampler=grid dry_run=true".split()
    ended = run_script("train.py", [*words, f"hydra.sweeper.conditions={conditions}"])
    assert ended.code == 0, ended.err
    assert f"search of {points} trials" in ended.out


GRID = "optimizer.lr=0.001,0.01,0.1,1 model.activation=tanh,relu seed=1,2"
SEARCH = "-m hydra/sweeper=optuna name=s 'optimizer.lr=tag(log,interval(0.005,2))' model.activation=relu,tanh,gelu"


def test_a_search_learns_from_an_earlier_sweep(train: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(f"-m name=grid {GRID} {TINY}").code == 0
    seen: list[list[optuna.trial.FrozenTrial]] = []
    ordinary = samplers.sampler

    def watched(*arguments: Any, **options: Any) -> Any:
        made = ordinary(*arguments, **options)
        sample = made.sample_relative

        def spy(study: optuna.Study, *others: Any) -> Any:
            seen.append(study.get_trials(deepcopy=False))
            return sample(study, *others)

        made.sample_relative = spy
        return made

    monkeypatch.setattr(samplers, "sampler", watched)
    command = (
        f"{SEARCH} {TINY} hydra.sweeper.warm_start=multirun/grid hydra.sweeper.batch_size=2 hydra.sweeper.n_trials="
    )
    ended = train(f"{command}4")
    assert ended.code == 0, ended.err
    assert "6 configurations are known from multirun/grid (12 of 16 runs; 4 outside of the space)" in ended.out
    known = {(one.params["optimizer.lr"], one.params["model.activation"]): one.value for one in seen[0][:6]}
    rows = load_results(here / "multirun/grid")
    for (lr, activation), value in known.items():
        own = [row["val/loss"] for row in rows if (row["optimizer.lr"], row["model.activation"]) == (lr, activation)]
        assert value == pytest.approx(sum(own) / 2) and len(own) == 2
    assert "best of 4 trials" in ended.out
    assert len(trials()) == len(load_results(PLACE)) == 4
    shutil.move(here / "multirun/grid", here / "elsewhere")  # it is in the record
    assert train(f"{command}6").code == 0
    record = (PLACE / "search.jsonl").read_text().splitlines()
    assert len(json.loads(record[0].partition(" ")[2])["known"]) == 6
    shutil.rmtree(PLACE)
    shutil.move(here / "elsewhere", here / "multirun/grid")
    assert train(f"{command}6").code == 0
    assert (PLACE / "search.jsonl").read_text().splitlines()[1:] == record[1:]
    refused = train(f"{command}6".replace("hydra.sweeper.warm_start=multirun/grid", ""))
    assert (refused.code, "hydra.sweeper.warm_start is multirun/grid there" in refused.line) == (2, True)


LEARNING = "-m hydra/sweeper=optuna name=s hydra.sweeper.n_trials=2 'optimizer.lr=tag(log,interval(0.005,2))'"


def known() -> dict[tuple[Any, ...], float]:
    """The known values of a search by the values of its keys."""
    first = json.loads((PLACE / "search.jsonl").read_text().splitlines()[0].partition(" ")[2])
    return {tuple(one["params"].values()): one["values"][0] for one in first.get("known", [])}


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize(
    ("grid", "search", "counted", "said"),
    [
        ("model.activation=relu,tanh", "", {"model.activation": "tanh"}, "2 with model.activation=relu, not tanh"),
        ("model.activation=relu,tanh", "model.activation=relu", {"model.activation": "relu"}, "activation=tanh, not"),
        ("trainer.max_epochs=1,2", "trainer.max_epochs=2", {"trainer.max_epochs": 2}, "max_epochs=1, not 2"),
        ("model.width=[8,4],[4,4]", "model.width=4 model.depth=2", {"model.width": "[4,4]"}, "model.width=[8,4], not"),
        ("optimizer=sgd,adam", "optimizer=adam", {"optimizer": "adam"}, "optimizer.name=sgd, not adam"),
        ("+trainer.precision=32,64", "+trainer.precision=64", {"trainer.precision": 64}, "trainer.flags.precision=32"),
    ],
)
def test_only_runs_that_the_search_could_train_are_known(
    grid: str, search: str, counted: dict[str, Any], said: str, train: Any, here: Path
) -> None:
    assert train(f"-m name=grid optimizer.lr=0.01,0.1 {TINY} {grid}").code == 0
    ended = train(f"{LEARNING} {TINY} {search} hydra.sweeper.warm_start=multirun/grid")
    assert ended.code == 0, ended.err
    assert said in ended.out and "2 of 4 runs; 2 with" in ended.out
    rows = [row for row in load_results(here / "multirun/grid") if all(row[key] == counted[key] for key in counted)]
    assert known() == {(row["optimizer.lr"],): row["val/loss"] for row in rows} and len(rows) == 2


@pytest.mark.parametrize(("typed", "first"), [("", "search of 3 trials"), ("hydra/sweeper=grid", "2 runs")])
def test_an_experiment_chooses_the_sweeper_and_the_command_line_another(train, here, typed, first):
    (here / "conf/experiment").mkdir(parents=True)
    experiment = {"defaults": [{"override /hydra/sweeper": "optuna"}], "trainer": {"max_epochs": 1}}
    (here / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{json.dumps(experiment)}\n")
    trials = "" if typed else "hydra.sweeper.n_trials=3"
    ended = train(f"-m --config-dir conf experiment=mine name=s dry_run=true model.width=4,8 {trials} {typed}")
    assert (ended.code, ended.out.startswith(first)) == (0, True), ended.err


@pytest.mark.parametrize(
    ("typed", "searched", "points"),
    [
        ("", ["model.depth", "model.norm", "model.bias"], 1 + 2 * 2),
        ("model.depth=2", ["model.norm", "model.bias"], 4),
        ("model.depth=1", ["model.bias"], 2),
        ("model.norm=batch", ["model.depth", "model.bias"], 4),
        ("hydra.sweeper.conditions=null", ["model.depth", "model.norm", "model.bias"], 8),
        ("~hydra.sweeper.conditions", ["model.depth", "model.norm", "model.bias"], 8),
    ],
)
def test_conditions_of_an_experiment_whose_keys_the_command_line_gives(
    typed: str, searched: list[str], points: int, train: Any, here: Path
) -> None:
    """A key that never has an effect is not searched; one that always has is searched without a condition."""
    (here / "conf/experiment").mkdir(parents=True)
    params = {"model.depth": "1,2", "model.norm": "none,batch", "model.bias": "true,false"}
    conditions = {"model.norm": {"model.depth": 2}, "model.bias": {"model.depth": [2, 1]}}
    if points == 5:
        conditions["model.bias"] = {"model.depth": 2}
    experiment = {"hydra": {"sweeper": {"sampler": "grid", "conditions": conditions, "params": params}}}
    (here / "conf/experiment/mine.yaml").write_text(f"# @package _global_\n{json.dumps(experiment)}\n")
    ended = train(f"-m --config-dir conf hydra/sweeper=optuna experiment=mine name=s dry_run=true {typed}")
    assert ended.code == 0, ended.err
    assert f"search of {points} trials" in ended.out
    assert [line.strip().partition("=")[0] for line in ended.out.splitlines() if line.startswith("  ")] == searched


def test_values_that_a_group_brings_are_known(train: Any, here: Path) -> None:
    """The learning rate of a choice of the optimizer's group is no key of the other sweep."""
    assert train(f"-m name=grid optimizer=sgd,adam {TINY}").code == 0
    command = f"{LEARNING.replace('0.005', '0.0005')} {TINY} optimizer=adam,sgd,rmsprop hydra.sweeper.warm_start="
    ended = train(f"{command}multirun/grid/")
    assert ended.code == 0, ended.err
    rows = {row["optimizer"]: row["val/loss"] for row in load_results(here / "multirun/grid")}
    assert known() == {(0.1, "sgd"): rows["sgd"], (0.001, "adam"): rows["adam"]}
    again = train(f"{command}{here / 'multirun/grid'}")  # the same directory
    assert again.code == 0, again.err


@pytest.mark.parametrize("grown", ["model.activation=relu", "optimizer.lr=0.3"])
def test_a_search_learns_from_a_sweep_that_has_grown_and_from_a_search(grown: str, train: Any, here: Path) -> None:
    grid = f"-m name=grid {TINY} optimizer.lr=0.01,0.1 model.activation=tanh"
    assert train(grid).code == 0
    assert train(f"{grid} {grown}").code == 0
    command = f"{LEARNING} {TINY} 'model.width=int(interval(3,5))' model.activation=tanh,relu"
    ended = train(f"{command} hydra.sweeper.warm_start=multirun/grid")
    assert ended.code == 0, ended.err
    rows = load_results(here / "multirun/grid")
    assert sorted(known().values()) == sorted(row["val/loss"] for row in rows)
    assert {params[1] for params in known()} == {3}  # the width, which is no column there
    ended = train(f"{command.replace('name=s', 'name=again')} hydra.sweeper.warm_start=multirun/s")
    assert ended.code == 0, ended.err
    assert "2 configurations are known from multirun/s (2 of 2 runs)" in ended.out


@pytest.fixture(scope="module")
def _grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ended = run_script("train.py", f"-m name=grid optimizer.lr=0.01,0.1 {TINY}".split())
    assert ended.code == 0, ended.err
    return place / "multirun"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (f"{SEARCH} hydra.sweeper.warm_start=multirun/none", "holds no results.csv"),
        (f"{SEARCH} {TINY} hydra.sweeper.warm_start=multirun/grid data=wine", "2 with data.name=digits, not wine"),
        (f"{SEARCH} hydra.sweeper.warm_start=multirun/grid hydra.sweeper.sampler=qmc", "does not learn"),
        (f"{SEARCH} model.depth=4,5 hydra.sweeper.warm_start=multirun/grid", "none of its 2 runs"),
        (f"{SEARCH} hydra.sweeper.warm_start=multirun/grid hydra.sweeper.pruner=wilcoxon hydra.sweeper.seeds=5",
         "needs the values of each seed"),
    ],
)  # fmt: skip
def test_a_start_that_teaches_nothing_is_refused(
    arguments: str, said: str, train: Any, here: Path, _grid: Path
) -> None:
    shutil.copytree(_grid, here / "multirun")
    ended = train(arguments)
    assert (ended.code, said in ended.line) == (2, True), ended.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\x00", "is not a table of comma-separated values in UTF-8"),
        (b"val/loss,model.width\n1,2,3\n", "more cells than columns"),
        (b"val/loss,optimizer.lr\n1,0.1\n", "is not a sweep of mlpexp"),
        (b"", "none of its 0 runs"),
    ],
)
def test_a_start_from_a_foreign_table_is_refused(content, said, train, here) -> None:
    (here / "foreign").mkdir()
    (here / "foreign/results.csv").write_bytes(content)
    ended = train(f"{SEARCH} hydra.sweeper.warm_start=foreign")
    assert (ended.code, said in ended.line) == (2, True), ended.err
