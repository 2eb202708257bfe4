"""Options that a plugin's functions declare: keys of the configuration, checked, in the identity, swept, resumed."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

import mlpexp
from mlpexp.config import checks, schema, user_options
from mlpexp.config.schema import Config
from mlpexp.engine.compiled.availability import unsupported_run
from mlpexp.runtime import user_code
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.store.identity import identity

# each kind with an option; with @VALUE in place of its name, the same with a constant
SOURCE = """
from typing import Annotated, Literal
import numpy as np
import torch
from pydantic import Field
from mlpexp.extend import activation, data_set, initialiser, loss, optimizer, schedule

def slope_of(x, h, *, slope=0.5):
    return torch.exp(-slope * x * x) * (1 - 2 * slope * x * x)

@activation(derivative=slope_of)
def bump(x, *, slope: Annotated[float, Field(gt=0, description="how fast it falls")] = 0.5):
    return x * torch.exp(-slope * x * x)

@loss(task="classification")
def hinge(outputs, targets, *, margin: float = 1.0, power: Literal[1, 2] = 1):
    right = (outputs * targets).sum(-1, keepdim=True)
    return (((margin + outputs - right).clamp(min=0) ** power) * (1 - targets)).sum(-1)

@optimizer(state=["velocity"])
def heavy(parameters, gradients, state, hyperparameters, *, rho: float = 0.9, times: int = 1):
    for p, g, v, rate, kept, n in zip(parameters, gradients, state["velocity"], hyperparameters["lr"], rho, times):
        v.mul_(kept).add_(g)
        p.sub_(rate * n * v)

@data_set(keys=["samples", "seed"])
def signs(settings, *, wave: float = 1.0, shift: bool = False):
    points = np.random.default_rng(settings.seed).uniform(-1, 1, (settings.samples, 2))
    return points, (np.sin(wave * points + 0.5 * shift).prod(1) > 0).astype(int)

@initialiser(scales_with_fan_in=True, bias=lambda units, fan_in, generator, *, size=1.0: torch.full((units,), size))
def pm(shape, generator, *, size: float = 1.0):
    return size * (torch.randint(0, 2, shape, generator=generator) * 2.0 - 1) / shape[1] ** 0.5

@schedule(depends_on_length=False)
def decays(elapsed, total, *, base: float = 0.5):
    return base**elapsed
