"""A run's identity is about what it is, not about how it was typed."""

import hashlib
import json
import os
import random
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpexp.config import checks, schema
from mlpexp.store import sweep_manifest
from mlpexp.store.identity import NAMES, SCHEMA_VERSION, entry, leaves, relevant
from mlpexp.store.identity import identity as identity_of

DIGEST = "d" * 64
# one value each, in the spellings that Hydra takes
SPELLED = {
    "optimizer.lr": ["0.1", "1e-1", "0.10", ".1", "1.0e-1", "0.1e0"],
    "optimizer.momentum": ["0.5", "5e-1", "0.50"],
    "optimizer.weight_decay": ["0", "0.0", "0e0"],
    "model.width": ["[64,64]", "[ 64 , 64 ]", "[64,+64]"],
    "model.activation": ["relu", "'relu'", '"relu"'],
    "data.shuffle": ["false", "False", "FALSE"],
    "trainer.max_epochs": ["3", "+3"],
    "seed": ["7", "+7"],
}
# what may be typed beside it without making another run of it
BESIDE = ["name=other", "threads=2", "tracking.figures=false", "stack.memory_mib=64", "report=true", "dry_run=true"]
PARSER = OverridesParser.create()


def identity(typed: list[str], order: random.Random | None = None) -> str:
    plain: dict[str, Any] = schema.defaults()
    for override in PARSER.parse_overrides(typed):
        *groups, last = override.key_or_group.split(".")
        node = plain
        for group in groups:
            node = node[group]
        value = override.value()
        node[last] = [getattr(item, "text", item) for item in value] if isinstance(value, list) else value
        node[last] = getattr(node[last], "text", node[last])
    return identity_of(checks.parse(_shuffled(plain, order) if order else plain), DIGEST)


def _shuffled(node: Any, order: random.Random) -> Any:
    if not isinstance(node, dict):
        return node
    items = [(key, _shuffled(value, order)) for key, value in node.items()]
    order.shuffle(items)
    return dict(items)


CANONICAL = {key: identity([f"{key}={spellings[0]}"]) for key, spellings in SPELLED.items()}


@settings(max_examples=200 if "MLPEXP_THOROUGH" in os.environ else 25, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_identity_is_blind_to_spelling_order_and_what_changes_no_number(data: st.DataObject, order: random.Random):
    keys = data.draw(st.lists(st.sampled_from(sorted(SPELLED)), unique=True))
    typed = [f"{key}={data.draw(st.sampled_from(SPELLED[key]))}" for key in keys]
    typed += data.draw(st.lists(st.sampled_from(BESIDE), unique=True))
    straight = [f"{key}={SPELLED[key][0]}" for key in sorted(keys)]
    assert identity(data.draw(st.permutations(typed)), order) == identity(straight)


def test_the_values_that_are_spelled_here_make_different_runs():
    assert len({*CANONICAL.values(), identity([])}) == len(CANONICAL) + 1 - 2  # lr=0.1, weight_decay=0: the defaults


# one configuration each of the kinds that earlier versions have trained, with the identity that they gave it
CASES = {
    "defaults": {},
    "seed 3": {"seed": 3},
    "pyramid of widths": {"model": {"width": [64, 32], "activation": "relu", "init": "kaiming_normal"}},
    "no hidden layer": {"model": {"depth": 0}},
    "muP": {
        "model": {"parametrization": "mup", "base_width": 32, "width": 128},
        "optimizer": {"name": "adamw", "lr": 0.001},
    },
    "scaled normal, by hand": {
        "model": {"variant": "backprop", "init": "scaled_normal", "sigma_w": 1.5, "sigma_b": 0.1, "depth": 3}
    },
    "momentum, cosine, warm-up": {
        "optimizer": {
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 0.0001,
            "schedule": "cosine",
            "warmup_epochs": 2,
        }
    },
    "early stopping on accuracy": {
        "monitor": "val/acc",
        "early_stopping": {"patience": 3, "min_delta": 0.001},
        "test_weights": "last",
    },
    "spirals with label noise": {
        "data": {"name": "spirals", "samples": 300, "noise": 0.1, "classes": 4, "label_noise": 0.1}
    },
    "a table of one's own": {
        "data": {
            "name": "csv",
            "path": "a.csv",
            "target": "y",
            "separator": "semicolon",
            "drop": ["id"],
            "missing": "median",
            "class_weight": "balanced",
        }
    },
    "folds": {"data": {"name": "iris", "folds": 5, "fold": 2, "batch_size": 8, "shuffle": False}},
    "notebook": {"data": {"split": "none"}, "model": {"variant": "autograd", "init": "notebook"}},
    "halving": {"halving": {"rungs": [1, 3, 9], "factor": 2}},
    "flags and callbacks": {
        "trainer": {"max_epochs": 7, "gradient_clip_val": 1.0, "precision": "64-true"},
        "callbacks": {"lr": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}},
    },
}
PINNED = {
    "defaults": "11fca5de302feefcf2d8f182caa298537850b5b427f1ceb2daa9370720527d29",
    "seed 3": "31f1dac3e738e601b48bc128c975855598f81dd71d49d5ffd2f4b319766b85b2",
    "pyramid of widths": "2349f885803d5a4f1102903758d54b82fe9e87f1a72c651a5c63cb198bd45b79",
    "no hidden layer": "094ccb03a916d2149affb6fbc44d6c067936762f47b6e0e47ec55b43ad165717",
    "muP": "95f59b45a5b7fea52163dc1e3e7f8ff3c9364eaccc1985fc59cb1fc4e93fe653",
    "scaled normal, by hand": "b58c00fb5f3d0489547b6b0725bc29ba1042f77228d534e6f19e736e16de25b2",
    "momentum, cosine, warm-up": "43d6cf00f71c116348b4b318ba4f9c8053a2c0872a35f02dc45c0f6f0c451e2b",
    "early stopping on accuracy": "b89462f83d0b71fef68aa0fc74b1731fead3cc1fa0f8d490e8eefba8a3888c60",
    "spirals with label noise": "563d62820e78692c18fe4fe9a8aeb88b28c2bc8710e86efb6ecddfcf4d08c92b",
    "a table of one's own": "056e536793465d80b7d6167da59d761805fde89c087cfd5668e3f9afb2953472",
    "folds": "06c354f18b9be97ab59ad84c33688d23302866f6d8ef3772daedafdf1c7adfeb",
    "notebook": "10638c4f05ebe10a064c3e31933d2696b40121a8bde1a902d675d08830b0b742",
    "halving": "9a26570ba606bb9bbed50bd1dd188d48cdeb271ef5a5daad032cb67d0cdaabdd",
    "flags and callbacks": "354d9a9775e2e9966c1ebfd7ba616af1ba211d703fecd6c68fe46e8e77ceb2f5",
}


