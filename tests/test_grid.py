"""The runs of a grid: combinations, keys that vary together, conditions, random parts; typed, in YAML, in Python."""

import csv
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tree
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ParameterGrid

import mlpexp
from mlpexp.cli import hydra_app
from mlpexp.config import overrides, schema, sweep_syntax
from mlpexp.config.compose import Composer
from mlpexp.config.grid_settings import GridSettings
from mlpexp.config.skip_condition import SkipCondition
from mlpexp.runtime.errors import UserError
from mlpexp.sweep.grid import ChosenRuns, expand

CONF = Path(__file__).parents[1] / "conf"
KEYS = sorted(schema.field_types())


@pytest.fixture(scope="module")
def composer() -> Composer:
    hydra_app.register()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    return Composer(loader, master)


def chosen(composer: Composer, *arguments: str, max_runs: int = 1000, **given: Any) -> ChosenRuns:
    """What a command line with these arguments trains."""
    settings = dict(given)
    ordinary = []
    for text in sweep_syntax.for_hydra(arguments, is_sweep=True):
        override = overrides.parse(text)
        if text.startswith("hydra.sweeper."):
            settings[override.key.removeprefix("hydra.sweeper.")] = override.value
        else:
            ordinary.append(text)
    return expand(GridSettings.read(settings), ordinary, composer, max_runs)


def texts(found: ChosenRuns) -> list[str]:
    assert [run.number for run in found.runs] == list(range(len(found.runs)))
    return [" ".join(run.texts) for run in found.runs]


def test_keys_in_a_zip_vary_together_and_with_every_combination_of_the_others(composer):
    found = chosen(composer, "zip(model.width=[32,64],optimizer.lr=[0.1,0.05])", "model.depth=1,2", "seed=range(2)")
    pairs = [("32", "0.1"), ("64", "0.05")]
    assert texts(found) == [
        f"model.width={width} optimizer.lr={rate} model.depth={depth} seed={seed}"
        for (width, rate), depth, seed in itertools.product(pairs, (1, 2), (0, 1))
    ]
    assert found.sentence == ""


@pytest.mark.parametrize(
    "text",
    [
        "zip(model.width=[8,16,32],seed=[0,1,2])",
        "zip(model.width=8,16,32,seed=0,1,2)",
        "zip( model.width = [8, 16, 32] , seed = range(3) )",
        "zip(model.width=choice(8,16,32),seed=range(0,3))",
        "zip(model.width=logrange(8,32,3),seed=[0,1,2])",
        "zip (model.width=[8,16,32],seed=[0,1,2])",
        "zip=(model.width=[8,16,32],seed=[0,1,2])",
        "zip={model.width:[8,16,32],seed:[0,1,2]}",
        "zip=[{model.width:8,seed:0},{model.width:16,seed:1},{seed:2,model.width:32}]",
        "hydra.sweeper.zip={model:{width:[8,16,32]},seed:[0,1,2]}",
        "hydra.sweeper.zip='zip(model.width=[8,16,32],seed=[0,1,2])'",
    ],
)
def test_a_zip_reads_lists_and_every_kind_of_values(composer, text: str):
    assert texts(chosen(composer, text)) == [f"model.width={8 << i} seed={i}" for i in range(3)]


def test_lists_texts_and_choices_of_files_are_values_of_a_zip(composer):
    found = chosen(composer, "zip(model.width=[[32,16],[8]],optimizer=[adam,sgd],name=['a,b','c=d'],+trainer.x=[1,2])")
    assert texts(found) == [
        "model.width=[32,16] optimizer=adam name='a,b' +trainer.x=1",
        "model.width=[8] optimizer=sgd name='c=d' +trainer.x=2",
    ]


