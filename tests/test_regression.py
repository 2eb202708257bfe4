"""A regression from the user's table to predictions, and networks that cannot be rebuilt."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from conftest import run_script
from sklearn.linear_model import LinearRegression
from torch.nn import functional as F

from mlpexp import data, load_results
from mlpexp.config import checks
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.data_config import DataConfig
from mlpexp.runtime.errors import UserError
from mlpexp.store import checkpoint_files, file_names, run_directory

SMALL = "trainer.max_epochs=3 tracking.figures=false"


def write_table(path, rows=200, extra=()):
    """Two targets that are linear in two numbers and a colour, of different size, with noise, and a weight."""
    rng = np.random.default_rng(5)
    size, age = rng.normal(50, 10, rows), rng.uniform(0, 80, rows)
    colour = rng.choice(["red", "green", "blue"], rows)
    price = 1000 * size - 300 * age + 5000 * (colour == "red") + rng.normal(0, 500, rows)
    rent = 3 + 0.01 * size + rng.normal(0, 0.02, rows)
    weight = rng.choice([0.0, 1.0, 4.0], rows)
    columns = {"size": size, "age": age, "colour": colour, "price": price, "rent": rent, "weight": weight}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *extra])
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return columns


@pytest.fixture
def table(here):
    return write_table(here / "houses.csv")


OF_TABLE = "data=csv data.path=houses.csv data.task=regression"
ONE = f"{OF_TABLE} data.target=price data.drop=[rent,weight]"
TWO = f"{OF_TABLE} data.target=[price,rent] data.drop=[weight]"


def test_targets_are_standardised_by_the_training_part(table):
    cfg = DataConfig(name="csv", path="houses.csv", task="regression", target=("price", "rent"), drop=("weight",))
    prepared = data.prepare(cfg)
    train = prepared.labels[torch.from_numpy(prepared.split.train)]
    assert train.shape == (140, 2)
    assert train.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert train.std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-6)
    back = prepared.description.in_target_units(prepared.labels.numpy())
    np.testing.assert_allclose(back, np.stack([table["price"], table["rent"]], 1), rtol=1e-5)


def test_a_linear_network_finds_what_linear_regression_finds(train, here, table):
    settings = f"{ONE} model.depth=0 trainer.max_epochs=200 optimizer.lr=0.3 data.batch_size=140 metrics=[mae,r2]"
    ended = train(f"-m {settings} seed=0,1 name=s")
    assert ended.code == 0, ended.err
    names = {"target": "price", "drop": ("rent", "weight")}
    prepared = data.prepare(DataConfig(name="csv", path="houses.csv", task="regression", **names))
    fitted = LinearRegression().fit(*(part.numpy() for part in prepared.part("train")))
    inputs, targets = (part.numpy() for part in prepared.part("test"))
    errors = (fitted.predict(inputs) - targets) * prepared.description.target_scale
    found = load_results(here / "multirun/s")[1]
    assert found["test/rmse"] == pytest.approx(float((errors**2).mean() ** 0.5), rel=0.05)
    assert found["test/r2"] > 0.98


def test_a_run_is_evaluated_predicted_and_exported_in_the_units_of_its_targets(train, here, table):
    assert train(f"{TWO} {SMALL} metrics=[mae,r2] hydra.run.dir=run").code == 0
    metrics = run_directory.read_result(here / "run").metrics
    ended = run_script("evaluate.py", ["run", "--no-embedding"])
    assert ended.code == 0, ended.err
    assert "are those of result.json, to the last bit" in ended.out
    content = json.loads((here / "run/evaluation/metrics.json").read_text())
    assert content["metrics"]["rmse"] == metrics["test/rmse"]
    assert [target["name"] for target in content["targets"]] == ["price", "rent"]
    with (here / "run/evaluation/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [table["price"][int(row["sample"])] for row in rows]
    assert [float(row["true price"]) for row in rows] == pytest.approx(wanted, rel=1e-5)
    assert (here / "run/evaluation/predicted.png").is_file()
    squares = [float(row[f"error {name}"]) ** 2 for row in rows for name in ("price", "rent")]
    assert np.mean(squares) ** 0.5 == pytest.approx(metrics["test/rmse"], rel=1e-5)

    given = here / "new.csv"
    given.write_text("size,age,colour\n50,10,red\n40,70,violet\n")
    ended = run_script("predict.py", ["run", "--data", "new.csv"])
    assert ended.code == 0, ended.err
    predicted = list(csv.DictReader(io.StringIO(ended.out)))
    assert list(predicted[0]) == ["sample", "price", "rent"]
    assert abs(float(predicted[0]["price"]) - 52_000) < 20_000
    assert run_script("predict.py", ["run", "--data", "new.csv", "--top", "2"]).code == 2

    ended = run_script("evaluate.py", ["run", "--data", "houses.csv", "--no-embedding"])
    assert ended.code == 0, ended.err
    ended = run_script("evaluate.py", ["run", "--data", "new.csv"])
    assert ended.code == 2
    assert "no column price, rent" in ended.line

    pytest.importorskip("onnxruntime")
    import onnxruntime

    ended = run_script("export.py", ["run", "--format", "onnx"])
    assert ended.code == 0, ended.err
    session = onnxruntime.InferenceSession(here / "run/model.onnx")
    names = session.get_modelmeta().custom_metadata_map
    assert json.loads(names["target_names"]) == ["price", "rent"]
    colours = json.loads(names["category_columns"])["colour"]
    given = {"numbers": np.array([[50.0, 10.0]]), "categories": np.array([[colours.index("red")]])}
    [values] = session.run(["values"], given)
    assert values[0].tolist() == pytest.approx([float(predicted[0][name]) for name in ("price", "rent")], rel=1e-5)


def test_sweeps_mix_targets_losses_and_weights_and_their_runs_have_the_bits_of_the_run_alone(train, here, table):
    cases = f"{OF_TABLE} data.target=price data.drop=[rent] {SMALL} data.seed=0,1 optimizer=adam optimizer.lr=0.01"
    names = "name=s hydra.sweep.subdir=${hydra.job.num}"
    ended = train(f"-m {names} {cases} data.sample_weight=null,weight loss.name=mse,huber seed=0,1".split())
    assert ended.code == 0, ended.err
    assert "best of 4 configurations by mean val/rmse" in ended.out
    assert "test/rmse" in ended.out
    assert len(load_results(here / "multirun/s")) == 16
    alone = cases.replace("data.seed=0,1", "data.seed=1")
    assert train(f"{alone} data.sample_weight=weight loss.name=huber hydra.run.dir=run").code == 0
    wanted = run_directory.read_result(here / "run")
    [twin] = [
        path.parent
        for path in (here / "multirun/s").glob("*/result.json")
        if run_directory.read_result(path.parent).identity == wanted.identity
    ]
    assert (twin / file_names.METRICS).read_bytes() == (here / "run" / file_names.METRICS).read_bytes()
    assert run_directory.read_result(twin).metrics == wanted.metrics
    ended = run_script("report.py", ["multirun/s"])
    assert ended.code == 0, ended.err
    assert "validation RMSE" in (here / "multirun/s/report/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("variant", ["torch_nn", "backprop"])
def test_weights_of_samples_are_those_of_a_weighted_mean_in_torch(train, here, table, variant):
    settings = f"{OF_TABLE} data.target=price data.drop=[rent] data.sample_weight=weight model.depth=0 {SMALL}"
    assert train(f"{settings} model.variant={variant} hydra.run.dir=run").code == 0
    content = checkpoint_files.load(here / "run" / file_names.LAST)
    cfg, inputs_size, _ = checkpoint_files.described(here / "run" / file_names.LAST, content)
    prepared = data.prepare(cfg.data)
    assert prepared.features.names == ["size", "age"]  # the weight is no feature
    inputs, targets = prepared.part("train")
    weights = prepared.sample_weights[torch.from_numpy(prepared.split.train)]
    from mlpexp import models

    start = models.build(cfg, inputs_size, 1, prepared.description).parameter_values()
    weight, bias = (tensor.clone().requires_grad_() for tensor in start.values())
    optimizer = torch.optim.SGD([weight, bias], lr=0.1)
    for epoch in range(3):
        order = epoch_order(len(targets), 0, epoch)
        for x, y, w in Batches(inputs, targets, 32, lambda order=order: order, weights):
            loss = (w * F.mse_loss(F.linear(x, weight, bias), y, reduction="none")[:, 0]).sum() / w.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for ours, theirs in zip(content["state_dict"].values(), (weight, bias), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_a_monitor_that_the_validation_part_does_not_define_is_named_alone_in_a_sweep_and_in_the_report(train, here):
    values = np.random.default_rng(3).normal(size=60).tolist()
    (here / "houses.csv").write_text("\n".join(["size,price", *(f"{x},{2 * x}" for x in values)]))
    (here / "same.csv").write_text("\n".join(["size,price", *(f"{x},1" for x in values)]))
    settings = f"{OF_TABLE} data.target=price data.val_path=same.csv monitor=val/r2 optimizer.lr=0.02 {SMALL}"
    said = "val/r2 is not defined for this validation part"
    ended = train(f"{settings} hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert f"WARNING: {said}" in ended.err
    result = run_directory.read_result(here / "run")
    assert (result.status, result.epoch) == ("ok", 2)
    ended = train(f"-m {settings} seed=0,1 name=s")
    assert ended.code == 0, ended.err
    assert f"2 of 2 runs: {said}" in " ".join(ended.err.split())
    assert load_results(here / "multirun/s")[0]["message"] == result.message
    ended = run_script("report.py", ["multirun/s"])
    assert ended.code == 0, ended.err
    assert f"Nothing can be compared: {said}" in " ".join(ended.out.split())


def test_a_batch_whose_weights_are_all_zero_changes_nothing_alone_and_in_a_stack(train, here):
    rng = np.random.default_rng(3)
    rows = [(x, 2 * x, float(i % 20 < 2)) for i, x in enumerate(rng.normal(size=60).tolist())]
    (here / "houses.csv").write_text("\n".join(["size,price,weight", *(",".join(map(str, row)) for row in rows)]))
    settings = f"{OF_TABLE} data.target=price data.sample_weight=weight data.batch_size=4 model.depth=0 {SMALL}"
    for variant in ("torch_nn", "autograd", "backprop"):
        assert train(f"{settings} model.variant={variant} hydra.run.dir={variant}").code == 0
    wanted = run_directory.read_result(here / "torch_nn")
    assert wanted.status == "ok"
    assert run_directory.read_result(here / "backprop").metrics == pytest.approx(wanted.metrics, rel=1e-4)
    assert run_directory.read_result(here / "autograd").metrics == pytest.approx(wanted.metrics, rel=1e-4)
    assert train(f"-m {settings} seed=0,1 name=s").code == 0
    assert load_results(here / "multirun/s")[0]["val/loss"] == wanted.metrics["val/loss"]


BAD = {
    "data.target=price": "looks like regression: set data.task=regression",
    "data.task=regression data.target=colour": "is not a number",
    "data.target=[price,rent]": "set data.task=regression",
    "data.task=regression": "which column holds the values to predict?",
    "data.task=regression data.target=prise": "there is no column 'prise'",
    "data.task=regression data.target=price data.sample_weight=heavy": "there is no column 'heavy'",
    "data.task=regression data.target=price data.sample_weight=price": "choose another column",
    "data.task=regression data.target=price data.sample_weight=negative": "is negative",
    "data.task=regression data.target=same": "the same value in every row",
    "data.task=regression data.target=price loss.name=cross_entropy": "is not for values",
    "data.task=regression data.target=gaps": "the value is missing; add it, or remove the line",
    "data.task=regression data.target=price data.sample_weight=gaps": "missing; add it, or remove the line",
    "data.task=regression data.target=price data.sample_weight=dust": "the weight 1e-50 is 0 or infinite in single",
    "data.task=regression data.target=vast": "the target vast has values of the size",
    "data.task=regression data.target=price data.columns=[vast]": "the column vast has values of the size",
    "data.task=regression data.target=price data.columns=[tiny]": "the column tiny has values of the size",
    "data.task=regression data.target=typo": "'oops' is not a number; correct it, or remove the line",
}


@pytest.mark.parametrize("given", BAD)
def test_a_table_that_does_not_fit_is_refused_in_one_line(train, here, given):
    values = np.random.default_rng(0).normal(size=(60, 2)).tolist()
    lines = [
        f"{x},{y},{('red', 'blue')[i % 2]},-1,7,{i or ''},1e-50,{i}e300,{i}e-300,{i or 'oops'}"
        for i, (x, y) in enumerate(values)
    ]
    (here / "houses.csv").write_text("\n".join(["rent,price,colour,negative,same,gaps,dust,vast,tiny,typo", *lines]))
    unused = [name for name in ("gaps", "vast", "tiny", "typo") if name not in given]
    ended = train(f"data=csv data.path=houses.csv {given} data.drop=[{','.join(unused)}]")
    assert ended.code == 2, ended.err
    assert BAD[given] in ended.err.splitlines()[-1]


def test_arrays_hold_values_too(train, here):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 3))
    np.savez(here / "arrays.npz", inputs=inputs, labels=inputs @ rng.normal(size=(3, 2)))
    settings = f"data=npz data.path=arrays.npz {SMALL}"
    assert train(f"{settings} data.task=regression hydra.run.dir=run").code == 0
    assert "test/rmse" in run_directory.read_result(here / "run").metrics
    assert train(settings).code == 2


def test_equal_regressions_have_one_identity():
    from mlpexp.store.identity import identity

    def of(**changes):
        plain = {"data": {"name": "diabetes"}}
        for key, value in changes.items():
            plain.setdefault(key.partition("_")[0], {})
            plain[key.partition("_")[0]] |= {key.partition("_")[2]: value}
        return identity(checks.parse(plain), "d" * 64)

    assert of() == of(loss_name="mse") == of(data_task="regression") != of(loss_name="mae")
    assert identity(checks.parse({"metrics": ["acc", "f1"]}), "d") == identity(checks.parse({"metrics": ["f1"]}), "d")
    assert identity(checks.parse({"metrics": ["acc"]}), "d") == identity(checks.parse({}), "d")


CALLBACK = """
import torch
from lightning.pytorch import Callback

class Other(Callback):
    def setup(self, trainer, module, stage=None):
        module._steps[1] = torch.nn.functional.softsign if module.training else module._steps[1]

    def on_fit_start(self, trainer, module):
        first = module.layers[0]
        module._steps[0] = lambda x: -3 * first(x)
"""


def test_a_network_that_a_callback_changed_is_refused_everywhere(train, here, monkeypatch):
    (here / "changes.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(str(here))
    ended = train(f"{SMALL} hydra.run.dir=run +callbacks.other._target_=changes.Other")
    assert ended.code == 0, ended.err
    (here / "new.csv").write_text(",".join(["0"] * 64) + "\n")
    for script, more in (
        ("evaluate.py", []),
        ("evaluate.py", ["--weights", "last"]),
        ("predict.py", ["--data", "new.csv"]),
        ("export.py", ["--format", "safetensors"]),
    ):
        ended = run_script(script, ["run", *more])
        assert ended.code == 2, (script, ended.out)
        assert "is not the one that was trained" in ended.line
        assert "callbacks" in ended.line
    assert not (here / "run/model.safetensors").exists()
    with pytest.raises(UserError):
        from mlpexp.evaluation.predict import predict

        predict(here / "run", [here / "new.csv"])
