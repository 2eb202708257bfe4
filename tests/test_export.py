"""Exported networks, opened by other programs, say what the network says; a failed check leaves nothing behind."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script, tree
from sklearn.datasets import load_digits

from mlpexp.data.data_description import Description
from mlpexp.data.preprocessing import Features
from mlpexp.evaluation import export as exporting
from mlpexp.evaluation import export_formats, trained_run
from mlpexp.evaluation.export_module import ExportModule
from mlpexp.evaluation.locate_run import CheckpointLocation
from mlpexp.store import file_names, run_directory

RAW = load_digits().data.astype(np.float32)


def export(*arguments: object) -> Outcome:
    return run_script("export.py", [*map(str, arguments)])


@pytest.fixture
def expected(finished: Path) -> np.ndarray:
    """Probabilities of all digits, from the checkpoint's tensors by a formula of our own."""
    w = torch.load(finished / file_names.BEST, weights_only=True)["state_dict"]
    h = torch.tanh(torch.from_numpy(RAW) / 16 @ w["layers.0.weight"].T + w["layers.0.bias"])
    found: np.ndarray = torch.softmax(h @ w["layers.1.weight"].T + w["layers.1.bias"], -1).numpy()
    return found


def test_onnx_takes_raw_samples_in_batches_of_any_size_and_names_its_classes(finished, expected):
    onnxruntime = pytest.importorskip("onnxruntime")
    outcome = export("run", "--format", "onnx")
    assert outcome.code == 0, outcome.err
    assert "compared with the network on 1,000 samples of its data" in outcome.out
    session = onnxruntime.InferenceSession(finished / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 1797):
        (found,) = session.run(["probabilities"], {"numbers": RAW[:count]})
        assert np.allclose(found, expected[:count], atol=1e-6)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["class_names"]) == [str(c) for c in range(10)]
    assert json.loads(described["data"])["image_shape"] == [8, 8]
    assert json.loads(described["metrics"]) == run_directory.read_result(finished).metrics


def test_a_torch_program_needs_nothing_of_ours(finished, expected):
    assert export("run", "--format", "torch", "--out", "net.pt2").code == 0
    extra = {export_formats.METADATA: ""}
    program = torch.export.load("net.pt2", extra_files=extra).module()
    for count in (1, 3, 1797):
        _, found = program(torch.from_numpy(RAW[:count]))
        assert np.allclose(found.numpy(), expected[:count], atol=1e-6)
    assert json.loads(json.loads(extra[export_formats.METADATA])["class_names"])[3] == "3"


def test_safetensors_hold_the_weights_to_the_bit_and_how_to_scale(finished):
    safetensors = pytest.importorskip("safetensors")
    assert export("run", "--format", "safetensors").code == 0
    weights = torch.load(finished / file_names.BEST, weights_only=True)["state_dict"]
    with safetensors.safe_open(finished / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(name), weights[name]) for name in weights)
        features = Features(**json.loads(file.metadata()["features"]))
    assert set(features.scale) == {16.0}


NAMES = ["relu", "leaky_relu", "gelu", "silu", "elu", "softplus", "sine", "sigmoid", "swiglu"]


@pytest.mark.parametrize("activation", NAMES)
def test_the_graph_is_the_network_whatever_its_activation(activation):
    run = _untrained(f"model.activation={activation}")
    raw, expected, _ = exporting.reference_samples(run)
    assert torch.allclose(ExportModule(run)(*raw)[0], expected, atol=1e-6)


MIXED = Features(
    names=["age", "size"],
    shift=[40.0, 1e6],
    scale=[10.0, 0.5],
    fill=[38.0, 1e6],
    category_names=["colour", "shape"],
    values=[["blue", "red"], ["round", "square", "thin"]],
    category_fill=["red", "thin"],
)