YAML_FORMS: list[tuple[dict[str, Any], list[str]]] = [
    ({"params": {"model": {"width": [4, 8], "depth": "1,2"}}}, ["model.width=4,8", "model.depth=1,2"]),
    ({"zip": {"model": {"width": [4, 8], "depth": "1,2"}}}, ["zip(model.width=[4,8],model.depth=[1,2])"]),
    (
        {"zip": [{"model.width": 4, "optimizer": "sgd"}, {"model.width": 8, "optimizer": "adam"}]},
        ["zip(model.width=[4,8],optimizer=[sgd,adam])"],
    ),
    ({"zip": [{"model.width": 4}, {"seed": 8}]}, ["model.width=4", "seed=8"]),
    (
        {"params": [{"model": {"width": [4, 8]}, "seed": "range(2)"}, {"model.width": [[8, 4], [4]]}, {}]},
        ["grid(model.width=[4,8],seed=range(2))", "grid(model.width=[[8,4],[4]])", "grid()"],
    ),
    (
        {"params": [{"model.width": 4, "optimizer": "sgd"}, {"model.width": 8, "optimizer": "adam"}]},
        ["grid(model.width=4,optimizer=sgd)", "grid(model.width=8,optimizer=adam)"],
    ),
    (
        {"params": [{"model.width": [4, 8]}, {"optimizer.lr": "logrange(0.01,1,3)"}]},
        ["grid=[{model.width:[4,8]},{optimizer.lr:[0.01,0.1,1]}]"],
    ),
    (
        {"params": [{"model.width": [4, 8]}, {"model.depth": [2]}]},
        ["hydra.sweeper.params=[{model.width:[4,8]},{model.depth:2}]"],
    ),
    ({"params": [{"seed": [1, 2]}]}, ["seed=1,2"]),
    (
        {"params": {"seed": [1, 2]}, "skip": "seed > 1 and  # the second\nmodel.depth == 1\n"},
        ["seed=1,2", "skip=seed>1 and model.depth==1"],
    ),
    ({"params": {"seed": [1, 2]}, "skip": False}, ["seed=1,2"]),
    ({"params": {"seed": [1, 2]}, "skip": ["seed == 1", "seed == 3"]}, ["seed=1,2", 'skip=["seed==1","seed==3"]']),
]


