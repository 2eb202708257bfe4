"""`experiment=notebook` against the course notebook's own code, written out here once more."""

import csv
import functools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from mlpexp.cli import hydra_app
from mlpexp.store import file_names
from mlpexp.training import single_run

CONF = Path(__file__).parents[1] / "conf"
SEEDS = [0, 7, 2**32 - 1]
torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer
EPOCHS, BATCH, HIDDEN, RATE = 10, 32, 50, 0.1
# shared/SEED.md, measured with the notebook itself: loss and accuracy of the first and of the last epoch
FIGURES = {
    "autograd": ((1.449221, 0.552588), (0.229155, 0.927657)),
    "torch_nn": ((1.586321, 0.766277), (0.185243, 0.957707)),
}


def epochs(seed):
    """All of the notebook's for its own seed, the first ones for the others."""
    return EPOCHS if seed == 0 else 2


def digits():
    pictures, labels = load_digits(return_X_y=True)
    scaled = pictures.astype("float32") / pictures.astype("float32").max()
    return torch.from_numpy(scaled.reshape(-1, 64)), torch.from_numpy(labels.astype("int64"))


class HandMade:
    """The notebook's second part: bare parameters, own softmax and cross-entropy."""

    def __init__(self):
        draw = (torch.randn(64, HIDDEN), torch.zeros(HIDDEN), torch.randn(HIDDEN, 10), torch.zeros(10))
        self.parameters = [nn.Parameter(tensor) for tensor in draw]

    def loss(self, x, y):
        w_hidden, b_hidden, w_output, b_output = self.parameters
        logits = torch.tanh(x @ w_hidden + b_hidden) @ w_output + b_output
        e = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        p = e / e.sum(dim=1, keepdim=True)
        return -(F.one_hot(y, 10) * torch.log(p + 1e-8)).sum(dim=1).mean(), logits

    def step(self, x, y):
        self.loss(x, y)[0].backward()
        for parameter in self.parameters:
            parameter.data -= RATE * parameter.grad
            parameter.grad = None


class TorchNN:
    """The notebook's third part."""

    def __init__(self):
        self.fc1, self.fc2 = nn.Linear(64, HIDDEN), nn.Linear(HIDDEN, 10)
        self.optimizer = torch.optim.SGD([*self.fc1.parameters(), *self.fc2.parameters()], lr=RATE)

    def loss(self, x, y):
        logits = self.fc2(torch.tanh(self.fc1(x)))
        return F.cross_entropy(logits, y), logits

    def step(self, x, y):
        self.optimizer.zero_grad()
        self.loss(x, y)[0].backward()
        self.optimizer.step()


def notebook(kind, seed):
    """(loss, accuracy) on all digits after each epoch of the curve of that seed."""
    x, y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = kind()
    found = []
    for _ in range(epochs(seed)):
        for start in range(0, len(x), BATCH):
            network.step(x[start : start + BATCH], y[start : start + BATCH])
        with torch.no_grad():
            loss, logits = network.loss(x, y)
        found.append((loss.item(), (logits.argmax(dim=1) == y).double().mean().item()))
    return found


def ours(directory, *overrides):
    """The same two columns from the `metrics.csv` of a real run."""
    hydra_app.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra_app.parse(compose("train", ["experiment=notebook", "tracking.figures=false", *overrides]))
    single_run.train(cfg, directory)
    with (directory / file_names.METRICS).open() as file:
        return [(float(row["val/loss"]), float(row["val/acc"])) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    """Trains a variant with a seed where a test first asks for it."""

    @functools.cache
    def trained(variant, seed):
        place = tmp_path_factory.mktemp(f"{variant}-{seed}") / "run"
        length = f"trainer.max_epochs={epochs(seed)}"
        return ours(place, f"model.variant={variant}", f"seed={seed}", length)

    return trained


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("variant", "kind"), [("torch_nn", TorchNN), ("autograd", HandMade)])
def test_every_epoch_equals_the_notebooks_own_code(curve, variant, kind, seed):
    for epoch, (found, wanted) in enumerate(zip(curve(variant, seed), notebook(kind, seed), strict=True)):
        assert found == pytest.approx(wanted, abs=1e-6, rel=0), f"epoch {epoch}"


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_by_hand_give_the_curve_that_autograd_gives(curve, seed):
    by_hand, derived = curve("backprop", seed), curve("autograd", seed)
    assert [loss for loss, _ in by_hand] == pytest.approx([loss for loss, _ in derived], rel=1e-5)
    assert [acc for _, acc in by_hand] == pytest.approx([acc for _, acc in derived], abs=1e-3)


@pytest.mark.parametrize("variant", FIGURES)
def test_seed_0_gives_the_notebooks_printed_figures(curve, variant):
    first, last = FIGURES[variant]
    assert len(curve(variant, 0)) == EPOCHS
    assert curve(variant, 0)[0] == pytest.approx(first, abs=1e-6)
    assert curve(variant, 0)[-1] == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "init"),
    [
        ([], "torch"),
        (["model.variant=torch_nn"], "torch"),
        (["model.variant=autograd"], "notebook"),
        (["model.variant=backprop"], "notebook"),
        (["model.variant=backprop", "model.init=orthogonal"], "orthogonal"),
    ],
)
def test_the_notebooks_initial_weights_follow_the_variant_unless_one_is_named(overrides, init):
    hydra_app.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra_app.parse(compose("train", ["experiment=notebook", *overrides]))
    assert cfg.model.init == init


def test_a_misspelled_variant_is_the_only_complaint_about_the_notebook():
    hydra_app.register()
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(hydra_app.UserError) as caught:
        hydra_app.parse(compose("train", ["experiment=notebook", "model.variant=autogard"]))
    assert str(caught.value).startswith("unknown variant 'autogard'")
    assert len(str(caught.value).splitlines()) == 1