def _untrained(*overrides: str, features: Features | None = None, classes: int = 3) -> trained_run.TrainedRun:
    from mlpexp import models
    from mlpexp.config import checks

    plain: dict = {}
    for item in overrides:
        key, _, value = item.partition("=")
        group, _, name = key.partition(".")
        plain.setdefault(group, {})[name] = value
    features = features or Features(names=["a", "b"], shift=[1.0, -1.0], scale=[2.0, 0.5])
    names = [f"class {c}" for c in range(classes)]
    description = Description(name="csv", digest="0" * 64, class_names=names, features=features)
    cfg = checks.parse(plain)
    module = models.build(cfg, features.num_inputs, classes, description).eval().requires_grad_(False)
    location = CheckpointLocation(checkpoint=Path("some.ckpt"))
    return trained_run.TrainedRun(
        location=location, cfg=cfg, module=module, data=description, epoch=0, sha256="0" * 64, result=None
    )


@pytest.mark.parametrize("variant", ["autograd", "backprop"])
def test_networks_made_by_hand_are_exported_as_well(variant):
    run = _untrained(f"model.variant={variant}")
    raw, expected, _ = exporting.reference_samples(run)
    assert torch.allclose(
        export_formats.evaluate("torch", export_formats.make("torch", run, raw), run, raw), expected, atol=1e-6
    )


TIMES = np.arange(1_700_000_000, 1_700_000_100)


@pytest.fixture(scope="module")
def _timestamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("timestamps")
    (place / "t.csv").write_text("t,y\n" + "".join(f"{t},{int(t > 1_700_000_050)}\n" for t in TIMES))
    words = "data=csv data.path=t.csv data.target=y data.split=none optimizer.lr=0.5 trainer.max_epochs=20"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        quick = "data.batch_size=10 tracking.figures=false hydra.run.dir=large"
        assert run_script("train.py", f"{words} {quick}".split()).code == 0
    return place


@pytest.fixture
def timestamps(_timestamps: Path, here: Path) -> np.ndarray:
    """A run on values whose offset is large against their spread; returns the samples, (100, 1) float64."""
    shutil.copytree(_timestamps, here, dirs_exist_ok=True)
    return TIMES.astype(np.float64)[:, None]


@pytest.mark.parametrize("kind", ["onnx", "torch", "safetensors"])
def test_large_values_of_small_spread_get_the_classes_that_predict_gives(kind, timestamps, here):
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
    assert export("large", "--format", kind).code == 0
    predicted = run_script("predict.py", ["large", "--data", "t.csv"]).out.splitlines()[1:]
    classes = [line.split(",")[1] for line in predicted]
    if kind == "onnx":
        session = onnxruntime.InferenceSession("large/model.onnx", providers=["CPUExecutionProvider"])
        found = session.run(["probabilities"], {"numbers": timestamps})[0]
    elif kind == "torch":
        found = torch.export.load("large/model.pt2").module()(torch.from_numpy(timestamps))[1].numpy()
    else:
        run = trained_run.load(Path("large"))
        content = Path("large/model.safetensors").read_bytes()
        found = export_formats.evaluate(kind, content, run, (torch.from_numpy(timestamps),)).numpy()
    assert [str(c) for c in found.argmax(1)] == classes
    assert np.mean(found.argmax(1) == (timestamps[:, 0] > 1_700_000_050)) > 0.95


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_file_with_other_classes_is_not_written(timestamps, here, kind, monkeypatch):
    class Rounding(ExportModule):
        def forward(self, numbers, categories=None):
            return super().forward(numbers.float(), categories)

    monkeypatch.setattr(export_formats, "ExportModule", Rounding)
    before = tree(here)
    outcome = export("large", "--format", kind)
    assert outcome.code == 1
    assert "its classes differ from the network's for" in outcome.line
    assert tree(here) == before


UNSORTED = Features(
    names=["zeal", "age"],
    shift=[1.0, 2.0],
    scale=[1.0, 3.0],
    category_names=["zone", "colour"],
    values=[["north", "south", "west"], ["blue", "red"]],
)