@pytest.mark.parametrize(("settings", "typed"), YAML_FORMS)
def test_each_form_of_a_sweep_in_yaml_is_one_that_is_typed(composer, settings: dict[str, Any], typed: list[str]):
    assert texts(chosen(composer, **settings)) == texts(chosen(composer, *typed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": {"model.width": "4", "8": None}}, '8 in {model.width: "4",8: null} is no key; in a file, several'),
        ({"zip": {"model.width": "4", "8": None}}, "{model.width: [32, 64]}"),
        ({"params": {"hydra/launcher": ["stacked", "basic"]}}, "hydra/launcher is a key of Hydra's own"),
        ({"skip": {"model.width": 4}}, "skip={'model.width': 4} is no condition; write a text"),
        ({"skip": 3}, "skip=3 is no condition"),
        ({"limit": "2"}, 'hydra.sweeper.limit="2" is out of range'),
        ({"params": 3}, "hydra.sweeper.params=3 is no mapping; type its keys as overrides"),
        ({"params": "seed=1,2"}, "hydra.sweeper.params=seed=1,2 is no mapping; type its keys as overrides"),
        ({"params": []}, "[] in hydra.sweeper.params is no mapping of keys to values; write several grids as [{"),
        ({"params": [{"seed": 1}, "seed=2"]}, '"seed=2" in hydra.sweeper.params is no mapping of keys to values'),
        ({"params": [{"seed": 1}, None]}, "null in hydra.sweeper.params is no mapping"),
        ({"params": [{"seed": 1}, [{"seed": 2}]]}, "[{seed: 2}] in hydra.sweeper.params is no mapping"),
        ({"params": [{"seed": 1}, {"seed": []}]}, "seed: [] names no value at all"),
        ({"params": [{"seed": 1}, {"hydra/launcher": ["basic"]}]}, "hydra/launcher is a key of Hydra's own"),
        ({"params": [{"seed": 1}, {"model.width": [4]}], "zip": {"seed": [1, 2]}}, "seed is given twice, in zip and"),
        ({"params": [{"seed": 1}, {"zip": {"seed": [1, 2]}}]}, "zip stands beside hydra.sweeper.params, not in it"),
        ({"params": {"skip": "seed > 1"}}, "skip stands beside hydra.sweeper.params, not in it"),
    ],
)
def test_a_wrong_sweep_in_yaml_is_one_line(composer, settings: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        chosen(composer, **settings)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


PAIRS = {"model.width": [4, 8], "optimizer.lr": [0.1, 0.2]}


@pytest.mark.parametrize(
    "zipped",
    [
        PAIRS,
        "zip(model.width=[4,8],optimizer.lr=[0.1,0.2])",
        [{"model.width": 4, "optimizer.lr": 0.1}, {"model.width": np.int64(8), "optimizer": {"lr": np.float64(0.2)}}],
        {"model": {"width": np.array([4, 8])}, "optimizer.lr": (0.1, 0.2)},
    ],
)
def test_python_has_the_same_forms_of_a_zip_and_needs_no_grid_beside_it(here, zipped: Any):
    plan = mlpexp.sweep(zip=zipped, data="iris", dry_run=True)
    found = [(row["model.width"], row["optimizer.lr"]) for row in plan.table]
    assert [(int(width), float(rate)) for width, rate in found] == [(4, 0.1), (8, 0.2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zip": zip([1], [2], strict=True)}, "give a mapping of keys to lists"),
        ({"zip": [(1, 2)]}, "not a list with tuple in it"),
        ({"zip": {3: [1, 2]}}, "cannot be read"),
        ({"skip": 3}, "skip=3 is no condition"),
        ({"limit": [1]}, "limit=[1] is out of range"),
    ],
)
def test_a_wrong_choice_in_python_is_one_line(here, settings: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        mlpexp.sweep({"seed": [1, 2]}, dry_run=True, **settings)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_no_run_of_a_sweep_is_written_outside_of_its_directory(train, here):
    ended = train(["-m", "seed=1,2", "hydra.sweep.subdir=../x-${seed}"])
    assert (ended.code, tree(here)) == (2, {})
    assert "correct hydra.sweep.subdir" in ended.line
    (here / "own/experiment").mkdir(parents=True)
    for name in ("a", "b"):
        (here / f"own/experiment/{name}.yaml").write_text(f"# @package _global_\nname: {name}\nmodel: {{width: 4}}\n")
    common = "data=iris trainer.max_epochs=1 tracking.figures=false"
    ended = train(f"--config-dir {here}/own -m experiment=a,b seed=1 {common}")
    assert ended.code == 0, ended.err
    (sweep,) = {path.parent for path in here.glob("multirun/**/results.csv")}
    names = sorted(row["name"] for row in rows(sweep))
    assert [name.partition("experiment=")[2] for name in names] == ["a,seed=1", "b,seed=1"]
    assert [path.parent for path in sorted(here.glob("multirun/**/result.json"))] == [sweep / name for name in names]


GRIDS = ["grid(model.depth=[0],optimizer.lr=[0.1,1])", "grid(model.depth=[1,2],model.width=[4,8])"]


def test_several_grids_are_joined_and_each_is_combined_with_all_other_keys(composer):
    found = chosen(composer, *GRIDS, "zip(optimizer.weight_decay=[0,1],data.seed=[3,4])", "seed=1,2")
    zipped = [("0", "3"), ("1", "4")]
    points = [f"model.depth=0 optimizer.lr={rate}" for rate in ("0.1", "1")]
    others = [f"model.depth={depth} model.width={width}" for depth in (1, 2) for width in (4, 8)]
    assert texts(found) == [
        f"optimizer.weight_decay={decay} data.seed={data_seed} {point} seed={seed}"
        for grid in (points, others)
        for decay, data_seed in zipped
        for point in grid
        for seed in (1, 2)
    ]
    assert found.sentence == "24 combinations in 2 grids"


VALUES = st.lists(st.integers(0, 4), min_size=1, unique=True)


@given(st.lists(st.dictionaries(st.sampled_from(["seed", "data.seed"]), VALUES), min_size=1))
@settings(max_examples=20, deadline=None)
def test_several_grids_are_the_combinations_of_scikit_learn_s_parameter_grid_once(composer, grids: list[Any]):
    unnamed = {key: default for key, default, _ in schema.keys() if key in ("seed", "data.seed")}
    expected = {frozenset((unnamed | point).items()) for point in ParameterGrid(grids)}
    points = [unnamed | {o.key: o.value for o in run.overrides} for run in chosen(composer, params=grids).runs]
    assert len(points) == len(expected)
    assert {frozenset(point.items()) for point in points} == expected


def test_what_is_typed_replaces_a_key_in_each_grid_and_equal_combinations_are_trained_once(composer):
    params = [{"model.width": [4, 8], "seed": [0, 1]}, {"model.width": 8, "optimizer.lr": [0.1, 0.2]}]
    found = chosen(composer, "seed=5", params=params)
    assert texts(found) == [
        "model.width=4 seed=5",
        "model.width=8 seed=5",
        "model.width=8 optimizer.lr=0.2 seed=5",  # 0.1 is the configuration's rate
    ]
    assert found.sentence == "4 combinations in 2 grids, of which 1 is equal to others"


def test_skip_and_limit_choose_among_the_different_combinations_of_all_grids(composer):
    grids = ["grid(seed=range(30))", "grid(model.depth=[1,2],seed=range(30))"]  # a depth of 1 is the configuration's
    whole = texts(chosen(composer, *grids))
    assert len(whole) == 60
    part, larger = (texts(chosen(composer, *grids, f"limit={limit}")) for limit in (20, 40))
    assert (len(part), len(larger)) == (20, 40)
    assert set(part) < set(larger)
    assert texts(chosen(composer, *grids, "limit=500")) == whole
    found = chosen(composer, *grids, "skip=model.depth==1 and seed>1")
    assert len(found.runs) == 32
    assert found.sentence == "90 combinations in 2 grids, of which skip leaves out 56 and 2 are equal to others"


GRIDS_IN_YAML = """\
# @package _global_
name: mine
trainer: {max_epochs: 1}
hydra:
  sweeper:
    params:
      - {optimizer: sgd, optimizer.momentum: [0, 0.9]}
      - {optimizer: adam, optimizer.lr: [0.01, 0.1]}
      - {model.width: [4, 8], optimizer.momentum: 0.9}
"""


def test_several_grids_train_report_resume_and_grow_like_any_sweep(train, here):
    (here / "own/experiment").mkdir(parents=True)
    path = here / "own/experiment/mine.yaml"
    path.write_text("".join(GRIDS_IN_YAML.splitlines(keepends=True)[:-1]))
    start = ["--config-dir", str(here / "own"), "-m", "experiment=mine", "data=iris", "tracking.figures=false"]
    ended = train([*start, "model.width=8"])
    assert ended.code == 0, ended.err
    before = {path: path.read_bytes() for path in here.glob("multirun/mine/*/result.json")}
    assert len(before) == 4
    first, *_, last = rows(here / "multirun/mine")
    assert (first["optimizer"], first["optimizer.momentum"], first["optimizer.lr"]) == ("sgd", "0", "0.1")
    assert (last["optimizer"], last["optimizer.momentum"], last["optimizer.lr"]) == ("adam", "", "0.1")

    path.write_text(GRIDS_IN_YAML)
    ended = train([*start, "model.width=8"])
    assert "4 runs: 4 done before" in ended.out  # whose last grid has no run of its own
    results = mlpexp.sweep(
        grid=[
            {"model.width": (4, 8), "optimizer.momentum": np.array([0.9])},
            {"optimizer": "adam", "optimizer.lr": [0.01, 0.1], "model.width": 8},
            {"optimizer": ["sgd"], "optimizer.momentum": [0, 0.9], "model.width": 8},
        ],
        data="iris",
        trainer={"max_epochs": 1},
        tracking={"figures": False},
        name="mine",
    )
    expected = [(4, "sgd", 0.9, 0.1), (8, "sgd", 0.9, 0.1), (8, "adam", None, 0.01), (8, "adam", None, 0.1)]
    keys = ("model.width", "optimizer", "optimizer.momentum", "optimizer.lr")
    assert [tuple(row[key] for key in keys) for row in results.table] == [*expected, (8, "sgd", 0.0, 0.1)]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            [{"seed": [1, 2]}, "model.width=4"],
            "several grids are a list of mappings, and 'model.width=4' in it is none",
        ),
        ([{"seed": [1, 2]}, {"seed": []}], "seed: the grid names no value at all"),
        ([{"seed": [1, 2]}, {"model.widht": [1, 2]}], "did you mean model.width?"),
    ],
)
def test_wrong_grids_in_python_are_one_line(here, grid: Any, message: str):
    with pytest.raises(UserError) as error:
        mlpexp.sweep(grid=grid, dry_run=True)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_python_takes_several_grids_as_texts_that_begin_alike(here):
    typed = ["grid(seed=[1,2],model.width=[4])", "grid(seed=[1,2],model.depth=[2])"]
    assert len(mlpexp.sweep(typed, data="iris", dry_run=True).table) == 4
    assert mlpexp.sweep([{"seed": [1, 2], "model.width": 4}, {}], data="iris", dry_run=True).table


