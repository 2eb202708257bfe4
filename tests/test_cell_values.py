"""What a cell means: which texts are numbers, and which labels and categories are equal."""

import pytest

from mlpexp.data.cell_values import NumberFormat, canonical, position_of, positions_by_name

POINT = NumberFormat()
COMMA = NumberFormat("comma")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        ("007", 7.0),
        ("1" + "0" * 400, float("inf")),  # too large: refused as not finite where it is read
    ],
)
def test_a_number_is_sign_digits_mark_and_exponent(cell, value):
    assert POINT.number(cell) == value


@pytest.mark.parametrize(
    "cell",
    [
        "1_000",
        "2_11",
        "0x1F",
        "１２",
        "٣",
        "inf",
        "infinity",
        "nan",
        "1,611",
        "1.2.3",
        "1e",
        "e5",
        ".",
        "",
        "+",
        "1 000",
        "½",
    ],
)
def test_nothing_else_is_a_number(cell):
    assert POINT.number(cell) is None


@pytest.mark.parametrize(
    ("form", "cell", "value"),
    [
        (COMMA, "1,611", 1.611),
        (COMMA, "1.611", None),
        (NumberFormat("comma", "point"), "1.611", 1611.0),
        (NumberFormat("comma", "point"), "1.234.567,5", 1234567.5),
        (NumberFormat("comma", "point"), "1.61", None),
        (NumberFormat("point", "comma"), "1,611", 1611.0),
        (NumberFormat("point", "comma"), "1611.5", 1611.5),
        (NumberFormat("point", "comma"), "16,11", None),
        (NumberFormat("point", "comma"), "1611,000", None),
        (NumberFormat("point", "space"), "1\N{NARROW NO-BREAK SPACE}611", 1611.0),
        (NumberFormat("point", "apostrophe"), "1'611.5", 1611.5),
        (NumberFormat("point", "underscore"), "1_000", 1000.0),
        (NumberFormat("point", "underscore"), "2_11", None),
    ],
)
def test_marks_are_read_as_they_are_set_and_digits_are_grouped_in_threes(form, cell, value):
    assert form.number(cell) == value


@pytest.mark.parametrize(
    ("form", "cell", "ways"),
    [
        (POINT, "1,611", [{"thousands": "comma"}, {"decimal": "comma"}]),
        (POINT, "1,5", [{"decimal": "comma"}]),
        (POINT, "1.611,5", [{"decimal": "comma", "thousands": "point"}]),
        (COMMA, "1.611", [{"decimal": "point"}, {"thousands": "point"}]),
        (POINT, "x1", []),
    ],
)
def test_the_settings_proposed_for_a_cell_read_it(form, cell, ways):
    found = form.settings_for(cell)
    assert sorted(map(str, found)) == sorted(map(str, ways))
    for way in found:
        assert NumberFormat(**{"decimal": form.decimal, "thousands": form.thousands} | way).number(cell) is not None


@pytest.mark.parametrize(
    ("spellings", "text"),
    [
        (["1", "1.0", "1e0", "+1", "01.0e0"[1:], 1, 1.0], "1"),
        (["-0", "0", "0.0", 0.0], "0"),
        (["0.5", ".5", "5e-1", 0.5], "0.5"),
        (["9007199254740993", 9007199254740993], "9007199254740993"),
        (["1000000", "1e6", 1e6], "1000000"),
    ],
)
def test_all_spellings_of_a_number_have_one_canonical_text(spellings, text):
    assert {canonical(each) for each in spellings} == {text}


def test_codes_and_other_texts_stay_as_they_are():
    for text in ("007", "1_000", "red", "NA", "1.2.3", "١"):
        assert canonical(text) == text
    assert canonical("1,0", COMMA) == "1"
    assert canonical(float("nan")) == ""


def test_names_are_found_however_they_are_spelled_also_those_of_earlier_checkpoints():
    known = positions_by_name(["0.0", "1.0", "None"])  # as earlier versions stored them
    assert [position_of(cell, known) for cell in ("0", "0.0", "1", 1.0, "None", "2")] == [0, 0, 1, 1, 2, None]
    both = positions_by_name(["1", "1.0"])
    assert [position_of(cell, both) for cell in ("1", "1.0")] == [0, 1]
