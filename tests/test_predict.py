"""New samples from CSV files and pictures: the run's own scaling, and every mistake in a file by line and column."""

import csv
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script, tree
from PIL import Image
from sklearn.datasets import load_digits

from mlpexp.config.schema import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.data.preprocessing import Features
from mlpexp.evaluation import sample_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names

DIGITS = load_digits()


def predict(*arguments: object) -> Outcome:
    return run_script("predict.py", [*map(str, arguments)])


def rows(outcome: Outcome) -> list[dict[str, str]]:
    assert outcome.code == 0, outcome.err
    return list(csv.DictReader(io.StringIO(outcome.out)))


def write(path: Path, table: list[list[object]], header: list[str] | None = None, separator: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([*([header] if header else []), *table])
    return path


@pytest.fixture
def expected(finished: Path) -> torch.Tensor:
    """Probabilities of all digits, from the checkpoint's tensors by a formula of our own."""
    w = torch.load(finished / file_names.BEST, weights_only=True)["state_dict"]
    x = torch.from_numpy(DIGITS.data).double() / 16
    h = torch.tanh(x @ w["layers.0.weight"].double().T + w["layers.0.bias"].double())
    return torch.softmax(h @ w["layers.1.weight"].double().T + w["layers.1.bias"].double(), -1)


@pytest.mark.parametrize(
    "kind", ["header", "no header", "shuffled columns", "other names", "with classes", "semicolons"]
)
def test_raw_values_are_scaled_as_in_training(finished, here, expected, kind):
    names, table = list(DIGITS.feature_names), DIGITS.data[:20].tolist()
    match kind:
        case "header":
            write(here / "a.csv", table, names)
        case "no header":
            write(here / "a.csv", table)
        case "shuffled columns":
            order = np.random.default_rng(0).permutation(64)
            write(here / "a.csv", DIGITS.data[:20, order].tolist(), [names[i] for i in order])
        case "other names":
            write(here / "a.csv", table, [f"x{i}" for i in range(64)])
        case "with classes":
            write(here / "a.csv", [[*row, label] for row, label in zip(table, DIGITS.target, strict=False)])
        case "semicolons":
            write(here / "a.csv", table, names, ";")
    outcome = predict("run", "--data", "a.csv")
    found = np.array([[float(row[f"probability of {c}"]) for c in range(10)] for row in rows(outcome)])
    assert np.allclose(found, expected[:20], atol=1e-6)
    assert [row["class"] for row in rows(outcome)] == [str(c) for c in expected[:20].argmax(-1).tolist()]
    assert ("so they are taken in order" in outcome.err) == (kind == "other names")


def test_the_most_probable_classes_come_in_their_order(finished, here, expected):
    write(here / "a.csv", DIGITS.data[:5].tolist())
    table = rows(predict("run", "--data", "a.csv", "--top", 3))
    assert list(table[0]) == ["sample", *(f"{what} {k}" for k in (1, 2, 3) for what in ("class", "probability"))]
    best = expected[:5].topk(3)
    for row, classes, values in zip(table, best.indices.tolist(), best.values.tolist(), strict=True):
        assert [int(row[f"class {k}"]) for k in (1, 2, 3)] == classes
        assert [float(row[f"probability {k}"]) for k in (1, 2, 3)] == pytest.approx(values, abs=1e-6)


def drawn(index: int, kind: str) -> Image.Image:
    """A digit of the data set as somebody might hand it in: 160 pixels high."""
    grey = np.round(DIGITS.images[index] / 16 * 255).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    match kind:
        case "dark on light":
            return Image.fromarray(255 - grey)
        case "transparent":
            ink = np.zeros((160, 160, 4), np.uint8)
            ink[..., 3] = grey
            return Image.fromarray(ink)
        case "colour":
            return Image.fromarray(np.stack([grey] * 3, -1))
        case "16 bits":
            return Image.fromarray(grey.astype(np.uint16) * 257)
    return Image.fromarray(grey)


@pytest.mark.parametrize("kind", ["light on dark", "dark on light", "transparent", "colour", "16 bits"])
def test_an_enlarged_digit_is_the_digit(finished, here, expected, kind):
    chosen = [0, 7, 11, 42]
    for index in chosen:
        drawn(index, kind).save(f"{index}.png")
    outcome = predict("run", "--data", *(f"{index}.png" for index in chosen))
    found = np.array([[float(row[f"probability of {c}"]) for c in range(10)] for row in rows(outcome)])
    assert np.allclose(found, expected[chosen], atol=2e-3)  # 256 shades are not quite the 17 of the data
    assert [row["sample"] for row in rows(outcome)] == [f"{index}.png" for index in chosen]
    assert "resized from 160x160 to 8x8 pixels" in outcome.err
    assert ("inverted, for it is dark on light" in outcome.err) == (kind in ("dark on light", "transparent"))


def test_a_picture_that_is_not_square_is_not_distorted(finished, here, expected):
    Image.fromarray(np.asarray(drawn(0, ""))[:, 20:140]).save("narrow.jpg", quality=95)  # its outer columns are black
    assert not DIGITS.images[0][:, [0, 7]].any()
    row = rows(predict("run", "--data", "narrow.jpg"))[0]
    assert row["class"] == str(int(expected[0].argmax()))
    assert float(row["probability"]) == pytest.approx(float(expected[0].max()), abs=0.02)


def test_a_table_is_written_whole_and_replaces_nothing_unasked(finished, here):
    write(here / "a.csv", DIGITS.data[:5].tolist())
    assert predict("run", "--data", "a.csv", "--out", "b.csv").out == ""
    assert len((here / "b.csv").read_text().splitlines()) == 6
    refused = predict("run", "--data", "a.csv", "--out", "a.csv")
    assert (refused.code, "a.csv is there already" in refused.line) == (2, True)
    assert predict("run", "--data", "a.csv", "--out", "b.csv", "--force", "--top", 1).code == 0
    assert (here / "b.csv").read_text().startswith("sample,class 1,probability 1\n")


GOOD = [[float(value) for value in row] for row in DIGITS.data[:3]]


def _cell(value: str) -> bytes:
    content = io.StringIO()
    table: list[list[object]] = [list(row) for row in GOOD]
    table[1][4] = value
    csv.writer(content).writerows(table)
    return content.getvalue().encode()


NUMBERS = ("\n".join(",".join(map(str, row)) for row in GOOD) + "\n").encode()

WRONG_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "a.csv does not exist"),
    "empty": (b"", "a.csv is empty"),
    "blank": (b"\n\n", "a.csv is empty"),
    "header only": (",".join(DIGITS.feature_names).encode(), "has a line of column names and no samples"),
    "text": (_cell("seven"), "line 2, column 5: 'seven' is not a number"),
    "decimal comma": (_cell("7,5"), "'7,5' is not a number; write digits with a decimal point"),
    "missing value": (_cell(""), "line 2, column 5: the value is missing"),
    "NaN": (_cell("nan"), "line 2, column 5: 'nan' is missing"),
    "infinite": (_cell("inf"), "line 2, column 5: 'inf' is not finite"),
    "too few columns": (b"1,2,3\n", "has 3 columns, but the network was trained on 64"),
    "other columns": (b"age,size\n1,2\n", "lacks the columns pixel_0_0"),
    "a short row": (NUMBERS + b"1,2\n", "line 4: 2 fields, but 64 columns"),
    "a long row": (NUMBERS + b"1," * 70 + b"1\n", "line 4: 71 fields, but 64 columns"),
    "NUL": (NUMBERS + b"\0", "line 4: a NUL byte"),
    "Latin-1": (NUMBERS + b"\xe9\n", "line 4: the byte 0xe9 is not utf-8; save it as utf-8"),
    "an open quote": (NUMBERS + b'"1,2\n', "line 4: a quote is opened and never closed"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_is_refused_by_line_and_column(finished, here, kind):
    content, said = WRONG_FILES[kind]
    if content is not None:
        (here / "a.csv").write_bytes(content)
    before = tree(here)
    outcome = predict("run", "--data", "a.csv", "--out", "b.csv")
    assert outcome.code == 2
    assert said in outcome.line
    assert outcome.line.startswith("predict.py: a.csv")
    assert tree(here) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"sample,class\n", "is not a PNG or JPEG image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is not a PNG or JPEG image, or is damaged"),
        (b"GIF89a" + bytes(50), "is not a PNG or JPEG image"),
    ],
)
def test_what_is_no_picture_is_refused(finished, here, content, said):
    (here / "a.png").write_bytes(content)
    outcome = predict("run", "--data", "a.png")
    assert (outcome.code, said in outcome.line) == (2, True)