def test_typed_grids_replace_those_of_an_experiment(train, here):
    (here / "own/experiment").mkdir(parents=True)
    (here / "own/experiment/list.yaml").write_text(GRIDS_IN_YAML)
    (here / "own/experiment/mapping.yaml").write_text(YAML.replace("limit: 5", "limit: null"))
    for name in ("list", "mapping"):
        start = ["--config-dir", str(here / "own"), "-m", f"experiment={name}", "dry_run=true", "zip=null", "skip=null"]
        assert "4 combinations in 2 grids\n" in train([*start, "grid(seed=0)", "grid(model.width=[5,6,7])"]).out
        assert "3 runs" in train([*start, "hydra.sweeper.params=[{seed:0},{model.width:[5,6]}]"]).out
        assert "3 runs" in train([*start, "grid=null", "seed=1,2,3"]).out
        assert "6 runs" in train([*start, "grid=null", "zip(seed=[1,2],data.seed=[1,2])", "model.depth=1,2,3"]).out


@pytest.mark.parametrize(
    "typed",
    ["'grid(model.width=[4,8])' 'grid(seed=[1,2])'", "'hydra.sweeper.params=[{model.width:[4,8]},{seed:[1,2]}]'"],
)
def test_a_search_refuses_several_grids_in_one_line(train, here, typed: str):
    pytest.importorskip("optuna")
    ended = train(f"-m hydra/sweeper=optuna {typed}")
    assert ended.code == 2
    assert "several grids belong to hydra/sweeper=grid, and a search has one space" in ended.line


