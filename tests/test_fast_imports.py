"""torch and Lightning are imported without what they need only for special features, and nothing is missing."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS

ONE_RUN = f"""
import os, runpy, sys
def train():
    sys.argv = ["train.py", "hydra.run.dir=" + sys.argv[1], "trainer.max_epochs=1", "tracking.figures=false"]
    sys.path.insert(0, {str(SCRIPTS)!r})
    try:
        runpy.run_path({str(SCRIPTS / "train.py")!r}, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
    deferred = getattr(sys.modules["torch._dynamo"], "_names", None) is not None
    assert deferred == (os.environ.get("MLPEXP_FAST_IMPORTS") != "0")
"""

COMES_LATER = """
import gc
from mlpexp.runtime import fast_imports
fast_imports.install()
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.compile import to_uncompiled
absent = {"torch._dynamo", "torch._inductor", "matplotlib", "scipy", "sympy", "torchmetrics.functional"}
there = {name for name in absent & sys.modules.keys() if getattr(sys.modules[name], "_names", None) is None}
assert not there, there
assert gc.isenabled()

train()
import torch
class Tiny(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
    def training_step(self, batch, index):
        return self.layer(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

plain = Tiny()
optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
plain.training_step(torch.ones(3, 2), 0).backward()
before = plain.layer.weight.clone()
assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.1
optimizer.step()
optimizer.zero_grad()
assert not torch.equal(plain.layer.weight, before) and optimizer.state_dict()["state"]
assert sys.modules["torch._dynamo"]._names is not None

import torchmetrics
from lightning.pytorch.trainer.connectors.logger_connector import result
accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2)
accuracy.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
assert abs(float(accuracy.compute()) - 2 / 3) < 1e-6
assert isinstance(accuracy, result.Metric) and issubclass(torchmetrics.MeanMetric, torchmetrics.metric.Metric)
assert torchmetrics.__version__ == torchmetrics.__about__.__version__
figure, axes = accuracy.plot()
assert type(axes).__name__ == "Axes"

compiled = torch.compile(Tiny(), backend="eager")
trainer = Trainer(
    max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
)
trainer.fit(compiled, torch.utils.data.DataLoader(torch.ones(3, 2), batch_size=3))
assert trainer.global_step == 1
assert type(to_uncompiled(compiled)) is Tiny
assert type(compiled).__name__ == "OptimizedModule"
import torch._dynamo
assert type(compiled) is torch._dynamo.OptimizedModule
assert torch._dynamo.config.__name__ == "torch._dynamo.config"
hidden = torch.compiler.disable(lambda: torch.compiler.is_compiling())
assert hidden() is False

import numpy
import scipy.linalg
assert "numpy.f2py.f2py2e" not in sys.modules
assert numpy.f2py.get_include().endswith("src")
from numpy.f2py import crackfortran
assert callable(crackfortran.crackfortran)
"""


OTHER_VERSION = """
import sys
from mlpexp.runtime import fast_imports
known = fast_imports._deferred
def less():
    names = known()
    del names["torchmetrics"]["_logger"]  # which torchmetrics asks for in the middle of its import
    return names
fast_imports._deferred = less
fast_imports.install()
import lightning.pytorch, torchmetrics
from lightning.pytorch.trainer.connectors.logger_connector import result
assert result.Metric is torchmetrics.Metric is torchmetrics.metric.Metric
torchmetrics.functional.accuracy
"""


def run(program: str, *words: str, **variables: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", program, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a process that has used all of the rest has trained a run, `fast`."""
    place = tmp_path_factory.mktemp("runs")
    run(ONE_RUN + COMES_LATER, str(place / "fast"), MLPEXP_FAST_IMPORTS="1")
    return place


def test_lightning_is_whole_although_compiler_and_plots_come_later(place: Path) -> None:
    assert (place / "fast/result.json").is_file()


def test_a_run_is_the_same_with_and_without(place: Path) -> None:
    run(ONE_RUN + "train()", str(place / "slow"), MLPEXP_FAST_IMPORTS="0")
    rows, results = [], []
    for run_directory in (place / "fast", place / "slow"):
        with (run_directory / "metrics.csv").open() as file:
            rows.append(list(csv.reader(file)))
        results.append(json.loads((run_directory / "result.json").read_text()))
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2
    assert results[0]["metrics"] == results[1]["metrics"]


def test_another_version_that_needs_more_gets_it():
    run(OTHER_VERSION)