@pytest.mark.parametrize("name", CASES)
def test_identities_of_earlier_runs_never_change(name: str):
    assert identity_of(checks.parse(CASES[name]), DIGEST) == PINNED[name]


def test_a_new_key_is_in_the_identity_only_where_it_differs_from_its_default():
    defaults = schema.plain(schema.Config())
    before = relevant(defaults, defaults)
    for new in ({"later": 0}, {"model": defaults["model"] | {"dropout": 0.0}}, {"group": {"a": 1, "b": {"c": []}}}):
        grown = defaults | new
        assert relevant(grown, grown) == before
    grown = defaults | {"group": {"a": 1, "b": {"c": []}}, "model": defaults["model"] | {"dropout": 0.0}}
    changed = grown | {"group": {"a": 1, "b": {"c": [2]}}, "model": grown["model"] | {"dropout": 0.5}}
    found = relevant(changed, grown)
    assert found == before | {"group": {"b": {"c": [2]}}, "model": before["model"] | {"dropout": 0.5}}


def test_the_engine_enters_the_identity_where_it_is_not_that_of_earlier_runs():
    def of(engine: str) -> str:
        return identity_of(checks.parse({"stack": {"engine": engine}}), DIGEST)

    assert of("torch") == of("auto") == PINNED["defaults"] != of("compiled")


def variants() -> list[schema.Config]:
    """Configurations that differ in one key or in none from each other, in groups and at the top level."""
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 7},
        {"monitor": "val/acc"},
        {"metrics": ["f1"]},
        {"callbacks": {"mine": {"_target_": "a.B"}}},
        {"optimizer": {"lr": 0.3}},
        {"optimizer": {"lr": 0.3}, "seed": 7},
        {"model": {"depth": 2, "width": [8, 8]}},
        {"stack": {"engine": "auto"}},
        {"halving": {"rungs": [1]}, "trainer": {"max_epochs": 3}},
        {"loss": {"name": "cross_entropy"}},
    ]
    return [
        checks.parse(
            schema.defaults()
            | {
                k: v if not isinstance(v, dict) or k == "callbacks" else schema.defaults()[k] | v
                for k, v in change.items()
            }
        )
        for change in changes
    ]


def identity_content(cfg: schema.Config) -> dict[str, Any]:
    """What determines a run's numbers: its configuration, its data's bytes, the schema version."""
    config = {key: value for name in NAMES for key, value in entry(cfg, name).content.items()}
    return {"config": config, "data": DIGEST, "schema_version": SCHEMA_VERSION}


def test_an_identity_is_the_hash_of_its_content_as_canonical_json() -> None:
    for cfg in [*variants(), *variants()]:
        text = json.dumps(identity_content(cfg), sort_keys=True, separators=(",", ":"))
        assert identity_of(cfg, DIGEST) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("order", range(4))
def test_a_study_has_the_keys_that_are_equal_in_all_of_its_runs(order: int) -> None:
    configs = variants()
    random.Random(order).shuffle(configs)
    for count in range(1, len(configs) + 1):
        contents = [dict(leaves(identity_content(cfg)["config"])) for cfg in configs[:count]]
        keys = {key for content in contents for key in content}
        constant = {key for key in keys if all(key in one and one[key] == contents[0][key] for one in contents)}
        study = sweep_manifest.study([(cfg, DIGEST) for cfg in configs[:count]])
        assert study.constants.keys() - {sweep_manifest.DIGEST} == constant
        assert set(study.varied) == keys - constant
