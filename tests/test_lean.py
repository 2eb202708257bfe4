"""Heavy libraries imported without what nobody asked for, and complete for whoever does ask."""

import subprocess
import sys

import pytest

COMES_LATER = """
import gc, sys
from mlpexp.runtime import fast_imports
fast_imports.install()
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.compile import to_uncompiled
absent = {"torch._dynamo", "torch._inductor", "matplotlib", "scipy", "sympy", "torchmetrics.functional"}
assert not absent & sys.modules.keys(), absent & sys.modules.keys()
assert gc.isenabled() and gc.get_freeze_count() > 100_000

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
assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.1 and "torch._dynamo" not in sys.modules
optimizer.step()
optimizer.zero_grad()
assert not torch.equal(plain.layer.weight, before) and optimizer.state_dict()["state"]

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
assert "torch._dynamo" in sys.modules and sys.modules["torch._dynamo"].__file__
"""


OTHER_VERSION = """
import sys
from mlpexp.runtime import fast_imports
def other(*_, **__):
    raise AttributeError("what another version of Lightning might ask for")
fast_imports._disable = other
fast_imports.install()
import lightning.pytorch, torchmetrics
from lightning.pytorch.trainer.connectors.logger_connector import result
assert {"torch._dynamo", "matplotlib.pyplot"} <= sys.modules.keys()
assert result.Metric is torchmetrics.Metric
"""


@pytest.mark.parametrize(
    "program", [COMES_LATER, OTHER_VERSION], ids=["the rest when it is asked for", "all at once if need be"]
)
def test_lightning_is_whole_although_it_comes_without_compiler_and_plots(program):
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
