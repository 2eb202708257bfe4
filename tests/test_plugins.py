"""Modules of the user's own: how they are found, what they register, what is said where they are missing or changed."""

import os
import sys
import types
from pathlib import Path

import pytest
from conftest import run_script

import mlpexp
from mlpexp.analysis import load_sweep
from mlpexp.config import checks
from mlpexp.config.overrides import shell_word
from mlpexp.config.schema import Config
from mlpexp.models import classifier
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.metrics import METRICS
from mlpexp.runtime import source_digest, user_code
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.runtime.registry import Registry
from mlpexp.store.identity import identity

CUBIC = """
from mlpexp.nn.activations import ACTIVATIONS, Activation

ACTIVATIONS.register("cubic", Activation(function=lambda x: x**3, derivative=lambda x, h: 3 * x * x, gain=0.258))
"""
SMALL = ["trainer.max_epochs=1", "tracking.figures=false", "model.width=8"]


pytestmark = pytest.mark.usefixtures("no_plugins_left")


def write(directory: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = directory / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_plugin_behind_a_link_is_forgotten_with_its_module(here, monkeypatch):
    write(here, elsewhere__real=CUBIC)
    (here / "link_plugin.py").symlink_to(here / "elsewhere/real.py")
    monkeypatch.syspath_prepend(here)
    loaded = user_code.load("link_plugin", here)
    assert "link_plugin" in sys.modules and "cubic" in ACTIVATIONS
    user_code._forget("link_plugin", loaded.files)
    assert "link_plugin" not in sys.modules and "cubic" not in ACTIVATIONS


@pytest.mark.parametrize("given", ["cubic_plugin.py", "cubic_plugin", "./cubic_plugin.py", "{here}/cubic_plugin.py"])
def test_a_file_or_an_import_name_registers_its_entries(here, given):
    write(here, cubic_plugin=CUBIC)
    cfg = checks.parse({"plugins": [given.format(here=here)], "model": {"activation": "cubic"}}, Path.cwd)
    assert cfg.model.activation == "cubic"
    [spelled] = cfg.plugins
    assert user_code.without_place(spelled) == f"cubic_plugin@{spelled.rpartition('@')[2]}"
    owner = ACTIVATIONS.plugin_of("cubic")
    assert owner is not None and owner.digest == user_code.load(spelled, here).digest


def test_a_module_in_a_package_and_its_helpers_are_one_source(here):
    write(here, shapes____init__="", shapes__curves="from .parts import cube", shapes__parts="def cube(x): return x**3")
    first = checks.parse({"plugins": ["shapes.curves"]}, Path.cwd).plugins
    write(here, other="x = 1")
    assert checks.parse({"plugins": ["shapes.curves"]}, Path.cwd).plugins == first
    write(here, shapes__parts="def cube(x): return x * x * x")
    assert checks.parse({"plugins": ["shapes.curves"]}, Path.cwd).plugins != first
    from shapes import curves

    assert curves.cube(3) == 27
    assert source_digest.file_digest(Path(curves.__file__)) == user_code.load("shapes.curves", here).digest
    parts = sys.modules["shapes.parts"]
    assert source_digest.file_digest(Path(curves.cube.__code__.co_filename)) == source_digest.file_digest(
        Path(parts.__file__)
    )


def test_a_changed_source_is_imported_anew_and_makes_another_run(here):
    write(here, cubic_plugin=CUBIC)
    given = {"plugins": ["cubic_plugin.py"], "model": {"activation": "cubic"}}
    first = checks.parse(given, Path.cwd)
    assert ACTIVATIONS["cubic"].gain == 0.258
    assert identity(checks.parse(given, Path.cwd), "") == identity(first, "")
    write(here, cubic_plugin=CUBIC.replace("0.258", "0.257"))
    second = checks.parse(given, Path.cwd)
    assert ACTIVATIONS["cubic"].gain == 0.257
    assert identity(second, "") != identity(first, "")
    with pytest.raises(UserError, match=r"the plugin cubic_plugin\.py has changed: .* restore it"):
        checks.parse({"plugins": list(first.plugins)})


def test_the_place_of_a_plugin_is_not_in_the_identity(here):
    write(here, cubic_plugin=CUBIC, elsewhere__cubic_plugin=CUBIC)
    one = checks.parse({"plugins": ["cubic_plugin.py"]}, Path.cwd)
    user_code._forget("cubic_plugin", user_code.load(one.plugins[0], here).files)
    sys.path.remove(str(here))
    other = checks.parse({"plugins": ["elsewhere/cubic_plugin.py"]}, Path.cwd)
    assert one.plugins != other.plugins
    assert identity(one, "") == identity(other, "") != identity(Config(), "")


def test_an_entry_is_offered_only_where_its_plugin_is_named(here):
    write(here, cubic_plugin=CUBIC)
    checks.parse({"plugins": ["cubic_plugin.py"], "model": {"activation": "cubic"}}, Path.cwd)
    with pytest.raises(ConfigError, match=r"unknown activation 'cubic'; .*plugins=\[my_plugin\.py\]"):
        checks.parse({"model": {"activation": "cubic"}})


WRONG = {
    "import torhc": r"cannot be imported: ModuleNotFoundError: No module named 'torhc' \(line 1 of wrong\.py\)",
    "import json\n\njson.loads('{')": r"cannot be imported: JSONDecodeError: .* \(line 3 of wrong\.py\)",
    "def f(:": "cannot be imported: SyntaxError",
    "raise SystemExit(3)": "cannot be imported: SystemExit: 3",
    CUBIC.replace("cubic", "tanh"): "activation 'tanh' is registered already; choose another name",
    CUBIC + "1 / 0": r"cannot be imported: ZeroDivisionError: division by zero \(line \d+ of wrong\.py\)",
}


@pytest.mark.parametrize("source", WRONG, ids=range(len(WRONG)))
def test_a_plugin_that_raises_is_named_and_leaves_nothing(here, source):
    write(here, wrong=source)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^the plugin wrong\.py:? " + WRONG[source]):
            checks.parse({"plugins": ["wrong.py"]}, Path.cwd)
        assert "cubic" not in ACTIVATIONS
        assert "wrong" not in sys.modules


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.py", "the plugin nowhere.py is not there: .* has no such file"),
        ("nowhere", "the plugin nowhere cannot be found: there is no such module"),
        ("no where", "the plugin no where cannot be found"),
        ("random.py", "the plugin random.py has the name of another module, .*random.py; rename it"),
        ("my-plugin.py", "cannot be imported under this name; rename it"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(here, given, said):
    write(here, random="x = 1", **{"my-plugin": "x = 1"})
    with pytest.raises(UserError, match=said) as raised:
        checks.parse({"plugins": [given]}, Path.cwd)
    assert "\n" not in str(raised.value)


def test_a_plugin_in_a_directory_of_runs_is_not_executed_for_a_recorded_run(here):
    write(here, run__evil="raise SystemExit('executed')")
    (here / "run/checkpoints").mkdir()
    (here / "run/metrics.csv").touch()
    with pytest.raises(UserError, match="a directory of runs, from which no code is executed"):
        checks.from_plain({"plugins": [f"run/evil.py@{'0' * 64}"]})


@pytest.mark.parametrize("is_old", [False, True])
def test_an_entry_registered_before_its_module_became_a_plugin_belongs_to_it(here, monkeypatch, is_old):
    write(here, cubic_plugin=CUBIC)
    if is_old:
        os.utime(here / "cubic_plugin.py", (1e9, 1e9))
    monkeypatch.syspath_prepend(str(here))
    import cubic_plugin

    assert isinstance(cubic_plugin, types.ModuleType)
    loaded = user_code.load("cubic_plugin", here)
    assert ACTIVATIONS.of_files(loaded.files) == ["cubic"]
    assert (sys.modules["cubic_plugin"] is cubic_plugin) is is_old


def test_an_entry_can_be_removed():
    registry: Registry[int] = Registry("thing", {"one": 1})
    user_code.REGISTRIES.remove(registry)
    registry.register("two", 2)
    assert registry.of_files([Path(__file__).resolve()]) == ["two"]
    registry.remove("two")
    assert list(registry) == ["one"]


def test_a_sweep_and_its_commands_find_the_plugin_and_say_when_it_changed_or_is_gone(here):
    write(here, cubic_plugin=CUBIC)
    words = ["-m", "name=own", "plugins=[cubic_plugin.py]", "model.activation=cubic,tanh", *SMALL]
    assert run_script("train.py", words).code == 0
    run = here / "multirun/own/width=8,activation=cubic,max_epochs=1"
    assert run_script("export.py", [str(run), "--format", "safetensors"]).code == 0
    resumed = run_script("train.py", [shell_word("resume", str(run)).strip("'"), "trainer.max_epochs=2"])
    assert resumed.code == 0, resumed.err
    write(here, cubic_plugin=CUBIC + "# another")
    refused = run_script("train.py", words)
    assert (refused.code, "the plugins have changed since it began (cubic_plugin)" in refused.line) == (2, True)
    (here / "cubic_plugin.py").unlink()
    user_code._cache.clear()
    user_code._forget("cubic_plugin", user_code._loaded["cubic_plugin"].files)
    for script, more in {"evaluate.py": ["--no-embedding"], "export.py": ["--format", "safetensors"]}.items():
        refused = run_script(script, [str(run), *more])
        assert refused.code == 2
        assert "best.ckpt cannot be used without its plugin: the plugin cubic_plugin.py is not there" in refused.line
        assert f"copy it to {here}" in refused.line


def test_the_message_of_a_run_that_diverges_names_the_plugin(here):
    write(here, cubic_plugin=CUBIC)
    words = ["-m", "name=own", "plugins=[cubic_plugin.py]", "model.activation=cubic", "optimizer.lr=1e6", *SMALL]
    assert run_script("train.py", [*words, "data=iris", "model.depth=3", "seed=1,2"]).code == 0
    [one, _] = mlpexp.load_results("multirun/own")
    assert one["status"] == "diverged"
    assert one["message"].endswith("no longer finite (activation 'cubic' of cubic_plugin.py)")


def test_from_python_a_plugin_is_a_file_a_name_or_a_module(here, monkeypatch):
    write(here, cubic_plugin=CUBIC)
    monkeypatch.syspath_prepend(str(here))
    import cubic_plugin

    settings = {"data": "iris", "model.width": 4, "trainer.max_epochs": 1, "model.activation": "cubic"}
    runs = [
        mlpexp.run(settings | {"tracking.figures": False}, plugins=[plugin])
        for plugin in ("cubic_plugin.py", "cubic_plugin", cubic_plugin)
    ]
    assert len({run.result.identity for run in runs}) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["fork", "loky"])
def test_workers_import_the_plugin(here, backend):
    write(here, cubic_plugin=CUBIC)
    words = ["-m", f"name={backend}", "plugins=[cubic_plugin.py]", "model.activation=cubic,tanh", "data=iris", *SMALL]
    ended = run_script(
        "train.py", [*words, f"hydra.launcher.backend={backend}", "hydra.launcher.workers=2", "seed=1,2"]
    )
    assert ended.code == 0, ended.err
    assert {row["status"] for row in mlpexp.load_results(f"multirun/{backend}")} <= {"ok", "chance"}


def test_a_report_in_another_process_imports_the_plugins_metrics(here):
    source = "from mlpexp.extend import metric\n\n\n@metric(higher_is_better=True, predictions='classes')\n"
    write(
        here,
        own_metric=source + "def hits(predictions, targets):\n    return (predictions == targets).double().mean(-1)\n",
    )
    words = ["-m", "name=own", "plugins=[own_metric.py]", "metrics=[hits]", "monitor=val/hits", "data=iris", *SMALL]
    assert run_script("train.py", [*words, "seed=1,2"]).code == 0
    user_code._forget("own_metric", user_code._loaded["own_metric"].files)
    user_code._cache.clear()
    table, _ = load_sweep.read(here / "multirun/own")
    assert METRICS["hits"].higher_is_better and len(table.names) == 2
    user_code._forget("own_metric", user_code._loaded["own_metric"].files)
    user_code._cache.clear()
    (here / "own_metric.py").unlink()
    refused = run_script("report.py", ["multirun/own"])
    assert refused.code == 2 and "unknown metric 'hits'" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimizer.warmup_steps=100", "optimizer.warmup_steps=100 is as long as the training of 4 steps or longer"),
        ("optimizer.warmup_epochs=1", "optimizer.warmup_epochs=1 is as long as the training of 1 epoch or longer"),
        ("model.depth=0 model.dropout=0.2 model.norm=rms", "model.dropout=0.2 and model.norm=rms have no effect"),
    ],
)
@pytest.mark.parametrize("many", [[], ["-m", "seed=1,2"]], ids=["alone", "stack"])
def test_keys_without_effect_are_said(here, words, said, many, caplog):
    classifier._warn.cache_clear()
    small = [word for word in SMALL if "width" not in word or "depth=0" not in words]
    ended = run_script("train.py", [*many, *words.split(), *small, "data=iris", "stack.engine=torch"])
    assert ended.code == 0, ended.err
    assert said in ended.err + caplog.text