def test_a_search_refuses_the_grids_of_an_experiment_in_one_line(train, here):
    pytest.importorskip("optuna")
    (here / "own/experiment").mkdir(parents=True)
    (here / "own/experiment/mine.yaml").write_text(GRIDS_IN_YAML)
    ended = train(f"--config-dir {here}/own -m experiment=mine hydra/sweeper=optuna")
    assert "several grids belong to hydra/sweeper=grid, and a search has one space" in ended.line


def test_hydra_s_own_sweeper_refuses_several_grids_in_one_line(train, here):
    for typed in ("'grid(seed=[1,2])'", "'hydra.sweeper.params=[{seed:1},{seed:2}]'"):
        ended = train(f"-m hydra/sweeper=basic {typed}")
        assert (
            ended.line == "train.py: several grids belong to hydra/sweeper=grid, the default; leave out hydra/sweeper"
        )


def test_several_zips_are_combined_like_keys(composer):
    found = chosen(composer, "zip(model.width=[8,16],optimizer.lr=[1,2])", "zip(seed=[1,2],data.seed=[3,4])")
    assert len(found.runs) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zip(seed=[1,2],model.width=[8])"], "zip needs as many values of each key: seed has 2, model.width has 1"),
        (["zip(seed=[1,2])", "seed=3"], "seed is given twice, in zip and outside of it"),
        (["zip(seed=[1,2])", "zip(seed=[1,2])"], "seed is given twice, in zip and in another zip"),
        (["zip()"], "zip() cannot be read; write e.g. 'zip(model.width=[32,64],optimizer.lr=[0.1,0.05])'"),
        (["zip(seed=[1,2],seed=[3,4])"], "seed is given twice in zip(seed=[1,2],seed=[3,4])"),
        (["zip(seed=[],model.width=[])"], "seed=[] names no value at all"),
        (["zip(3,4)"], "cannot be read"),
        (["zip(seed=1,2 model.width=3,4)"], "write commas between keys, and lists of values, e.g. 'zip(model.width="),
        (["zip=3"], "cannot be read; write e.g. 'zip(model.width="),
        (["zip={3:[4]}"], "3 in {3: [4]} is no key"),
        (["zip(hydra.sweep.dir=[a,b],seed=[1,2])"], "hydra.sweep.dir is a key of Hydra's own, and is the same in all"),
        (["zip(seed=[1,2]"], "cannot be read"),
        (["grid(seed=[1,2]"], "cannot be read; write e.g. 'grid(model.depth=0,"),
        (["grid=3"], "hydra.sweeper.params=3 is no mapping"),
        (["grid=[3]"], "3 in hydra.sweeper.params is no mapping"),
        (["grid=[{]"], "cannot be read; write e.g. 'grid(model.depth=0,"),
        (["grid", "seed=1,2"], "grid cannot be read; write e.g. 'grid(model.depth=0,"),
        (["zip", "seed=1,2"], "zip cannot be read; write e.g. 'zip(model.width="),
        (["grid="], "grid= cannot be read; write e.g. 'grid(model.depth=0,"),
        (["grid(3,4)"], "cannot be read; write e.g. 'grid(model.depth=0,"),
        (["grid(seed=1,seed=2)"], "seed is given twice in grid(seed=1,seed=2)"),
        (
            ["grid(seed=1,2 model.width=3,4)"],
            "write commas between keys, and lists of values, e.g. 'grid(model.depth=0",
        ),
        (["grid(seed=[])", "grid(seed=1)"], "seed=[] names no value at all"),
        (["grid(seed=interval(0,1))"], "is an interval"),
        (["grid(seed=range(600))", "grid(seed=range(600,1200))"], "the sweep has 1,200 runs"),
        (["grid(seed=range(2000000))", "grid()"], "add limit=1000 for a random part"),
        (["grid(seed=1)", "grid(model.depth=2)", "skip=seed<9"], "skip leaves none of the 2 combinations"),
        (["zip(seed=interval(0,1))"], "is an interval"),
        (["zip(seed=range(0))"], "names no value at all"),
        (["seed=1,2", "skip=seed>0"], "skip leaves none of the 2 combinations"),
        (["seed=1,2", "limit=0"], "hydra.sweeper.limit=0 is out of range"),
        (["seed=1,2", "limit=x"], "hydra.sweeper.limit=x is out of range"),
        (
            ["seed=range(2000)"],
            "train a random part by limit=1000; if you mean all, add hydra.launcher.max_runs=2000",
        ),
        (["seed=range(2000)", "skip=seed<500"], "the sweep has 1,500 runs"),
        (["seed=range(2000)", "data.seed=range(2000)", "skip=seed==1"], "add limit=1000 for a random part"),
        (["optimizer.lr=logrange(0,1,3)"], "both ends must be finite and larger than 0"),
        (["optimizer.lr=logrange(-1e-3,1,3)"], "-1e-3 is not"),
        (["optimizer.lr=logrange(1,inf,3)"], "inf is not"),
        (["optimizer.lr=logrange(1,1,3)"], "its ends must differ, and both are 1"),
        (["optimizer.lr=logrange(0.1,1,1)"], "COUNT must be from 2 to 100,000, and is 1"),
        (["optimizer.lr=logrange(0.1,1,3.5)"], "COUNT a whole one"),
        (["optimizer.lr=0.5,logrange(0.1,1,3)"], "write logrange(LOW,HIGH,COUNT) alone"),
        (["model.width=logrange(1,3,9)"], "fewer than 9 different values"),
    ],
)
def test_a_wrong_grid_is_one_line(composer, arguments: list[str], message: str):
    with pytest.raises(UserError) as error:
        chosen(composer, *arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@given(st.floats(1e-9, 1e9), st.floats(2, 1e6), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_a_log_range_has_its_ends_and_equal_ratios(low: float, ratio: float, count: int):
    text = sweep_syntax.with_log_range(f"optimizer.lr=logrange({low!r},{low * ratio!r},{count})")
    found = [float(value) for value in (overrides.parse(text).value_text or "").split(",")]
    np.testing.assert_allclose(found, np.geomspace(low, low * ratio, count), rtol=6e-4)
    assert (found[0], found[-1]) == (low, low * ratio)


def test_a_log_range_of_whole_numbers_has_whole_numbers():
    assert sweep_syntax.with_log_range("model.width=logrange(8,512,4)") == "model.width=8,32,128,512"
    assert sweep_syntax.with_log_range("optimizer.lr=logrange(1,0.01,3)") == "optimizer.lr=1,0.1,0.01"
    assert sweep_syntax.with_log_range("name='logrange(1,2,3)'") == "name='logrange(1,2,3)'"


CONDITIONS = {
    "model.depth>3 and model.width>16": lambda depth, width, **_: depth > 3 and width > 16,
    "model.depth == 1 or not model.width in [8, 32]": lambda depth, width, **_: depth == 1 or width not in (8, 32),
    "1 < model.depth <= 4": lambda depth, **_: 1 < depth <= 4,
    "model.depth * model.width > 60": lambda depth, width, **_: depth * width > 60,
    "optimizer == adam": lambda optimizer, **_: optimizer == "adam",
    "optimizer.name != 'adam'": lambda optimizer, **_: optimizer != "adam",
    "optimizer.lr < 0.05": lambda optimizer, **_: optimizer == "adam",  # whose file has a rate of its own
    "resume is null": lambda **_: True,
    "'model.depth > 3'": lambda depth, **_: depth > 3,
    "model.depth > 3\n  and model.width > 8  # both": lambda depth, width, **_: depth > 3 and width > 8,
    "max(model.width) > 8 or min(model.width) < 1": lambda width, **_: width > 8,
    "model.activation in [relu, tanh] and max([model.depth, 2]) == 2": lambda depth, **_: depth <= 2,
    "data.batch_size % 2 == 1": lambda **_: False,
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_skip_leaves_out_the_runs_for_which_its_condition_holds(composer, condition: str):
    values = {"model.depth": (1, 2, 4, 5), "model.width": (8, 16, 32), "optimizer": ("sgd", "adam"), "seed": (0,)}
    swept = [f"{key}={','.join(map(str, listed))}" for key, listed in values.items()]
    points = list(itertools.product(*values.values()))
    expected = [
        " ".join(f"{key}={value}" for key, value in zip(values, point, strict=True))
        for point in points
        if not CONDITIONS[condition](depth=point[0], width=point[1], optimizer=point[2])
    ]
    if not expected:
        with pytest.raises(UserError, match="leaves none"):
            chosen(composer, *swept, f"skip={condition}")
        return
    found = chosen(composer, *swept, f"skip={condition}")
    assert texts(found) == expected
    out = len(points) - len(expected)
    assert found.sentence == (f"{len(points)} combinations, of which skip leaves out {out}" if out else "")


def test_the_depth_in_a_condition_is_the_number_of_hidden_layers_also_where_no_key_gives_it(composer):
    widths = {"8": 1, "[8]": 1, "[8,4]": 2, "[8,4,2]": 3}
    for depth in (1, 2, 3):
        left = [f"model.width={width}" for width, layers in widths.items() if layers != depth]
        assert texts(chosen(composer, "model.width=8,[8],[8,4],[8,4,2]", f"skip=model.depth=={depth}")) == left


def test_a_condition_may_name_a_key_that_the_sweep_adds(composer):
    found = chosen(composer, "+trainer.x=1,2", "seed=1,2", "skip=trainer.x==2 and seed==1")
    assert len(found.runs) == 3


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_place_in_a_condition(key: str):
    assert SkipCondition(f"{key} != null").holds({}) is False


@pytest.mark.parametrize(
    ("condition", "message"),
    {
        "model.dept > 3": "unknown key 'model.dept'; did you mean model.depth?",
        "depth > 3": "unknown key 'depth'; did you mean model.depth?",
        "model.activation == rleu": "unknown model.activation 'rleu'; choose one of",
        "optimizer in ['adam', 'adm']": "unknown optimizer 'adm'; choose one of",
        "model.depth = 3": "cannot be read",
        "model.depth > 3 && seed > 2": "cannot be read",
        "${model.depth} > 3": "keys stand in it without ${}",
        "name == x": "x is no key; write a text in quotes, 'x'",
        "": "cannot be read",
        "(": "cannot be read",
        "seed": "neither true nor false",
        "model.depth > 'a'": "not supported",
        "1 / seed > 2 and seed == 0": "division by zero",
        "early_stopping.patience > 3": "where early_stopping.patience=null;",
        "seed ** 99 > 1": "has no place in a condition",
        "__import__('os').system('true')": "the functions are",
        "(lambda: 1)() == 1": "the functions are",
        "seed.__class__ == 1": "unknown key 'seed.__class__'",
        "[x for x in [1]] == 1": "has no place in a condition",
        "'a' * 1000000000 == 1": "needs two numbers",
        "(" * 5000 + "1" + ")" * 5000 + " == 1": "cannot be read",
        "seed == 1 " + "or seed == 1 " * 2000: "it is too long",
    }.items(),
)
def test_a_wrong_condition_is_one_line_and_executes_nothing(composer, condition: str, message: str):
    with pytest.raises(UserError) as error:
        chosen(composer, "seed=0,1", f"skip={condition}")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_limit_is_a_random_part_in_the_order_of_the_grid_that_a_larger_limit_contains(composer):
    grid = ["model.depth=range(1,11)", "seed=range(40)"]
    whole = texts(chosen(composer, *grid))
    parts = [texts(chosen(composer, *grid, f"limit={limit}")) for limit in (10, 20, 20, 400, 1000)]
    assert [len(part) for part in parts] == [10, 20, 20, 400, 400]
    assert set(parts[0]) < set(parts[1]) == set(parts[2]) < set(parts[3])
    assert all(part == [text for text in whole if text in set(part)] for part in parts)
    assert texts(chosen(composer, *grid, "limit=20", seed=1)) != parts[1]
    depths = [text.split()[0] for text in texts(chosen(composer, *grid, "limit=200"))]
    assert min(map(depths.count, set(depths))) > 8  # of 20 expected


def test_a_part_of_a_grid_that_is_too_large_to_list(composer):
    grid = [f"{key}=range(2000)" for key in ("seed", "data.seed", "model.width")]
    found = chosen(composer, *grid, "limit=50", "skip=seed%2==1")
    runs = [tuple(override.value for override in run.overrides) for run in found.runs]
    assert len(set(runs)) == 50
    assert not any(run[0] % 2 for run in runs)
    assert found.sentence.startswith("8,000,000,000 combinations, of which 50 are chosen at random (skip leaves")


YAML = """\
# @package _global_
name: mine
trainer:
  max_epochs: 1
hydra:
  sweeper:
    params:
      model.activation: [tanh, relu]
      seed: range(2)
    zip:
      model.width: [[8, 4], [4, 4]]
      optimizer.lr: logrange(0.01, 1, 2)
    skip: optimizer.lr < 0.1 and model.activation == relu
    limit: 5
"""


def rows(sweep: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((sweep / "results.csv").read_text().splitlines()))


def test_a_sweep_in_yaml_is_the_typed_one_and_python_s(train, here):
    (here / "own/experiment").mkdir(parents=True)
    (here / "own/experiment/mine.yaml").write_text(YAML)
    ended = train(["--config-dir", str(here / "own"), "-m", "experiment=mine"])
    assert ended.code == 0, ended.err
    assert "combinations, of which 5 are chosen at random" in ended.out
    table = rows(here / "multirun/mine")
    assert len(table) == 5
    pairs = {"[8,4]": "0.01", "[4,4]": "1"}
    assert all(pairs[row["model.width"]] == row["optimizer.lr"] for row in table)
    assert not any(row["optimizer.lr"] == "0.01" and row["model.activation"] == "relu" for row in table)

    typed = [
        *("-m", "name=mine", "trainer.max_epochs=1", "model.activation=tanh,relu", "seed=range(2)"),
        *("zip(model.width=[[8,4],[4,4]],optimizer.lr=[0.01,1])", "limit=5"),
        "skip=optimizer.lr<0.1 and model.activation==relu",
    ]
    again = train(typed)
    assert again.code == 0, again.err
    assert "5 runs: 5 done before" in again.out
    results = mlpexp.sweep(
        {"model.activation": ["tanh", "relu"], "seed": range(2)},
        zip={"model.width": [[8, 4], [4, 4]], "optimizer.lr": [0.01, 1]},
        skip="optimizer.lr < 0.1 and model.activation == relu",
        trainer={"max_epochs": 1},
        name="mine",
    )
    assert len(results) == 6  # without a limit, of which 5 were there
    assert {row["name"] for row in table} <= {row["name"] for row in rows(here / "multirun/mine")}


def test_a_run_of_a_grid_is_found_again_whatever_chose_it(train, here):
    assert train("-m name=g model.width=4,8 optimizer.lr=0.1,0.2 trainer.max_epochs=1").code == 0
    shutil.copytree(here / "multirun/g", here / "before")
    ended = train(["-m", "name=g", "zip(model.width=[4,8],optimizer.lr=[0.1,0.2])", "trainer.max_epochs=1"])
    assert (ended.code, "2 runs: 2 done before" in ended.out) == (0, True)
    ended = train("-m name=g model.width=4,8,16 optimizer.lr=0.1,0.2 limit=5 trainer.max_epochs=1")
    assert (ended.code, "done before" in ended.out) == (0, True)
    assert len(rows(here / "multirun/g")) == 5
    before, after = tree(here / "before"), tree(here / "multirun/g")
    kept = {path for path in before if str(path).endswith("result.json")}
    assert len(kept) == 4
    assert all(before[path] == after[path] for path in kept)


@pytest.mark.parametrize("argument", ["grid(seed=[1,2])", "zip(seed=[1,2])", "skip=seed==1", "limit=3"])
def test_a_single_run_refuses_what_chooses_runs(train, here, argument: str):
    ended = train([argument])
    assert (ended.code, tree(here)) == (2, {})
    assert ended.line == f"train.py: {argument} chooses the runs of a sweep; add -m, or leave it out"
    with pytest.raises(UserError, match=r"call mlpexp\.sweep, or leave it out"):
        mlpexp.run(argument)


def test_a_zip_that_is_typed_replaces_keys_of_an_experiment(train, here):
    (here / "own/experiment").mkdir(parents=True)
    (here / "own/experiment/mine.yaml").write_text(YAML.replace("limit: 5", "limit: null"))
    start = ["--config-dir", str(here / "own"), "-m", "experiment=mine", "dry_run=true"]
    ended = train([*start, "zip(model.activation=[tanh,relu,gelu],optimizer.lr=[1,2,3])", "skip=null"])
    assert ended.out.startswith("6 runs: 3 configurations x 2 seeds")
    ended = train([*start, "model.width=8"])
    assert "model.width is given twice, in zip and outside of it; leave out one of them" in ended.line
    assert train([*start, "model.width=8", "hydra.sweeper.zip=null", "hydra.sweeper.skip=null"]).code == 0
    ended = train([*start, "model.width=8", "zip=null", "skip=null", "skip=seed==1"])
    assert ended.code == 0, ended.err
