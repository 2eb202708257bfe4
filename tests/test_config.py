"""The schema: what it lets through, what it says to what it does not, what it counts as chosen."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlpexp.config import checks, memory_checks, schema, unknown_keys
from mlpexp.config.hparams import chosen
from mlpexp.config.schema import Config, ModelConfig
from mlpexp.data.data_sets import Sizes
from mlpexp.runtime.errors import ConfigError

# values as a person types them -> what the one sentence must hold
WRONG = {
    "seed=-1": ["seed=-1 is out of range: it must be >= 0", "e.g. seed=0"],
    "seed=4294967296": ["seed=4294967296 is out of range: it must be <= 4294967295"],
    "seed=abc": ["seed=abc is not a whole number"],
    "name=": ["name='' is empty"],
    "model.depth=-1": ["model.depth=-1 is out of range: it must be >= 0"],
    "model.width=0": ["model.width=0: give a whole number from 1, or a list"],
    "model.width=[64,0]": ["model.width=[64,0]: give a whole number from 1, or a list"],
    "model.width=[64,32] model.depth=3": ["disagree: the list has 2 layers"],
    "model.depth=100000000 model.width=1": ["GiB of memory; this machine has"],
    "model.init=foo": ["unknown init 'foo'; choose one of"],
    "model.variant=pytorch": ["unknown variant 'pytorch'; choose one of autograd, backprop, torch_nn"],
    "model.variant=autograd optimizer.name=adam": ["supports sgd only"],
    "optimizer.name=sdg": ["unknown optimizer 'sdg'", "e.g. optimizer.name=sgd"],
    "optimizer.lr=0": ["optimizer.lr=0 is out of range: it must be > 0", "e.g. optimizer.lr=0.1"],
    "optimizer.lr=-1": ["it must be > 0"],
    "optimizer.lr=nan": ["optimizer.lr=nan is not finite"],
    "optimizer.lr=inf": ["optimizer.lr=inf is not finite"],
    "optimizer.lr=abc": ["optimizer.lr=abc is not a number"],
    "data.batch_size=0": ["data.batch_size=0 is out of range: it must be >= 1"],
    "data.val_fraction=0": ["it must be > 0"],
    "data.val_fraction=1": ["it must be < 1"],
    "data.test_fraction=0.9": ["leave nothing to train on"],
    "data.shuffle=maybe": ["data.shuffle=maybe is neither true nor false"],
    "trainer.max_epochs=0": ["trainer.max_epochs=0 is out of range: it must be >= 1"],
    "trainer.max_epochs=-3": ["it must be >= 1"],
    "trainer.gradient_clip_vall=1": ["unknown key", "did you mean trainer.gradient_clip_val?"],
    "trainer.gradient_clip_val=1 model.variant=backprop": ["needs an optimizer of torch's"],
    "trainer.callbacks=[]": ["trainer.callbacks is set by mlpexp", "+callbacks.mine._target_"],
    "trainer.devices=2": ["a run trains on one device"],
    "trainer.limit_val_batches=0": ["every epoch is validated"],
    "callbacks.x=3": ["callbacks.x needs the name of a class"],
    "model=small": ["model=small replaces a whole group", "one by one"],
}


def parse(typed: str) -> Config:
    """The defaults with `key=value …` put over them, as Hydra would."""
    plain: dict[str, Any] = schema.defaults()
    for item in typed.split():
        key, _, value = item.partition("=")
        *groups, last = key.split(".")
        node = plain
        for group in groups:
            node = node[group]
        node[last] = "" if value == "" else {"nan": math.nan, "inf": math.inf}.get(value, yaml.safe_load(value))
    return checks.parse(plain)


@pytest.mark.parametrize("typed", WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed_and_an_example(typed: str):
    with pytest.raises(ConfigError) as caught:
        parse(typed)
    assert len(caught.value.problems) == 1, caught.value.problems
    for part in WRONG[typed]:
        assert part in caught.value.problems[0]


@pytest.mark.parametrize("key", [key for key, _, _ in schema.keys()])
def test_every_key_has_a_line_of_help_and_refuses_a_mapping(key: str):
    text = next(text for name, _, text in schema.keys() if name == key)
    assert 0 < len(text) < 120
    if key not in ("callbacks", "logger", "trainer.flags"):
        with pytest.raises(ConfigError, match=key.partition(".")[0]):
            parse(f"{key}={{a:1}}")


def test_the_defaults_are_a_configuration():
    assert parse("") == Config()


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        parse("seed=x model.width=0 optimizer.lr=-1 trainer.foo=1 data.batch_size=1.5")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("typed", "hidden"),
    [
        ("", [50]),
        ("model.depth=0", []),
        ("model.depth=3 model.width=7", [7, 7, 7]),
        ("model.width=[64,32]", [64, 32]),
        ("model.width=[64,32] model.depth=2", [64, 32]),
    ],
)
def test_depth_and_width_say_how_many_units_each_hidden_layer_has(typed: str, hidden: list[int]):
    assert parse(typed).model.hidden_sizes == hidden


@given(st.one_of(st.integers(0, 6).flatmap(lambda n: st.lists(st.integers(1, 90), min_size=n, max_size=n)), st.none()))
def test_parameters_are_counted_without_building_the_network(widths: list[int] | None):
    model = ModelConfig() if widths is None else ModelConfig(width=widths)
    sizes = [64, *model.hidden_sizes, 10]
    assert memory_checks.num_parameters(model, 64, 10) == sum(a * b + b for a, b in pairwise(sizes))
    if widths and len(set(widths)) == 1:
        same = ModelConfig(width=widths[0], depth=len(widths))
        assert memory_checks.num_parameters(same, 64, 10) == memory_checks.num_parameters(model, 64, 10)


def test_a_network_of_a_million_units_fits_where_its_memory_is(monkeypatch):
    needed = memory_checks.memory_needed(ModelConfig(width=1_000_000), Sizes(64, 10, 1797))
    assert 2 * 2**30 < needed < 32 * 2**30  # 75 million parameters
    monkeypatch.setattr(memory_checks.portable, "total_memory", lambda: needed)
    parse("model.width=1000000")


def test_other_flags_of_the_trainer_pass_through():
    assert parse("trainer.gradient_clip_val=0.5").trainer.flags == {"gradient_clip_val": 0.5}


def test_what_was_chosen_is_a_few_keys_and_all_that_differ_from_the_defaults():
    always = set(chosen(parse("")))
    assert len(always) < 12
    more = chosen(parse("optimizer.momentum=0.9 tracking.figures=false name=mine model.width=[64,32]"))
    assert set(more) - always == {"optimizer.momentum"}
    assert (more["model.width"], more["model.depth"]) == ("[64,32]", 2)


def test_a_key_that_others_call_differently_is_recognised():
    for theirs, ours in unknown_keys.SYNONYMS.items():
        assert f"did you mean {ours}?" in unknown_keys.unknown_key(theirs)


def test_a_suggested_group_has_keys():
    assert unknown_keys.unknown_key("enable").endswith("--help` lists all keys")  # near `name`, which is no group
    assert "one of the keys below halving, e.g. halving.rungs" in unknown_keys.unknown_key("halvin")


def test_the_license_and_the_set_up_are_where_the_readme_says():
    root = Path(__file__).parents[1]
    pins = (root / "constraints.txt").read_text()
    for line in pins.splitlines():
        name, equal, version = line.partition("==")
        assert equal and name and version and not set("@/:+") & set(line), line
    assert (root / "LICENSE").read_text().startswith("MIT License")
