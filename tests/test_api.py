"""`mlpexp.run` and `mlpexp.sweep`: the command line from Python, with the same runs, files and messages."""

import asyncio
import csv
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from scipy import sparse

import mlpexp
from mlpexp import data
from mlpexp.api import given_data, python_settings
from mlpexp.config import checks
from mlpexp.config.overrides import parse
from mlpexp.data import array_files
from mlpexp.runtime import terminal
from mlpexp.runtime.errors import UserError
from mlpexp.store.run_directory import read_result

FAST = {"trainer.max_epochs": 2, "tracking.figures": False, "stack.engine": "torch", "data": "iris"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two widths, two seeds."""
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        mlpexp.sweep({"model.width": [4, 6], "seed": range(2)}, FAST, name="s", **{"tracking.diagnostics": True})
    return mlpexp.load_sweep(place / "multirun" / "s")


# the meaning of settings


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"model.depth": 2}, "model.depth=2"),
        ({"model": {"depth": 2}}, "model.depth=2"),
        ({"optimizer": {"lr": np.float64(0.1)}}, "optimizer.lr=0.1"),
        ({"optimizer.lr": np.float32(0.5)}, "optimizer.lr=0.5"),
        ({"seed": np.int64(3)}, "seed=3"),
        ({"seed": torch.tensor(3)}, "seed=3"),
        ({"model.width": [64, 32]}, "model.width=[64,32]"),
        ({"model.width": np.array([64, 32])}, "model.width=[64,32]"),
        ({"early_stopping.patience": None}, "early_stopping.patience=null"),
        ({"data.shuffle": False}, "data.shuffle=false"),
        ({"data.path": Path("a b.csv")}, 'data.path="a b.csv"'),
        ({"data.target": "5"}, 'data.target="5"'),
        ({"optimizer": "adam"}, "optimizer=adam"),
        ({"trainer.gradient_clip_val": 1.0}, "++trainer.gradient_clip_val=1.0"),
        ({"callbacks": {"mine": {"_target_": "a.B"}}}, "++callbacks.mine._target_=a.B"),
        ("model.depth=2", "model.depth=2"),
    ],
    ids=str,
)
def test_a_python_value_is_written_as_the_command_line_has_it(given, text):
    assert python_settings.setting_overrides(given) == [text]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"model.width": [64, 32]}, "model.width=64,32"),
        ({"model.width": [[64, 32], [128]]}, "model.width=[64,32],[128]"),
        ({"model": {"depth": (1, 2)}}, "model.depth=1,2"),
        ({"seed": range(5)}, "seed=range(0,5,1)"),
        ({"optimizer.lr": np.logspace(-2, 0, 3)}, "optimizer.lr=0.01,0.1,1.0"),
        ({"optimizer.lr": pd.Series([0.1, 0.5])}, "optimizer.lr=0.1,0.5"),
        ({"early_stopping.patience": [None, 3]}, "early_stopping.patience=null,3"),
        ({"data.target": ["a,b", "c"]}, 'data.target="a,b",c'),
        ({"seed": 5}, "seed=5"),
        ("seed=range(5)", "seed=range(5)"),
    ],
    ids=str,
)
def test_a_key_of_a_grid_lists_its_values(given, text):
    assert python_settings.grid_overrides(given) == [text]


def test_of_a_key_that_is_given_twice_the_later_value_counts():
    given = python_settings.setting_overrides({"seed": 1, "model": {"depth": 2}}, "seed=2", {"seed": 3})
    assert given == ["model.depth=2", "seed=3"]


@pytest.mark.parametrize("value", ["tanh", "a 'b\"", "x,y", "null", "1e3", "é", "${seed}", "[1]", "a=b", "", " "])
def test_a_text_stays_the_text_that_it_is(value):
    (text,) = python_settings.setting_overrides({"data.target": value})
    assert str(parse(text).value).replace("\\${", "${") == value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlpexp.run(seed=[1, 2]), r"seed: \[1, 2\] is a list.*call mlpexp.sweep\(\{'seed': \[1, 2\]\}\)"),
        (lambda: mlpexp.run({"model.activation": ["relu", "tanh"]}), "call mlpexp.sweep"),
        (lambda: mlpexp.run("seed=1,2"), "'seed=1,2' is a list: call mlpexp.sweep for it"),
        (lambda: mlpexp.run(model={"dept": 2}), "unknown key 'model.dept'; did you mean model.depth?"),
        (lambda: mlpexp.run(seed=-1, model={"depth": -2}), "(?s)model.depth=-2.*seed=-1|seed=-1.*model.depth=-2"),
        (lambda: mlpexp.run({"model.depth": print}), "model.depth: a value is a number, a text, None"),
        (lambda: mlpexp.run(optimizer="adan"), "unknown optimizer 'adan'; choose one of"),
        (lambda: mlpexp.run(3), "3 is not|is no setting"),
        (lambda: mlpexp.sweep({"seed": []}), "the grid names no value at all"),
        (lambda: mlpexp.sweep({"seed": "range(5)"}), r"a grid lists Python values.*range\(5\)"),
        (lambda: mlpexp.sweep({"model.width": [8, "x"]}, name="s"), "model.width=x.*of 2 runs"),
        (lambda: mlpexp.load_sweep("nowhere"), "nowhere does not exist; give a sweep"),
        (lambda: mlpexp.load_run("nowhere"), "nowhere holds no finished run"),
    ],
)
def test_a_mistake_is_one_exception_with_the_command_lines_text(call, message, here, capsys):
    with pytest.raises(mlpexp.UserError, match=message):
        call()
    assert capsys.readouterr() == ("", "")
    assert not list(here.iterdir())


def test_the_messages_are_those_of_the_command_line(train):
    said = train("model.depth=x optimizer.lr=0 seed=1.5").lines
    with pytest.raises(mlpexp.ConfigError) as raised:
        mlpexp.run(model={"depth": "x"}, optimizer={"lr": 0}, seed=1.5)
    assert [f"train.py: {problem}" for problem in raised.value.problems] == said


# the same runs and files as from the shell


def test_a_run_has_the_numbers_and_files_of_the_command_line(train, here):
    words = "trainer.max_epochs=2 tracking.figures=false data=iris model.width=5"
    assert train(f"{words} hydra.run.dir=shell").code == 0
    run = mlpexp.run(model={"width": 5}, trainer={"max_epochs": 2}, tracking={"figures": False}, data="iris")
    shell, own = read_result(here / "shell"), read_result(run.directory)
    assert (own.identity, own.metrics) == (shell.identity, shell.metrics)
    names = [
        {str(path.relative_to(place)) for path in place.rglob("*") if not path.name.startswith("events.")}
        for place in (here / "shell", run.directory)
    ]
    assert names[0] == names[1]
    assert run.directory.parts[0] == "outputs"


def test_the_shell_continues_a_sweep_of_python_and_python_one_of_the_shell(train, here):
    first = mlpexp.sweep({"model.width": [4, 6]}, FAST, name="s")
    before = {run.directory: (run.directory / "result.json").stat().st_mtime_ns for run in first}
    words = "trainer.max_epochs=2 tracking.figures=false stack.engine=torch data=iris"
    ended = train(f"-m name=s {words} model.width=4,6 seed=0,1")
    assert ended.code == 0, ended.err
    again = mlpexp.sweep({"model.width": [4, 6], "seed": range(3)}, FAST, name="s")
    assert len(again) == 6
    assert [row["status"] for row in again.table] == ["ok"] * 6
    assert all((place / "result.json").stat().st_mtime_ns == stamp for place, stamp in before.items())


def test_a_run_is_resumed(here):
    run = mlpexp.run(FAST)
    longer = mlpexp.run(resume=run.directory, trainer={"max_epochs": 4})
    assert longer.directory == run.directory
    assert longer.result.epochs == longer.curves().num_rows == 4


def test_callbacks_and_trainer_flags_are_given_as_python_values(here):
    callbacks = {"mine": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}}
    run = mlpexp.run(FAST, callbacks=callbacks, trainer={"gradient_clip_val": 1.0})
    assert run.settings["trainer"]["gradient_clip_val"] == 1.0
    assert run.settings["callbacks"] == callbacks


def test_a_run_that_fails_is_named_and_the_others_are_kept(here):
    grid = {"callbacks.mine._target_": ["lightning.pytorch.callbacks.LearningRateMonitor", "builtins.dict"]}
    with pytest.raises(mlpexp.RunsFailed, match="1 of 2 runs failed") as raised:
        mlpexp.sweep(grid, FAST, name="s")
    results = mlpexp.load_sweep(raised.value.directory)
    assert sorted(row["status"] for row in results.table) == ["failed", "ok"]
    assert results.best()["status"] == "ok"


def test_an_exception_of_a_callback_reaches_the_caller_with_its_own_type(here):
    with pytest.raises(mlpexp.UserError, match=r"callbacks\.mine cannot be built"):
        mlpexp.run(FAST, callbacks={"mine": {"_target_": "builtins.int", "x": 3}})


# inside another program


def test_nothing_of_the_program_is_changed(here, capsys):
    root = logging.getLogger()
    outside = object()
    HydraConfig.instance().cfg, GlobalHydra.instance().hydra = outside, outside

    def state():
        return (
            HydraConfig.instance().cfg,
            GlobalHydra.instance().hydra,
            sorted(ConfigStore.instance().repo),
            list(root.handlers),
            root.level,
            signal.getsignal(signal.SIGINT),
            Path.cwd(),
            dict(os.environ),
            sys.argv[:],
            torch.get_num_threads(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            torch.is_grad_enabled(),
        )

    try:
        before = state()
        mlpexp.run(FAST)
        results = mlpexp.sweep({"seed": [0, 1]}, FAST)
        results.predict(np.zeros((2, 4)))
        assert state() == before
    finally:
        HydraConfig.instance().cfg = GlobalHydra.instance().hydra = None
    assert capsys.readouterr() == ("", "")


def test_it_works_in_a_thread_and_in_a_running_event_loop(here):
    found = []

    async def inside():
        found.append(mlpexp.sweep({"seed": [0, 1]}, FAST, name="loop"))

    threads = [threading.Thread(target=lambda n=n: found.append(mlpexp.run(FAST, seed=n))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(inside())
    assert len(found) == 3
    assert found[0].metrics != found[1].metrics


def test_a_warning_is_logged(here, monkeypatch):
    handler = logging.Handler()
    said: list[str] = []
    monkeypatch.setattr(terminal.log, "handlers", [handler])
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    results = mlpexp.sweep({"optimizer.lr": [0.1, 1e30]}, FAST, model={"activation": "relu"})
    assert [row["status"] for row in results.table] == ["ok", "diverged"]
    assert any("1 of 2 runs diverged" in line for line in said)


def test_ctrl_c_is_a_keyboard_interrupt_and_the_same_call_continues(here, monkeypatch):
    from mlpexp.training import single_run

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(single_run.TableDataModule, "setup", interrupt)
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT"):
            mlpexp.run(FAST)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert mlpexp.run(FAST).status == "ok"


def test_importing_the_package_is_light():
    code = "import sys, mlpexp; print(sorted({'torch', 'numpy', 'hydra', 'pydantic', 'omegaconf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_function_and_the_package_of_the_same_name_are_both_there():
    from mlpexp import sweep
    from mlpexp.sweep import grid

    assert callable(sweep)
    assert sweep.grid is grid


# results


def test_the_command_that_a_notebook_shows_is_a_call_from_python(swept):
    html = swept._repr_html_()
    assert "mlpexp.sweep([" in html and "train.py" not in html


def test_the_table_is_results_csv(swept):
    with (swept.directory / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in swept.table] == [row["name"] for row in rows]
    assert [row["val/loss"] for row in swept.table] == [float(row["val/loss"]) for row in rows]
    frame, other = swept.table.to_pandas(), swept.table.to_polars()
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(other, pl.DataFrame)
    assert frame["val/acc"].tolist() == other["val/acc"].to_list() == [row["val/acc"] for row in swept.table]


def test_the_curves_are_all_epochs_of_all_runs(swept):
    curves = swept.curves().to_pandas()
    assert curves[["run", "model.width", "seed", "epoch"]].to_numpy().tolist() == [
        [run, width, seed, epoch]
        for run, (width, seed) in enumerate([(4, 0), (4, 1), (6, 0), (6, 1)])
        for epoch in (0, 1)
    ]
    for run in swept:
        own = pd.read_csv(run.directory / "metrics.csv")
        mine = curves[curves.run == swept.table[[r["name"] for r in swept.table].index(run.directory.name)]["run"]]
        assert mine[list(own.columns)].reset_index(drop=True).equals(own)
        assert run.curves().to_pandas().equals(own)
    assert swept.curves().to_polars().shape == curves.shape


def test_layers_are_those_of_each_run(swept):
    layers = swept.layers().to_pandas()
    assert len(layers) == 4 * 3 * 2
    own = swept[2].layers().to_pandas()
    assert layers[layers.run == 2][list(own.columns)].reset_index(drop=True).equals(own)
    assert swept.layers().to_polars().shape == layers.shape


def test_the_best_run_is_the_reports(swept):
    from mlpexp.analysis.ranking import best_run
    from mlpexp.analysis.sweep_analysis import analyse

    analysis = analyse(swept.directory)
    name = analysis.study.names[best_run(analysis.study, analysis.ranking)]
    assert swept.best()["name"] == name
    assert swept.select({"model.width": 4}).best()["model.width"] == 4


def test_the_model_gives_the_recorded_test_accuracy(swept):
    for run in swept:
        inputs, labels = run.data.part("test")
        found = (run.model()(inputs).argmax(-1) == labels).double().mean().item()
        assert found == pytest.approx(run.metrics["test/acc"])
    module = swept.model()
    assert type(module).__mro__[1] is torch.nn.Module
    assert swept.model(swept.best()).state_dict().keys() == module.state_dict().keys()
    torch.nn.functional.cross_entropy(module(inputs), labels).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_weights_are_stacked_in_the_order_of_the_runs(swept):
    some = swept.select({"model.width": 6})
    weights = some.weights()
    assert weights.runs == [2, 3]
    for place, run in enumerate(some):
        state = torch.load(run.directory / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for name, value in state.items():
            assert torch.equal(weights[name][place], value)
    with pytest.raises(mlpexp.UserError, match=r"different shapes; select runs of one shape, by model\.width"):
        swept.weights()


def test_predictions_of_all_runs_are_those_of_predict_py(swept, tmp_path):
    from mlpexp.evaluation.predict import predict

    frame = pd.DataFrame(swept.data.table.inputs[:7], columns=swept.data.table.names)
    path = tmp_path / "new.csv"
    frame.to_csv(path, index=False)
    shares, classes = swept.predict_proba(frame), swept.predict(frame)
    assert shares.shape == (4, 7, 3)
    assert np.array_equal(swept.predict_proba(frame.to_numpy()), shares)
    for place, run in enumerate(swept):
        rows = list(csv.DictReader(predict(run.directory, [path]).csv(None).splitlines()))
        assert [row["class"] for row in rows] == classes[place].tolist() == run.predict(frame).tolist()
        assert np.allclose(run.predict_proba(frame), shares[place], atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 3)), "X has 3 columns, the network was trained on 4"),
        (np.zeros(4), r"X.reshape\(-1, 1\)"),
        (np.full((2, 4), np.nan), "not finite"),
        (np.array([["a"] * 4]), "not numbers"),
        (pd.DataFrame({"a": [1.0]}), "lacks the columns|has 1 columns"),
        (sparse.csr_matrix(np.eye(4)), r"^X is sparse \(csr_matrix\); give X.toarray\(\)$"),
        ([[1.0, 2.0], [3.0]], "^X has rows of different lengths"),
    ],
    ids=["columns", "one axis", "NaN", "texts", "names", "sparse", "rows"],
)
def test_samples_that_do_not_fit_are_refused(swept, samples, message):
    with pytest.raises(mlpexp.UserError, match=message):
        swept.predict(samples)


def test_a_smaller_grid_in_the_directory_of_a_larger_one_has_its_own_best_run(here):
    larger = mlpexp.sweep({"model.width": [2, 4, 16], "seed": [0, 1]}, FAST, name="s")
    width = larger.best()["model.width"]
    smaller = mlpexp.sweep({"model.width": [w for w in (2, 4, 16) if w != width], "seed": [0, 1]}, FAST, name="s")
    assert len(smaller) == 4
    best, known = smaller.best(), {row["name"] for row in smaller.table}
    assert best["name"] in known
    assert smaller[best].data is not None
    assert {member["name"] for member in smaller.ensemble("all").members} == known
    assert "4 runs" in smaller._repr_html_()


def test_a_selection_names_what_was_swept(swept):
    assert [row["run"] for row in swept.select({"model": {"width": 4}, "seed": [0, 1]}).table] == [0, 1]
    with pytest.raises(mlpexp.UserError, match=r"model.with was not swept.*did you mean model.width\?"):
        swept.select({"model.with": 4})
    with pytest.raises(mlpexp.UserError, match=r"no run of .* has model.width=7"):
        swept.select({"model.width": 7})
    with pytest.raises(mlpexp.UserError, match="no run 9"):
        swept[9]


def test_a_sweep_in_one_table_has_curves_and_says_that_it_keeps_no_weights(here):
    results = mlpexp.sweep({"seed": range(2)}, FAST, record="table")
    assert results.curves().num_rows == 4
    assert results[1].metrics["val/loss"] == results.table[1]["val/loss"]
    for ask in (results.weights, results.model, lambda: results.data, lambda: results.predict(np.zeros((1, 4)))):
        with pytest.raises(mlpexp.UserError, match="record=table"):
            ask()


def test_a_notebook_shows_the_results_and_the_report(swept):
    for shown in (swept, swept[0], swept.table, swept.curves()):
        assert "<" in shown._repr_html_()
    report = swept.report()
    assert report.page.is_file()
    html = report._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert "sandbox" in html
    assert html.count("<") == 2, "the page is escaped"
    assert report.sentences[0] in str(report)


# data that a program gives


def frame():
    generator = np.random.default_rng(0)
    size = generator.normal(size=60)
    colour = generator.choice(["red", "green, pale", "7"], 60)
    return pd.DataFrame({"size": size, "colour": colour, "flag": size > 1, "kind": np.where(size > 0, "big", "small")})


def test_a_frame_is_trained_as_a_file_with_its_content(here, train):
    given = frame()
    run = mlpexp.run({key: value for key, value in FAST.items() if key != "data"}, data=given, target="kind")
    assert run.class_names == ["big", "small"]
    assert run.data.features.category_names == ["colour"]
    assert sorted(run.data.features.values[0]) == ["7", "green, pale", "red"]
    file = Path(run.settings["data"]["path"])
    assert file.parent == Path("outputs/data")
    assert np.array_equal(pd.read_csv(file)["size"], given["size"])
    words = "trainer.max_epochs=2 tracking.figures=false data=csv data.target=kind 'data.categorical=[colour]'"
    assert train(f"{words} data.path={file} hydra.run.dir=shell").code == 0
    assert read_result(here / "shell").identity == run.result.identity
    assert run.predict(given.drop(columns="kind")).tolist() == mlpexp.load_run(run.directory).predict(given).tolist()


def test_the_identity_follows_the_content_of_a_frame_and_not_its_type(here):
    settings = {key: value for key, value in FAST.items() if key != "data"}
    given = frame()
    columns = {name: given[name].tolist() for name in given}
    more = given.assign(size=given["size"] + 1e-12)
    kinds = [given, pl.DataFrame(given.to_dict("list")), columns, more, pa.Table.from_pandas(given)]
    found = [given_data.settings(data, "kind") for data in kinds]
    assert found[0] == found[1] == found[2] == found[4] != found[3]
    assert len(list(Path("outputs/data").iterdir())) == 2
    mlpexp.sweep({"seed": [0]}, settings, data=given, target="kind", name="s")
    with pytest.raises(mlpexp.UserError, match="data"):
        mlpexp.sweep({"seed": [0]}, settings, data=kinds[3], target="kind", name="s")


TEXTS = ["b", 'a"q', "c\nd", "é", "NA", "None", "nan", "a,b", "=1+1", "True", "01", "1"]


def test_texts_and_numbers_of_a_frame_stay_what_they_are(here):
    size = 4 * len(TEXTS)
    given = pd.DataFrame({0: [1e300, 1 / 3, -0.0, 5e-324] * len(TEXTS), "text": TEXTS * 4, 1: TEXTS * 4})
    found = given_data.settings(given, 1)  # a name that is a number
    keys = {key.removeprefix("data."): value for key, value in found.items() if key != "data"}
    table = data.load(checks.parse({"data": {"name": "csv", **keys}}).data)
    assert table.inputs[:, 0].tolist() == given[0].tolist()
    assert table.categories[:, 0].tolist() == given["text"].tolist()
    assert [table.class_names[k] for k in table.labels] == given[1].tolist()
    assert len(table.labels) == size


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("kind", ["torch", "texts"])
def test_arrays_are_trained_exactly_and_found_again(kind, here):
    generator = np.random.default_rng(1)
    inputs, labels = generator.normal(size=(60, 3)).astype(np.float32), generator.integers(0, 2, 60)
    pairs = {
        "torch": (torch.tensor(inputs), torch.tensor(labels)),
        "texts": (inputs, np.array(["no", "yes"])[labels]),
    }
    settings = {key: value for key, value in FAST.items() if key != "data"}
    again = mlpexp.sweep({"seed": [0]}, settings, data=pairs[kind], name="a")
    assert np.array_equal(again.data.table.inputs, inputs)
    assert again.data.labels.tolist() == labels.tolist()
    assert set(np.unique(again.predict(inputs))) <= ({"no", "yes"} if kind == "texts" else {"0", "1"})


def test_a_tensor_is_taken_whatever_its_type_and_with_a_gradient(here):
    values = torch.arange(80.0).reshape(40, 2)
    labels = torch.arange(40) % 2
    expected = given_data.settings((values.numpy(), labels.numpy()), None)
    for inputs in (values, values.clone().requires_grad_(), values.bfloat16(), values.half()):
        assert given_data.settings((inputs, labels), None) == expected


def test_a_regression_is_predicted_in_the_units_of_its_targets(here):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(200, 3))
    values = 1000 + 50 * inputs @ np.array([[1.0, 0.0], [2.0, 1.0], [0.0, -1.0]])
    settings = {key: value for key, value in FAST.items() if key != "data"} | {"data.task": "regression"}
    grid = {"model.width": [4, 8], "seed": [0, 1]}
    results = mlpexp.sweep(grid, settings, {"trainer.max_epochs": 20}, data=(inputs, values), name="a")
    found = results.predict(inputs)
    assert found.shape == (4, 200, 2)
    assert np.corrcoef(found[0, :, 0], values[:, 0])[0, 1] > 0.9
    assert abs(found.mean() - 1000) < 10
    assert np.allclose(results[3].predict(inputs), found[3], rtol=1e-5)
    with pytest.raises(mlpexp.UserError, match="have no probabilities"):
        results.predict_proba(inputs)
    frame = pd.DataFrame(inputs, columns=list("abc")).assign(y=values[:, 0])
    one = mlpexp.run(settings, data=frame, target="y")
    assert one.predict(frame).shape == (200,)
    assert one.predict(frame.drop(columns="y")).mean() == pytest.approx(1000, abs=50)


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        (frame(), None, "which column holds the classes.*target='kind'"),
        (frame(), "sort", "target='sort' is no column"),
        (frame().assign(size=None), "kind", "size"),
        (frame().assign(when=pd.Timestamp("2020-01-01")), "kind", "column when, row 0 holds Timestamp"),
        (pd.DataFrame(np.zeros((3, 2)), columns=["a", "a"]), "a", "column 'a' twice"),
        ((np.zeros((4, 2)), np.zeros(3)), None, "X has 4 samples and y 3"),
        ((np.zeros((4, 2, 2)), np.zeros(4)), None, r"X.reshape\(len\(X\), -1\)"),
        ((np.full((4, 2), np.inf), np.zeros(4)), None, "row 0, column 0 is inf"),
        ((np.zeros((40, 2)), np.linspace(0, 1, 40)), None, "looks like regression"),
        ((np.zeros((4, 2)), [0, 1, None, 1]), None, "missing value"),
        ((np.ma.masked_less(np.arange(80.0).reshape(40, 2), 3), [0, 1] * 20), None, "X has masked values"),
        ((np.zeros((4, 2)), np.ma.masked_equal([0, 1, 0, 2], 2)), None, "y has masked values"),
        ((sparse.csr_matrix(np.eye(4)), [0, 1, 0, 1]), None, r"X is sparse \(csr_matrix\); give X.toarray\(\)"),
        ((np.zeros((40, 2)), np.zeros(40, int)), None, "^data=npz has only one class, so there is nothing to learn"),
        ((np.zeros((4, 2)), np.zeros(4)), "y", "leave target out"),
        (pl.DataFrame({"a": [1.0], "y": [0]}).lazy(), "y", r"a LazyFrame.*give frame.collect\(\)$"),
        (3, None, "data is int; give a DataFrame"),
        ("irs", None, "unknown data 'irs'"),
        ("missing.csv", "y", "missing.csv does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(data, target, message, here):
    with pytest.raises(mlpexp.UserError, match=message) as raised:
        mlpexp.run({key: value for key, value in FAST.items() if key != "data"}, data=data, target=target)
    assert len(str(raised.value).splitlines()) == 1


def test_whole_numbers_of_arrays_that_double_precision_merges_are_warned_of(caplog):
    many = np.arange(40)[:, None] + np.array([[0, 2**60]])
    array_files.to_bytes(many, np.arange(40) % 2)
    assert [record.message for record in caplog.records] == [
        "data=(X, y): X: column 1 has whole numbers with so many digits that 39 different ones are equal to others in "
        "double precision; subtract a constant from them"
    ]


def test_labels_beyond_whole_numbers_stay_different_classes(here):
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.array([1e19, 2e19, 3e19] * 20)
    assert mlpexp.run(FAST | {"trainer.max_epochs": 1}, data=(X, y)).class_names == ["1e+19", "2e+19", "3e+19"]


def test_a_dry_run_returns_the_plan_as_a_table_and_writes_nothing(here):
    small = {"data": "iris", "trainer.max_epochs": 1, "model.width": 4, "stack.engine": "torch"}
    grid = {"seed": [0, 1], "optimizer": ["adam", "lbfgs"]}
    plan = mlpexp.sweep(grid, small, name="s", dry_run=True)
    assert [(row["seed"], row["optimizer"], row["status"], row["stack"]) for row in plan.table] == [
        (0, "adam", "new", 0), (0, "lbfgs", "new", None), (1, "adam", "new", 0), (1, "lbfgs", "new", None)
    ]  # fmt: skip
    assert "evaluates the loss" in plan.table[1]["alone"]
    assert "4 runs" in str(plan) and "nothing was trained" in str(plan) and "<table>" in plan._repr_html_()
    assert list(here.iterdir()) == []
    done = mlpexp.sweep({"seed": [0]}, small, {"optimizer": "adam"}, name="s")
    again = mlpexp.sweep({"seed": [0, 1]}, small, {"optimizer": "adam", "dry_run": True}, name="s")
    assert [(row["status"], row["name"]) for row in again.table] == [
        ("ok" if done.table[0]["status"] == "ok" else "chance", done.table[0]["name"]), ("new", again.table[1]["name"])
    ]  # fmt: skip
    assert [row["stack"] for row in again.table] == [None, 0]
    assert len(mlpexp.load_sweep("multirun/s")) == 1
    one = mlpexp.run(small, dry_run=True)
    assert [row["status"] for row in one.table] == ["new"] and not (here / "outputs").exists()
    search = {"hydra/sweeper": "optuna", "hydra.sweeper.n_trials": 4}
    found = mlpexp.sweep("optimizer.lr=interval(0.01,0.1)", small, search, dry_run=True)
    assert (len(found), "search of 4 trials" in str(found)) == (0, True)
    with pytest.raises(UserError, match="leave out hydra/launcher"):
        mlpexp.sweep({"seed": [0, 1]}, small, {"hydra/launcher": "basic"}, dry_run=True)
    with pytest.raises(UserError, match="must be > 0"):
        mlpexp.run(small, {"optimizer.lr": -1}, dry_run=True)
    assert sorted(path.name for path in here.iterdir()) == ["multirun"]


def test_a_disk_that_cannot_be_written_is_an_error_of_mlpexp(here, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "outputs/data/x.npz")

    monkeypatch.setattr("mlpexp.store.atomic_files.write", refused)
    with pytest.raises(mlpexp.Error, match=r"Read-only file system: outputs/data/x\.npz; make room, or choose"):
        mlpexp.run(data=(np.eye(6), [0, 1] * 3))