def test_what_never_ends_is_not_read(finished, here):
    os.mkfifo(here / "pipe.csv")
    for path in ("pipe.csv", "/dev/zero", "run"):
        outcome = predict("run", "--data", path)
        assert outcome.code == 2
        assert "no regular file" in outcome.line


def test_odd_but_readable_files_simply_work_and_are_remarked_on(finished, here):
    (here / "a.csv").write_bytes(b"\xef\xbb\xbf" + NUMBERS.replace(b"\n", b"\r\n"))
    assert len(rows(predict("run", "--data", "a.csv"))) == 3
    write(here / "a.csv", (DIGITS.data[:3] * 15.9375).tolist())
    assert "values go up to 255, but in training to 16" in predict("run", "--data", "a.csv").err
    write(here / "a.csv", (DIGITS.data[:3] / 16).tolist())
    assert "no value is above 1, but in training they go up to 16" in predict("run", "--data", "a.csv").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--top", 11], "--top 11: the network knows 10 classes"),
        (["--top", 0], "--top 0"),
        (["--out", "nowhere/b.csv"], "there is no directory nowhere"),
        (["--out", "run"], "run is a directory"),
    ],
)
def test_a_wrong_option_is_refused(finished, here, arguments, said):
    write(here / "a.csv", GOOD)
    outcome = predict("run", "--data", "a.csv", *arguments)
    assert (outcome.code, said in outcome.line) == (2, True)


