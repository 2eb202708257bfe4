"""The examples of docs/extending.md, each as a plugin of a sweep and of a run alone; plugins with mistakes."""

import csv
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_script, sections_with_code

from mlpexp import extend
from mlpexp.config import checks
from mlpexp.extend.epoch_callback import StackView, columns_of
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.losses import LOSSES
from mlpexp.runtime import user_code
from mlpexp.runtime.errors import UserError

PAGE = Path(__file__).parents[1] / "docs/extending.md"
SMALL = ["trainer.max_epochs=2", "tracking.figures=false", "tracking.tensorboard=false", "model.width=8"]


def examples() -> dict[str, tuple[str, list[str]]]:
    """Title -> plugin, commands."""
    return sections_with_code(PAGE, "##")


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves a plugin in this process, or an entry that it has registered by itself."""
    path = list(sys.path)
    before = {id(registry): dict(registry) for registry in user_code.REGISTRIES}
    yield
    for name, known in list(user_code._loaded.items()):
        user_code._forget(name, known.files)
    user_code._cache.clear()
    sys.modules.pop("my_plugin", None)  # one that a callback's _target_ has imported
    sys.path[:] = path
    for registry in user_code.REGISTRIES:
        for entry in [name for name in registry if name not in before.get(id(registry), registry)]:
            registry.remove(entry)


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize("title", examples())
def test_an_example_trains_in_a_stack_as_it_does_alone(here, title):
    code, commands = examples()[title]
    assert len(code.strip().splitlines()) <= 16
    (here / "my_plugin.py").write_text(code)
    for command in commands:
        python, script, *words = shlex.split(command)
        assert (python, Path(script).parent.name) == ("python", "scripts")
        small = [] if "data=signs" in words else ["data=iris"]
        small += SMALL if "-m" in words else ["model.width=8"]
        ended = run_script(Path(script).name, [*words, *small])
        assert ended.code == 0, ended.err
        if "-m" not in words:
            continue
        assert re.search(r"in 1 stack", ended.out), ended.out
        [stacked] = (here / "multirun").glob("*/*seed=1*")
        own = [word for word in words if not word.startswith(("-m", "name=", "seed="))]
        alone = run_script("train.py", [*own, "seed=1", *small, "stack.engine=torch", "hydra.run.dir=alone"])
        assert alone.code == 0, alone.err
        for one, other in zip(rows(here / "alone"), rows(stacked), strict=True):
            assert {k: float(v) for k, v in one.items()} == pytest.approx(
                {k: float(v) for k, v in other.items()}, rel=1e-5
            )


def test_every_kind_has_an_example():
    kinds = {title.split(maxsplit=1)[1].replace(" ", "_") for title in examples()}
    assert kinds == {*extend.__all__, "layer", "callback", "network"}


def test_an_optimizer_has_the_bits_of_the_same_rule_of_torchs_in_stacks_alone_and_resumed(here):
    (here / "my_plugin.py").write_text(examples()["An optimizer"][0])
    own = [
        "plugins=[my_plugin.py]",
        "optimizer.name=heavy_ball",
        "optimizer.momentum=0.9",
        "optimizer.lr=0.05",
        "data=iris",
    ]
    own += SMALL
    sweep = ["-m", "name=own", "seed=1,2", "optimizer.weight_decay=0,0.01", "optimizer.clip_norm=1.0", "ema.decay=0.9"]
    assert run_script("train.py", [*sweep, *own]).code == 0
    theirs = [word.replace("heavy_ball", "sgd") for word in own[1:]]
    assert run_script("train.py", [*sweep, *theirs, "name=sgd", "stack.engine=torch"]).code == 0
    one, other = (
        [rows(path) for path in sorted((here / "multirun" / name).glob("*seed=*"))] for name in ("own", "sgd")
    )
    for mine, sgd in zip(one, other, strict=True):
        for row, reference in zip(mine, sgd, strict=True):
            assert {k: float(v) for k, v in row.items()} == pytest.approx(
                {k: float(v) for k, v in reference.items()}, rel=1e-6
            )
    alone = [*own, "seed=1", "optimizer.weight_decay=0.01", "optimizer.clip_norm=1.0", "ema.decay=0.9"]
    assert run_script("train.py", [*alone, "hydra.run.dir=whole"]).code == 0
    assert run_script("train.py", [*alone, "trainer.max_epochs=1", "hydra.run.dir=half"]).code == 0
    resumed = run_script("train.py", ["resume=half", "trainer.max_epochs=2"])
    assert resumed.code == 0, resumed.err
    assert rows(here / "half") == rows(here / "whole")
    [stacked] = (here / "multirun/own").glob("*weight_decay=0.01*seed=1*")
    assert rows(here / "whole") == rows(stacked)


HEAD = "import torch\nimport numpy as np\nfrom mlpexp import extend\n"
WRONG = {
    "activation: shape": (
        "@extend.activation\ndef bad(x): return x.sum(-1)",
        r"activation 'bad' of the plugin wrong\.py returned the shape \(3,\), not \(3, 7\)",
    ),
    "activation: type": (
        "@extend.activation\ndef bad(x): return x.double()",
        r"returned torch\.float64, not torch\.float32",
    ),
    "activation: no tensor": ("@extend.activation\ndef bad(x): return 1.0", "returned a float, not a tensor of shape"),
    "activation: in place": ("@extend.activation\ndef bad(x): return x.tanh_()", "changes an argument in place"),
    "activation: NaN": ("@extend.activation\ndef bad(x): return x.log()", "returned nan for inputs from -8 to 8"),
    "activation: not elementwise": ("@extend.activation\ndef bad(x): return x.softmax(-1)", "is not elementwise"),
    "activation: random": ("@extend.activation\ndef bad(x): return x * torch.rand(1)", "other values each time"),
    "activation: raises": (
        "@extend.activation\ndef bad(x): return x @ x",
        r"activation 'bad' of the plugin wrong\.py raised RuntimeError: .* \(line 5 of wrong\.py\)",
    ),
    "activation: no derivative": ("@extend.activation\ndef bad(x): return x.detach()", "has no derivative"),
    "activation: derivative": (
        "@extend.activation(derivative=lambda x, h: torch.ones(2))\ndef bad(x): return x",
        r"returned the shape \(2,\)",
    ),
    "activation: name": ("extend.activation(lambda x: x)", "has no name that can be typed"),
    "activation: no function": ("extend.activation(3)", "is a int, not a function|is an? int"),
    "loss: shape": ("@extend.loss\ndef bad(o, t): return (o - t).mean()", r"returned the shape \(\), not \(6,\)"),
    "loss: NaN": ("@extend.loss\ndef bad(o, t): return (o.log() * t).sum(-1)", "returned nan for outputs"),
    "loss: neighbours": (
        "@extend.loss\ndef bad(o, t): return ((o - o.mean(0)) - t).square().mean(-1)",
        "another loss beside other samples",
    ),
    "metric: shape": (
        "@extend.metric(higher_is_better=True)\ndef bad(p, t): return p.mean()",
        r"returned the shape \(\), not \(2,\)",
    ),
    "metric: neighbours": (
        "@extend.metric(higher_is_better=True, predictions='classes')\n"
        "def bad(p, t): return (p == t).double().mean().expand(len(p))",
        "another value beside other runs",
    ),
    "initialiser: global randomness": (
        "@extend.initialiser\ndef bad(shape, generator): return torch.randn(shape)",
        "other weights for the same seed",
    ),
    "initialiser: infinite": (
        "@extend.initialiser\ndef bad(shape, generator): return torch.full(shape, float('inf'))",
        "returned inf for the shape",
    ),
    "schedule: negative": ("@extend.schedule\ndef bad(e, n): return -1", "returned -1 for 0 of 1"),
    "optimizer: nothing": ("@extend.optimizer\ndef bad(p, g, s, h): pass", "does not change the parameters"),
    "optimizer: new tensors": (
        "@extend.optimizer\ndef bad(p, g, s, h):\n    for i in range(len(p)): p[i] = p[i] - g[i]",
        "assigns new tensors to the lists",
    ),
    "optimizer: mixes runs": (
        "@extend.optimizer\ndef bad(p, g, s, h):\n    for a, b in zip(p, g): a.sub_(b / (b.norm() + 1))",
        "mixes runs",
    ),
    "optimizer: divides by zero": (
        "@extend.optimizer\ndef bad(p, g, s, h):\n    for a, b in zip(p, g): a.sub_(b / b.abs())",
        "returned nan for finite gradients",
    ),
    "optimizer: state": (
        "@extend.optimizer\ndef bad(p, g, s, h):\n    s['m'] = g\n    for a, b in zip(p, g): a.sub_(b)",
        "adds or removes the state 'm'",
    ),
    "optimizer: key": (
        "@extend.optimizer(keys=['rho'])\ndef bad(p, g, s, h): pass",
        "reads optimizer.rho, which it cannot; choose of momentum",
    ),
    "data set: key": ("@extend.data_set(keys=['size'])\ndef bad(s): pass", "reads data.size, which does not exist"),
}


@pytest.mark.thorough(sample=12)
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_plugin_is_said_with_its_name(here, kind):
    source, said = WRONG[kind]
    (here / "wrong.py").write_text(HEAD + source)
    with pytest.raises(UserError, match=said) as raised:
        checks.parse({"plugins": ["wrong.py"]}, Path.cwd)
    assert "wrong.py" in str(raised.value) and "\n" not in str(raised.value)


WRONG_DATA = {
    "np.zeros((20, 2)), np.zeros(20)": "targets of shape .20,. and type float64, not classes",
    "np.zeros((20, 2)), np.zeros(20, int)": "returned classes from 0 to 0",
    "np.zeros(20), np.zeros(20, int)": "inputs of shape .20,. and type float64, not numbers",
    "np.full((20, 2), np.nan), np.arange(20) % 2": "inputs that are not finite",
    "np.zeros((20, 2))": "returned a ndarray, not the tuple",
    "np.zeros((20, 2)), np.arange(20) % 3": "names 2 classes and returned the class 2",
}


@pytest.mark.parametrize("returned", WRONG_DATA)
def test_what_is_wrong_with_a_data_set_is_said_with_its_name(here, returned):
    (here / "wrong.py").write_text(f"{HEAD}@extend.data_set(classes=['a', 'b'])\ndef bad(settings): return {returned}")
    ended = run_script("train.py", ["plugins=[wrong.py]", "data.name=bad", *SMALL])
    assert ended.code == 2
    assert re.search(f"the data set 'bad' of the plugin wrong.py .*{WRONG_DATA[returned]}", ended.line)


class Spy:
    """A callback that does something wrong."""

    def __init__(self, mistake):
        self.on_epoch_end = mistake


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda stack: stack.weights[0].zero_(), "changes an argument in place"),
        (lambda stack: {"norm": torch.zeros(3)}, r"returned the shape \(3,\), not \(2,\)"),
        (lambda stack: {"acc": torch.zeros(2)}, "returned 'acc', which is a column already"),
        (lambda stack: 3, "returned 3; return a mapping of names to tensors"),
        (lambda stack: stack.nothing, "raised AttributeError"),
    ],
)
def test_a_callbacks_mistake_is_named(mistake, said):
    view = StackView(
        epoch=0,
        configs=[None, None],
        parameters={"layers.0.weight": torch.ones(2, 3, 4)},
        metrics={"val/loss": torch.ones(2)},
    )
    with pytest.raises(UserError, match=rf"the callback 'spy' of the plugin test_extending\.py {said}"):
        columns_of({"spy": Spy(mistake)}, view)


def test_derivatives_and_gradients_are_those_of_autograd():
    extend.activation(lambda x: torch.sin(x) + x, name="wave")
    extend.loss(lambda o, t: (o - t).abs().pow(1.5).sum(-1), name="power")
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS["wave"].derivative(x, x), x.cos() + 1)
    outputs, targets = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    error = outputs - targets
    torch.testing.assert_close(
        LOSSES["power"].gradient(outputs, targets, None), 1.5 * error.abs().sqrt() * error.sign()
    )


def test_a_gate_of_ones_own_has_the_numbers_of_the_one_that_it_copies(here):
    (here / "own.py").write_text(HEAD + "@extend.activation(gated=True)\ndef my_glu(x): return torch.sigmoid(x)\n")
    words = ["-m", "name=own", "plugins=[own.py]", "model.activation=my_glu,glu", "data=iris", "stack.engine=torch"]
    assert run_script("train.py", [*words, *SMALL]).code == 0
    mine, theirs = (rows(path) for path in sorted((here / "multirun/own").glob("*activation=*")))
    assert mine == theirs


def test_a_loss_and_a_metric_of_values_have_the_numbers_of_mlpexps_own(here):
    (here / "own.py").write_text(
        HEAD + "@extend.loss(task='regression', power=2)\n"
        "def own(o, t): return (o - t).square().mean(-1)\n"
        "@extend.metric(higher_is_better=False, task='regression', unit='target units')\n"
        "def error(p, t): return (p - t).abs().mean((-2, -1))\n"
    )
    words = ["-m", "name=own", "plugins=[own.py]", "data=diabetes", "loss.name=own,mse", "metrics=[mae,error]"]
    assert run_script("train.py", [*words, "optimizer.lr=0.01", *SMALL, "stack.engine=torch"]).code == 0
    mine, theirs = (rows(path) for path in sorted((here / "multirun/own").glob("*loss=*")))
    assert mine == theirs
    for row in mine:
        assert float(row["val/error"]) == pytest.approx(float(row["val/mae"]), rel=1e-12)
