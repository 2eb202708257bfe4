"""Runs and stacks on a GPU beside the same on the CPU; skipped where there is none."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome, run_script

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

LOSS = 2e-3  # relative difference of a loss after some epochs: training amplifies what the devices round differently
ACCURACY = 0.01

# what a stack's runs have in common; each is trained with three seeds
STACKS = {
    "sgd": "optimizer.momentum=0.9 optimizer.nesterov=true optimizer.weight_decay=1e-3",
    "activations": "model.activation=tanh,relu,gelu,silu",
    "adam": "optimizer=adam",
    "adamw": "optimizer=adamw optimizer.weight_decay=0.01",
    "nadam": "optimizer=nadam",
    "lion": "optimizer=lion optimizer.lr=1e-3",
    "rmsprop": "optimizer=rmsprop optimizer.lr=1e-3",
    "adagrad": "optimizer=adagrad optimizer.lr=1e-2",
    "signsgd": "optimizer=signsgd optimizer.lr=1e-3",
    "muon": "optimizer=muon model.depth=2",
    "layer norm": "model.norm=layer model.depth=2",
    "batch norm": "model.norm=batch model.depth=2",
    "rms norm": "model.norm=rms model.depth=2 model.norm_position=post",
    "residual": "model.residual=true model.depth=4",
    "gated": "model.activation=swiglu model.depth=2",
    "no hidden layer": "model.depth=0",
    "mup": "model.parametrization=mup model.width=32 model.depth=2",
    "orthogonal": "model.init=orthogonal",
    "label smoothing": "loss.label_smoothing=0.1",
    "label noise": "data.label_noise=0.0,0.2",
    "class weights": "data.class_weight=balanced",
    "splits": "data.seed=0,1",
    "folds": "data.folds=3 data.fold=0,1,2",
    "no shuffling": "data.shuffle=false",
    "large batches": "data.batch_size=256",
    "cosine": "optimizer.schedule=cosine optimizer.warmup_steps=20",
    "plateau": "optimizer.schedule=plateau optimizer.patience=1 trainer.max_epochs=6",
    "clipping": "optimizer.clip_norm=0.5",
    "ema": "ema.decay=0.9",
    "swa": "swa.start=2",
    "pruning": "prune.fraction=0.5",
    "early stopping": "early_stopping.patience=1 optimizer.lr=0.5 trainer.max_epochs=8",
    "regression": "data=diabetes optimizer.lr=0.01",
    "huber": "data=diabetes loss.name=huber optimizer.lr=0.01",
    "metrics": "metrics=[f1,auroc]",
    "diagnostics": "tracking.diagnostics=true",
    "widths": "model.width=[32,16],[16,32]",
    "moons": "data=moons",
}
# no two devices draw the same masks
DRAWN = {"dropout": "model.dropout=0.2 model.input_dropout=0.1"}


def words(text: str, *, name: str, device: str) -> list[str]:
    options = dict(word.split("=", 1) for word in text.split())
    if "data" in options:
        options["data.name"] = options.pop("data")
    options = {"trainer.max_epochs": "4"} | options
    engine = "stack.engine=torch"
    return [
        "-m",
        *(f"{key}={value}" for key, value in options.items()),
        *("seed=0,1,2", f"name={name}", f"trainer.accelerator={device}", engine),
    ]


def results(name: str) -> list[dict[str, str]]:
    with (Path("multirun") / name / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(name: str) -> list[str]:
    """The epochs of each run, in the order of the sweep."""
    return [(Path("multirun") / name / row["name"] / "metrics.csv").read_text() for row in results(name)]


def assert_trained(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err + outcome.out


def assert_close(gpu: list[dict[str, str]], cpu: list[dict[str, str]], scale: float = 1) -> None:
    assert len(gpu) == len(cpu)
    for one, other in zip(gpu, cpu, strict=True):
        assert one["status"] == other["status"]
        for column in ("train/loss", "val/loss", "test/loss"):
            assert float(one[column]) == pytest.approx(float(other[column]), rel=scale * LOSS), column
        for column in ("val/acc", "test/acc"):
            if other.get(column):
                assert float(one[column]) == pytest.approx(float(other[column]), abs=scale * ACCURACY), column


@pytest.mark.parametrize("text", STACKS.values(), ids=STACKS)
def test_a_stack_gives_the_cpus_results_twice_the_same(text: str, train: Callable[..., Outcome]):
    for name, device in (("gpu", "gpu"), ("again", "gpu"), ("cpu", "cpu")):
        assert_trained(train(words(text, name=name, device=device)))
    assert_close(results("gpu"), results("cpu"))
    assert metrics("gpu") == metrics("again")


@pytest.mark.parametrize("text", DRAWN.values(), ids=DRAWN)
def test_a_stack_that_draws_trains_and_repeats(text: str, train: Callable[..., Outcome]):
    for name, device in (("gpu", "gpu"), ("again", "gpu"), ("cpu", "cpu")):
        assert_trained(train(words(text, name=name, device=device)))
    assert_close(results("gpu"), results("cpu"), scale=50)
    assert metrics("gpu") == metrics("again")


@pytest.mark.parametrize(
    "text",
    [
        *(f"model.variant={variant}" for variant in ("torch_nn", "autograd", "backprop")),
        # in single precision the line search extrapolates from a difference of two losses that are nearly equal
        *("optimizer=adam", "optimizer=lbfgs data.batch_size=2000 +trainer.precision=64-true"),
    ],
)
def test_a_run_alone(text: str, train: Callable[..., Outcome]):
    losses = []
    for device in ("gpu", "cpu"):
        assert_trained(train(f"hydra.run.dir=on-{device} trainer.accelerator={device} {text} trainer.max_epochs=3"))
        with Path(f"on-{device}", "metrics.csv").open(newline="") as file:
            losses.append([float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=LOSS)


def test_more_epochs_equal_an_undisturbed_longer_sweep(train: Callable[..., Outcome]):
    for epochs in (2, 5):
        assert_trained(train(words(f"trainer.max_epochs={epochs}", name="further", device="gpu")))
    assert_trained(train(words("trainer.max_epochs=5", name="anew", device="gpu")))
    assert metrics("further") == metrics("anew")


def test_a_resumed_run_equals_an_undisturbed_one(train: Callable[..., Outcome]):
    assert_trained(train("hydra.run.dir=half trainer.accelerator=gpu trainer.max_epochs=2"))
    assert_trained(train("resume=half trainer.max_epochs=4"))
    assert_trained(train("hydra.run.dir=whole trainer.accelerator=gpu trainer.max_epochs=4"))
    assert Path("half/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()


def test_neighbours_change_nothing(train: Callable[..., Outcome]):
    for seeds, name in (("0,1,2", "few"), ("range(40)", "many")):
        command = ["-m", f"seed={seeds}", f"name={name}", "trainer.accelerator=gpu", "trainer.max_epochs=4"]
        assert_trained(train(command))
    assert metrics("few") == metrics("many")[:3]


def test_halving_on_a_gpu(train: Callable[..., Outcome]):
    command = "-m optimizer.lr=0.01,0.03,0.1,0.3 seed=0,1 halving.rungs=[1,3] trainer.max_epochs=5 name=halved"
    assert_trained(train(f"{command} trainer.accelerator=gpu"))
    assert len(results("halved")) == 8


def test_tables_predictions_ensembles_and_exports_of_what_a_gpu_trained(train: Callable[..., Outcome]):
    assert_trained(train("-m seed=range(6) name=table record=table trainer.accelerator=gpu keep_weights=true"))
    assert_trained(train("-m seed=range(6) name=runs trainer.accelerator=gpu"))
    assert [row["val/loss"] for row in results("table")] == [row["val/loss"] for row in results("runs")]
    for script, arguments in {
        "evaluate.py": ["multirun/table", "--ensemble", "3"],
        "report.py": ["multirun/runs"],
        "export.py": [f"multirun/runs/{results('runs')[0]['name']}", "--format", "safetensors"],
    }.items():
        ended = run_script(script, arguments)
        assert ended.code == 0, f"{script}: {ended.err}"


def test_a_network_of_ones_own(train: Callable[..., Outcome], here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "own_network.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__(nn.Linear(inputs, 20), nn.ELU(), nn.Linear(20, outputs))\n"
    )
    monkeypatch.syspath_prepend(here)
    for device in ("gpu", "cpu"):
        command = f"-m model._target_=own_network.Net seed=0,1,2 name={device} trainer.accelerator={device}"
        assert_trained(train(f"{command} trainer.max_epochs=4"))
    assert_close(results("gpu"), results("cpu"))


def test_an_accelerator_that_is_found_by_auto(train: Callable[..., Outcome]):
    assert_trained(train("-m seed=0,1,2 name=auto trainer.accelerator=auto trainer.max_epochs=2"))
    assert_trained(train("-m seed=0,1,2 name=gpu trainer.accelerator=gpu trainer.max_epochs=2"))
    assert metrics("auto") == metrics("gpu")
