"""`scripts/describe.py`: a network before it is trained."""

import re

import pytest
from conftest import run_script
from hydra import compose, initialize_config_dir

from mlpexp import data, models
from mlpexp.cli import hydra_app


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model.depth=0", "data=iris"],
        ["model.width=[6,4]", "data=wine", "model.activation=relu"],
        ["model.norm=batch", "model.dropout=0.2", "model.depth=2", "data=iris"],
        ["model.variant=backprop", "data=moons"],
    ],
    ids=lambda words: " ".join(words) or "defaults",
)
def test_tensors_and_parameters_are_those_of_torchs_module(words, here):
    ended = run_script("describe.py", words)
    assert ended.code == 0, ended.err
    hydra_app.register()
    with initialize_config_dir(str(hydra_app.conf()), version_base="1.3"):
        config = hydra_app.parse(compose("train", words))
    prepared = data.prepare(config.data)
    module = models.build(config, prepared.num_inputs, prepared.description.num_outputs, prepared.description)
    count = sum(parameter.numel() for parameter in module.parameters())
    assert f" {count:,} parameters " in ended.out.splitlines()[-1]
    for name, parameter in module.named_parameters():
        assert f"{name} {tuple(parameter.shape)}" in re.sub(r"\s+", " ", ended.out)
    assert ended.out.startswith("data: ")
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.dept=2"], "describe.py: unknown key 'model.dept'; did you mean model.depth?"),
        (["-m", "seed=1,2"], "describe.py: one network is described at a time; leave -m out"),
        (["data=csv"], "describe.py: data=csv needs a file"),
    ],
    ids=["key", "sweep", "data"],
)
def test_a_mistake_is_one_line(words, line, here):
    ended = run_script("describe.py", words)
    assert (ended.code, ended.line[: len(line)]) == (2, line)