@pytest.mark.parametrize("kind", ["onnx", "torch", "safetensors"])
def test_columns_and_categories_have_the_order_of_the_graph_in_every_format(kind, tmp_path):
    """Inputs are built from the metadata alone, as somebody else's program would."""
    pytest.importorskip({"onnx": "onnxruntime", "torch": "torch", "safetensors": "safetensors"}[kind])
    run = _untrained(features=UNSORTED)
    raw, _, drawn = exporting.reference_samples(run)
    path = tmp_path / "model"
    path.write_bytes(export_formats.make(kind, run, raw))
    if kind == "onnx":
        import onnx

        described = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif kind == "torch":
        extra = {export_formats.METADATA: ""}
        torch.export.load(path, extra_files=extra)
        described = json.loads(extra[export_formats.METADATA])
    else:
        import safetensors

        with safetensors.safe_open(path, "pt") as file:
            described = file.metadata()
    columns = json.loads(described["category_columns"])
    assert list(columns) == ["zone", "colour"] == json.loads(described["inputs"])["categories"]["columns"]
    assert json.loads(described["number_columns"]) == ["zeal", "age"]
    rng = np.random.default_rng(1)
    table = np.array([[rng.choice(UNSORTED.values[0]), rng.choice(UNSORTED.values[1])] for _ in range(50)], object)
    rows = [dict(zip(UNSORTED.category_names, row, strict=True)) for row in table]
    places = [[values.index(row[name]) for name, values in columns.items()] for row in rows]
    numbers = rng.normal(size=(50, 2))
    found = export_formats.evaluate(kind, path.read_bytes(), run, (torch.from_numpy(numbers), torch.tensor(places)))
    assert drawn
    assert torch.allclose(found, run.module(torch.from_numpy(UNSORTED.transform(numbers, table))), atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_missing_values_and_categories_are_handled_inside_the_file(kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    run = _untrained(features=MIXED)
    numbers = np.array([[30, 1e6 + 1], [np.nan, 1e6], [50, np.nan]], np.float32)
    categories = np.array([["red", "thin"], [None, "round"], ["green", "square"]], dtype=object)
    places = exporting.category_indices(categories, MIXED.values, MIXED.category_fill)
    assert places.tolist() == [[1, 2], [1, 0], [-1, 1]]
    raw = torch.from_numpy(numbers), torch.from_numpy(places)
    expected = run.module(torch.from_numpy(MIXED.transform(numbers, categories)))
    found = export_formats.evaluate(kind, export_formats.make(kind, run, raw), run, raw)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_file_that_says_something_else_is_not_written(finished, here, kind, monkeypatch):
    def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = ExportModule.forward(self, numbers)
        return logits + 0.01, probabilities

    monkeypatch.setattr(export_formats, "ExportModule", type("Wrong", (ExportModule,), {"forward": forward}))
    before = tree(here)
    outcome = export("run", "--format", kind)
    assert outcome.code == 1
    assert "its answers differ from the network's by" in outcome.line
    assert "nothing was written" in outcome.line
    assert tree(here) == before


@pytest.mark.parametrize(
    ("kind", "package"),
    [("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("safetensors", "safetensors")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(finished, here, kind, package, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    before = tree(here)
    outcome = export("run", "--format", kind)
    assert outcome.code == 2
    assert outcome.line == f"export.py: --format {kind} needs the package {package}: pip install 'mlpexp[export]'"
    assert tree(here) == before


def test_a_file_that_is_there_is_replaced_only_when_asked(finished, here):
    (here / "a.safetensors").write_text("precious")
    outcome = export("run", "--format", "safetensors", "--out", "a.safetensors")
    assert (outcome.code, "is there already" in outcome.line) == (2, True)
    assert (here / "a.safetensors").read_text() == "precious"
    assert export("run", "--format", "safetensors", "--out", "a.safetensors", "--force").code == 0
    assert (here / "a.safetensors").stat().st_size > 10_000
