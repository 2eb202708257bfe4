"""Override text is parsed in one place, as Hydra parses it."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpexp.config import overrides

SOURCE = Path(__file__).parents[1] / "src"
KINDS = {
    OverrideType.CHANGE: "set",
    OverrideType.ADD: "add",
    OverrideType.FORCE_ADD: "set_or_add",
    OverrideType.DEL: "delete",
}
TEXTS = [
    "seed=3",
    "seed=-0",
    "seed=-12",
    "optimizer.lr=0.1",
    "optimizer.lr=1e-5",
    "optimizer.lr=.5",
    "model.activation=relu",
    "model.activation=True",
    "model.activation=NULL",
    "model.activation=nan",
    "model.activation=null_",
    "model.width=[64,32]",
    "model.width=[64, 32]",
    "model.width=['a b',c]",
    "+trainer.precision=64",
    "++trainer.x={a:1,b:[x,'y']}",
    "~optimizer",
    "~optimizer=adam",
    "name=",
    "name='my study'",
    "name='it\\'s'",
    'name="x=y"',
    "data.seed=${seed}",
    "seed=1_000",
    "hydra/sweeper=optuna",
    "+experiment=notebook",
]


@pytest.mark.parametrize("text", TEXTS)
def test_an_override_is_read_as_hydra_reads_it(text: str) -> None:
    ours, theirs = overrides.parse(text), OverridesParser.create().parse_override(text)
    value = theirs.value()
    assert (ours.text, ours.key, ours.kind) == (text, theirs.key_or_group, KINDS[theirs.type])
    if ours.value_text == "":
        assert ours.value in ("", None)
    elif "{" not in text and "'" not in text and '"' not in text:
        assert repr(ours.value) == repr(value)


@pytest.mark.parametrize(
    ("text", "value", "label"),
    [
        ("name='my study'", "my study", "my study"),
        ("name='it\\'s'", "it's", "it's"),
        ('name="x=y"', "x=y", "x=y"),
        ("model.width=['a b',c]", ["a b", "c"], "['a b',c]"),
        ("+x={a:1,b:[x,'y z']}", {"a": 1, "b": ["x", "y z"]}, "{a:1,b:[x,'y z']}"),
        ("~optimizer", None, ""),
    ],
)
def test_quotes_are_syntax_and_not_part_of_the_value(text: str, value: object, label: str) -> None:
    override = overrides.parse(text)
    assert (override.value, override.label) == (value, label)


def test_several_values_are_not_one_value() -> None:
    with pytest.raises(ValueError, match="lists several values"):
        _ = overrides.parse("seed=1,2").value


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20).filter(lambda text: "${" not in text),
    st.sampled_from(["true", "1_000", "1e5", "Name (full)", "data (1).csv", "Größe", "a\\", "it's", "null", "a,b"]),
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(scalars, st.lists(scalars, max_size=3)))
def test_a_spelled_value_is_read_back_as_it_was(value: object) -> None:
    word = overrides.shell_word("data.target", value)
    (argument,) = shlex.split(word)
    assert repr(overrides.parse(argument).value) == repr(value)


def test_swept_keys_are_those_that_differ_in_the_order_in_which_they_were_typed() -> None:
    runs = [["b=1", "+a=1", "c=2"], ["b=1", "+a=2", "c=2", "d=3"]]
    assert overrides.swept_keys(runs) == ["a", "d"]
    assert overrides.swept_keys([]) == []
    assert overrides.swept_keys([["~a"], ["b=1"], ["~a", "b=2"]]) == ["b"]  # a deletion has no value


def test_no_other_module_splits_override_text() -> None:
    splitting = ('partition("=")', "partition('=')", 'split("="', "split('='")
    found = [path.name for path in SOURCE.rglob("*.py") if any(call in path.read_text() for call in splitting)]
    assert found == ["overrides.py"]