def png(width: int, height: int) -> bytes:
    """A tiny file whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (40_000, 1_000), (1, 49_000_000), (2**31 - 1, 1)])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(finished, here, width, height, monkeypatch):
    content = png(width, height)
    assert len(content) < 100
    (here / "a.png").write_bytes(content)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    outcome = predict("run", "--data", "a.png")
    assert outcome.code == 2
    assert "a.png" in outcome.line and ("pixels" in outcome.line or "damaged" in outcome.line)


def test_a_network_of_two_numbers_knows_no_pictures(train, here):
    assert train("data=moons trainer.max_epochs=1 hydra.run.dir=moons tracking.figures=false").code == 0
    drawn(0, "").save("a.png")
    assert "is an image, but the network was trained on moons" in predict("moons", "--data", "a.png").line
    write(here / "a.csv", [[0.5, 1.0]])
    assert len(rows(predict("moons", "--data", "a.csv"))) == 1


MIXED = Description(
    name="csv",
    digest="0" * 64,
    class_names=["no", "yes", "None"],
    features=Features(
        names=["age"],
        shift=[40.0],
        scale=[10.0],
        fill=[38.0],
        category_names=["colour"],
        values=[["blue", "red"]],
        category_fill=["red"],
    ),
)


def read(here: Path, text: str, *, labelled: bool = False) -> sample_files.Samples:
    (here / "a.csv").write_text(text)
    return sample_files.read(here / "a.csv", MIXED, DataConfig(name="csv", target="bought"), labelled=labelled)


def test_categories_and_missing_values_are_read_by_name(here):
    found = read(here, "colour,note,bought,age\nred,x,yes,30\n,y,None,\ngreen,z,no,50\n", labelled=True)
    assert found.categories is not None and found.labels is not None
    inputs = MIXED.features.transform(found.numbers, found.categories)
    assert np.allclose(inputs, [[-1, 0, 1], [-0.2, 0, 1], [1, 0, 0]])
    assert found.labels.tolist() == [1, 2, 0]  # None is a class, not a missing value
    assert found.remarks == ["colour: green did not occur in training, and counts as none of its values"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour,bought\nred,yes\n", "lacks the column age; it has colour, bought"),
        ("age,colour\n1,red\n", "has no column bought: an evaluation needs it"),
        (
            "age,colour,bought\n1,red,perhaps\n",
            "line 2, column bought: the class 'perhaps' is not among the network's: no, yes, None",
        ),
        ("age,age,colour,bought\n1,1,red,yes\n", "has the column age twice"),
    ],
)
def test_tables_that_do_not_fit_are_refused(here, text, said):
    with pytest.raises(UserError) as caught:
        read(here, text, labelled=True)
    assert said in str(caught.value)
