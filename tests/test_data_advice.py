"""Advice about data: every override that a message prints is taken as printed, and what it was about is mended."""

import re
import shlex
from pathlib import Path

import pytest

from mlpexp import data
from mlpexp.config import checks
from mlpexp.config.overrides import parse
from mlpexp.config.schema import DataConfig
from mlpexp.runtime.errors import ConfigError, UserError

ROWS = [(i % 7 + 0.5, i * 5 % 11, "red" if i % 3 else "blue", "yes" if i * 5 % 11 > 4 else "no") for i in range(60)]


def table(names: str = "size,age,colour,bought", rows: list[str] | None = None, separator: str = ",") -> str:
    rows = rows if rows is not None else [separator.join(map(str, row)) for row in ROWS]
    return "\n".join([names, *rows]) + "\n"


def advised(message: str) -> list[list[str]]:
    """The ways that a message proposes: words of a shell, those that stand side by side together."""
    word = r"""(?:'data\.\w+=(?:[^']|'"'"')*'|"data\.\w+=[^"]*"|data\.\w+=[^\s,;)'"]+)"""
    before = r"set|with|e\.g\.|mean|or|choose"
    return [shlex.split(found) for found in re.findall(rf"(?:{before}) ({word}(?: {word})*)", message)]


def configured(words: list[str]) -> dict:
    overrides = [parse(word) for word in words]
    assert all(override.key.startswith("data.") for override in overrides)
    return {override.key.removeprefix("data."): override.value for override in overrides}


def config(settings: dict) -> DataConfig:
    return checks.parse({"data": {"name": "csv", **settings}}).data


def free_text(name: str) -> str:
    """A table whose first column has too many texts for categories."""
    return table(f"{name},age,colour,bought", [f"n{i} x,{i % 5},red,{i % 2}" for i in range(99)])


def numbers(first: str, names: str = "size,age,colour,bought", separator: str = ",", **special: str) -> str:
    """A table whose first column is `first`, formatted with the row's number, or for row 7 what `r7` says."""
    cells = [[special.get(f"r{i}", first.format(i=i)), str(i % 3), "red", str(i % 2)] for i in range(60)]
    return table(names.replace(",", separator), [separator.join(row) for row in cells])


def rare(count: int) -> str:
    """A table with `count` samples of one class."""
    return table(rows=[f"{i % 5},{i % 3},red,{'rare' if i < count else i % 2}" for i in range(60)])


# what is in the file, the settings
CASES: dict[str, tuple[str, dict]] = {
    "name with parentheses": (free_text("Name (full)"), {}),
    "name with a quote": (free_text("it's"), {}),
    "name with both quotes": (free_text('"it\'s ""so"""'), {}),
    "name with an umlaut": (free_text("Größe"), {}),
    "name with a comma and brackets": (free_text('"a,[b]=c"'), {}),
    "name with a backslash": (free_text("a\\"), {}),
    "name of interpolation": (free_text("${x}"), {}),
    "name of a number": (free_text("007"), {}),
    "name of a word of Hydra": (free_text("null"), {}),
    "beside another dropped column": (
        table("id,note,age,bought", [f"{i * 3},n{i} x,{i % 5},{i % 2}" for i in range(99)]),
        {"drop": ["id"]},
    ),
    "nameless index": (
        table(",age,colour,bought", [f"{i},{i % 5},red,{'yes' if i > 30 else 'no'}" for i in range(60)]),
        {},
    ),
    "duplicate name": (table("size,size,colour,bought"), {}),
    "decimal comma": (numbers("{i},5", separator=";"), {"separator": "semicolon"}),
    "decimal point": (numbers("{i}.5", separator=";"), {"separator": "semicolon", "decimal": "comma"}),
    "thousands": (numbers('"{i},611"', separator=";"), {"separator": "semicolon"}),
    "underscores": (numbers("1{i}_000", r0="1"), {}),
    "text among numbers": (numbers("{i}", r7="x1"), {}),
    "infinite": (numbers("{i}", r7="inf"), {}),
    "missing": (numbers("{i}", r7=""), {}),
    "hollow column": (numbers(""), {"missing": "mean"}),
    "wrong separator": (numbers("{i}", separator=";"), {}),
    "no target": (table(), {"target": None}),
    "target of another case": (table(), {"target": "Bought"}),
    "target with leading zeros": (numbers("{i}", "01,age,colour,02"), {"target": "2"}),
    "dropped column of another case": (table(), {"drop": ["SIZE", "age"]}),
    "class too small": (rare(3), {"val_fraction": 0.02}),
    "class too small without a test": (rare(2), {"test_fraction": 0, "val_fraction": 0.02}),
    "class of one": (rare(1), {"test_fraction": 0}),
    "class too small for folds": (rare(2), {"test_fraction": 0, "folds": 5, "fold": 4}),
}


@pytest.mark.thorough(sample=10)
@pytest.mark.parametrize("kind", CASES)
def test_advice_about_a_file_works_as_printed(tmp_path: Path, kind: str):
    content, settings = CASES[kind]
    path = tmp_path / "data (1).csv"
    path.write_text(content, encoding="utf-8")
    settings = {"path": str(path), "target": "bought", **settings}
    with pytest.raises(UserError) as caught:
        data.prepare(config(settings))
    ways = advised(str(caught.value))
    assert ways, str(caught.value)
    for way in ways:
        try:
            data.prepare(config(settings | configured(way)))
        except UserError as error:  # another mistake of the file may come to light, but not the same again
            assert str(error).split(";")[0] != str(caught.value).split(";")[0], way


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": ["bought", "age"]}, "data.target=[bought,age] names several columns, which only values can be"),
        ({"target": []}, "data.target"),
        ({"target": True}, "is not text"),
        ({"drop": "age"}, "data.drop=age: give a list, e.g. 'data.drop=[age]'"),
        ({"categorical": "Größe (cm)"}, "give a list, e.g. 'data.categorical=["),
        ({"columns": ["age", ["size"]]}, "data.columns"),
        ({"path": ["a.csv", "b.csv"]}, "give one name, not a list, e.g. data.path=a.csv"),
    ],
)
def test_a_list_for_one_value_and_one_value_for_a_list_are_explained(settings, said):
    with pytest.raises(ConfigError) as caught:
        config({"path": "a.csv", "target": "bought", **settings})
    (problem,) = caught.value.problems
    assert said in problem
    for way in advised(problem):
        config({"path": "a.csv", "target": "bought", **settings, **configured(way)})


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data.target=Größe", "Größe"),
        ("data.target=Name (full)", "Name (full)"),
        ("data.path=data (1).csv", "data (1).csv"),
        ("data.drop=[Name (full),id]", ["Name (full)", "id"]),
    ],
)
def test_a_text_that_hydra_cannot_read_is_quoted_for_the_user(train, typed: str, value: object):
    refused = train(["data=csv", typed])
    assert refused.code == 2
    (word,) = shlex.split(refused.line.split("quote its text, ")[1])
    assert parse(word).key == parse(typed).key
    assert parse(word).value == value


def test_a_name_with_any_character_is_taken_from_the_command_line_as_printed(train, here):
    (here / "data (1).csv").write_text(
        table("Größe (cm),note's,age,bought", [f"n{i} x,{i % 4},{i % 5},{i % 2}" for i in range(99)])
    )
    given = [
        "data=csv",
        'data.path="data (1).csv"',
        "data.target=bought",
        "trainer.max_epochs=1",
        "tracking.figures=false",
    ]
    refused = train(given)
    assert refused.code == 2
    (first, *_) = advised(refused.line)
    assert train([*given, *first]).code == 0
