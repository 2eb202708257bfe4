"""A run's identity is about what it is, not about how it was typed."""

import random
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpexp.config import checks, schema
from mlpexp.store import run_directory

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
    return run_directory.identity(checks.parse(_shuffled(plain, order) if order else plain), DIGEST)


def _shuffled(node: Any, order: random.Random) -> Any:
    if not isinstance(node, dict):
        return node
    items = [(key, _shuffled(value, order)) for key, value in node.items()]
    order.shuffle(items)
    return dict(items)


CANONICAL = {key: identity([f"{key}={spellings[0]}"]) for key, spellings in SPELLED.items()}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_identity_is_blind_to_spelling_order_and_what_changes_no_number(data: st.DataObject, order: random.Random):
    keys = data.draw(st.lists(st.sampled_from(sorted(SPELLED)), unique=True))
    typed = [f"{key}={data.draw(st.sampled_from(SPELLED[key]))}" for key in keys]
    typed += data.draw(st.lists(st.sampled_from(BESIDE), unique=True))
    straight = [f"{key}={SPELLED[key][0]}" for key in sorted(keys)]
    assert identity(data.draw(st.permutations(typed)), order) == identity(straight)


def test_the_values_that_are_spelled_here_make_different_runs():
    assert len({*CANONICAL.values(), identity([])}) == len(CANONICAL) + 1 - 2  # lr=0.1, weight_decay=0: the defaults