"""
PARTS = ["model.activation=bump", "loss.name=hinge", "optimizer.name=heavy", "data=signs", "model.init=pm"]
PARTS += ["optimizer.schedule=decays", "plugins=[my_plugin.py]"]
SMALL = ["data.samples=60", "trainer.max_epochs=2", "tracking.figures=false", "tracking.tensorboard=false"]
SMALL += ["model.width=4", "tracking.diagnostics=false"]
OPTIONS = {
    "model.options.slope": 0.25,
    "loss.options.margin": 2.0,
    "loss.options.power": 2,
    "optimizer.options.rho": 0.5,
    "optimizer.options.times": 2,
    "optimizer.options.base": 0.75,
    "data.options.wave": 3.0,
    "data.options.shift": True,
    "model.options.size": 0.5,
}


pytestmark = pytest.mark.usefixtures("no_plugins_left")


@pytest.fixture
def plugin(here):
    (here / "my_plugin.py").write_text(SOURCE)
    return here


def words(options) -> list[str]:
    return [f"{key}={str(value).lower()}" for key, value in options.items()]


def parsed(**given) -> Config:
    return checks.parse({"plugins": ["my_plugin.py"], **given}, Path.cwd)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_option_is_a_key_with_type_default_and_help(plugin):
    parsed()
    assert set(user_options.keys()) == set(OPTIONS)
    texts = {key: (default, text) for key, default, text in user_options.described()}
    assert texts["model.options.slope"] == (0.5, "model.activation=bump only: how fast it falls")
    assert texts["optimizer.options.times"] == (1, "optimizer.name=heavy only (int)")


def test_a_default_makes_no_other_run_and_another_value_does(plugin):
    given = {"model": {"activation": "bump"}, "optimizer": {"name": "heavy"}}
    plain = parsed(**given)
    for value in (0.5, 0.25):
        named = parsed(**given | {"model": {"activation": "bump", "options": {"slope": value}}})
        assert (identity(named, "") == identity(plain, "")) is (value == 0.5)
    whole, real = (parsed(**given | {"optimizer": {"name": "heavy", "options": {"rho": value}}}) for value in (0, 0.0))
    assert identity(whole, "") == identity(real, "") != identity(plain, "")
    assert checks.from_plain(schema.plain(real)) == real


WRONG = {
    "model.options.slope=-1": r"^model\.options\.slope=-1: input should be greater than 0; e\.g\. .*slope=0\.5$",
    "model.options.slope=steep": r"^model\.options\.slope=steep: input should be a valid number; e\.g\. ",
    "model.options.slope=true": "input should be a valid number",
    "optimizer.options.times=1.5": "input should be a valid integer",
    "loss.options.power=3": "input should be 1 or 2",
    "model.options.slop=1": r"^unknown key 'model\.options\.slop'; did you mean model\.options\.slope\?$",
    "data.options.wave=3": r"^data\.options\.wave=3 belongs to data\.name=signs; with others leave it at 1\.0, or",
    "optimizer.options=3": r"^optimizer\.options=3",
    "model.slope=2": r"^unknown key 'model\.slope'; did you mean model\.options\.slope\?$",
    # a value that its own function refuses, before anything is trained
    "model.options.slope=1e300": "model.options.slope=1e[+]?300: the activation 'bump' .* returned",
}


@pytest.mark.parametrize("word", WRONG)
def test_what_is_wrong_with_an_option_is_said_in_a_line_beside_all_other_problems(plugin, word):
    own = ["plugins=[my_plugin.py]", "model.activation=bump", "optimizer.name=heavy", "loss.name=hinge"]
    ended = run_script("train.py", [*own, word, "optimizer.lr=-2"])
    lines = [line.strip().removeprefix("- ") for line in ended.err.splitlines()]
    assert ended.code == 2
    assert [line for line in lines if re.search(WRONG[word], line.removeprefix("train.py: "))], ended.err


def test_an_option_at_its_default_is_accepted_beside_other_parts(plugin):
    cfg = parsed(optimizer={"options": {"rho": 0.9}})
    assert cfg.optimizer.options == {}


DECLARED = {
    "*, slope": "has the keyword-only argument slope without a default; give it one",
    "*, slope=None": "whose type is not said; annotate it",
    "*, slope: float = 'steep'": "slope='steep', but input should be a valid number",
    "*, slope: torch.Tensor = None": "of the type Tensor, which no key can have",
    "*, slope: 'nothing' = 1": "has annotations that cannot be read",
}


@pytest.mark.parametrize("signature", DECLARED)
def test_a_declaration_that_can_be_no_key_is_refused_with_its_name(here, signature):
    head = "import torch\nfrom mlpexp.extend import activation\n"
    (here / "my_plugin.py").write_text(f"{head}\n@activation\ndef bad(x, {signature}): return x\n")
    with pytest.raises(UserError, match=r"plugin my_plugin\.py: the activation 'bad' of the plugin my_plugin\.py .*"):
        parsed()
    with pytest.raises(UserError) as raised:
        parsed()
    assert DECLARED[signature] in str(raised.value)


def test_an_option_of_two_parts_is_refused(plugin):
    (plugin / "my_plugin.py").write_text(SOURCE.replace("slope", "size"))
    with pytest.raises(ConfigError, match="is an option of activation 'bump' and init 'pm'; rename it in one of them"):
        parsed(model={"activation": "bump", "init": "pm", "options": {"size": 2.0}})


def test_a_stack_of_several_values_has_the_numbers_of_constants_in_the_source_and_resumes_to_the_bit(plugin):
    swept = {"model.options.slope": "0.25,0.5", "optimizer.options.rho": "0.5,0.9"}
    ended = run_script("train.py", ["-m", "name=own", *PARTS, *SMALL, *words(OPTIONS | swept)])
    assert ended.code == 0, ended.err
    assert "4 runs" in ended.out and "in 1 stack" in ended.out
    table = mlpexp.load_results("multirun/own")
    assert [(row["model.options.slope"], row["optimizer.options.rho"]) for row in table] == [
        (0.25, 0.5), (0.25, 0.9), (0.5, 0.5), (0.5, 0.9)
    ]  # fmt: skip
    stacked = plugin / "multirun/own" / table[0]["name"]
    assert json.loads((stacked / "result.json").read_text())["status"] in ("ok", "chance")
    # alone, half and then resumed
    own = [*PARTS, *SMALL, *words(OPTIONS), "stack.engine=torch"]
    assert run_script("train.py", [*own, "hydra.run.dir=half", "trainer.max_epochs=1"]).code == 0
    assert rows(plugin / "half") == rows(stacked)[:1]
    resumed = run_script("train.py", ["resume=half", "trainer.max_epochs=2"])
    assert resumed.code == 0, resumed.err
    assert rows(plugin / "half") == rows(stacked)
    for script, more in {"evaluate.py": ["--no-embedding"], "export.py": ["--format", "onnx"]}.items():
        ended = run_script(script, ["half", *more])
        assert ended.code == 0, ended.err
    # the same with constants
    (plugin / "constants").mkdir()
    fixed = SOURCE
    for key, value in OPTIONS.items():
        name = key.rpartition(".")[2]
        declared = rf"(\b{name}(?:: (?:\w+|Literal\[1, 2\]|Annotated\[.*?\)\]))? ?= ?)[\w.]+(?=[,):])"
        fixed, count = re.subn(declared, rf"\g<1>{value}", fixed)
        assert count in (1, 2)
    (plugin / "constants/my_plugin.py").write_text(fixed)
    user_code._forget("my_plugin", user_code._loaded["my_plugin"].files)
    user_code._cache.clear()
    sys.path.remove(str(plugin))
    (plugin / "my_plugin.py").unlink()
    constant = [word.replace("my_plugin", "constants/my_plugin") for word in PARTS]
    ended = run_script("train.py", [*constant, *SMALL, "stack.engine=torch", "hydra.run.dir=constant"])
    assert ended.code == 0, ended.err
    assert rows(plugin / "constant") == rows(stacked)


def test_the_reason_for_the_torch_engine_is_the_activation_whatever_its_options_are(plugin):
    for options in ({}, {"slope": 0.25}):
        cfg = parsed(model={"activation": "bump", "options": options})
        reason = unsupported_run(cfg)
        assert reason is not None and reason.startswith("the activation 'bump' has no compiled form")


def test_estimators_take_options_of_own_parts_and_stack_them(plugin):
    X, y = load_iris(return_X_y=True)
    user_code.load("my_plugin.py", plugin)
    own = mlpexp.MLPClassifier(
        (4,), activation="bump", solver="heavy", max_iter=3, n_iter_no_change=np.inf, random_state=0
    )
    grid = {"model_options": [None, {"slope": 0.5}, {"slope": 2.0}], "optimizer_options": [{"rho": 0.5}, {"times": 2}]}
    search = mlpexp.StackedSearchCV(own, grid, cv=2, refit=False).fit(X, y)
    alone = GridSearchCV(own, grid, cv=2, refit=False).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, alone.cv_results_["mean_test_score"])
    losses = [clone(own).set_params(**chosen).fit(X, y).loss_ for chosen in search.cv_results_["params"]]
    assert losses[:2] == losses[2:4] and len(set(losses)) == 4  # the default and the same value given


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"model_options": {"slope": -1}}, r"model_options 'slope'=-1: .* e\.g\. model_options={'slope': 0\.5}"),
        ({"model_options": {"slop": 1}}, "unknown key model_options 'slop'.* model_options 'slope'"),
        ({"optimizer_options": {"rho": 1}}, "unknown key optimizer_options 'rho'|optimizer_options 'rho'=1 belongs to"),
        ({"optimizer_options": 3}, "optimizer_options=3 cannot be"),
    ],
)
def test_estimators_refuse_options_that_are_not_declared(plugin, parameters, said):
    user_code.load("my_plugin.py", plugin)
    with pytest.raises(ValueError, match=said):
        mlpexp.MLPClassifier((4,), activation="bump", **parameters).fit(*load_iris(return_X_y=True))
