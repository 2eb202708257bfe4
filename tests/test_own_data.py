"""A person's own table: what is wrong with it is said in one line before anything is written; the rest works."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script, tree

from mlpexp import data
from mlpexp.config.overrides import RunSpec
from mlpexp.config.schema import Config, DataConfig
from mlpexp.data.preprocessing import Features
from mlpexp.runtime.errors import UserError
from mlpexp.store import checkpoint_files, file_names, run_directory
from mlpexp.sweep.jobs import Job
from mlpexp.sweep.run_outcomes import data_of

ROWS = [
    f"{i % 7}.5,{(i * 5) % 11},{'red' if i % 3 else 'blue'},{'yes' if (i * 5) % 11 > 4 else 'no'}" for i in range(60)
]
GOOD = "\n".join(["size,age,colour,bought", *ROWS]) + "\n"


def config(path: Path, **changes) -> DataConfig:
    return DataConfig(**({"name": "csv", "path": str(path), "target": "bought"} | changes))


def with_line(number: int, line: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


# what is in the file, the settings, what is said
WRONG: dict[str, tuple[str | bytes, dict, list[str]]] = {
    "empty": ("", {}, ["is empty"]),
    "header only": ("size,bought\n", {}, ["no samples"]),
    "no target": (GOOD, {"target": None}, ["data.target", "size, age, colour, bought"]),
    "target absent": (GOOD, {"target": "sold"}, ["no column 'sold'", "size, age, colour, bought"]),
    "duplicate name": (GOOD.replace("age", "size", 1), {}, ["two columns are called size"]),
    "empty name": (GOOD.replace("age", "", 1), {}, ["column 2 has no name"]),
    "short row": (with_line(5, "1,2,red"), {}, ["line 5", "3 fields", "4 columns"]),
    "long row": (with_line(5, "1,2,red,yes,9"), {}, ["line 5", "5 fields"]),
    "every row long": ("a,bought\n" + "1,2,yes\n3,4,no\n" * 10, {}, ["every row has 3 fields"]),
    "wrong separator": (GOOD.replace(",", ";"), {}, ["data.separator=semicolon"]),
    "text in a feature": (with_line(9, "x1,2,red,yes"), {}, ["line 9", "column size", "'x1' is not a number"]),
    "nan": (with_line(9, "NaN,2,red,yes"), {}, ["line 9", "column size", "data.missing=median"]),
    "nothing": (with_line(9, "1,,red,yes"), {}, ["line 9", "column age", "missing"]),
    "no category": (with_line(9, "1,2,,yes"), {}, ["line 9", "column colour", "missing"]),
    "inf": (with_line(9, "inf,2,red,yes"), {}, ["line 9", "column size", "not finite"]),
    "decimal comma": (GOOD.replace(",", ";").replace(".5", ",5"), {"separator": "semicolon"}, ["data.decimal=comma"]),
    "no label": (with_line(9, "1,2,red,"), {}, ["line 9", "the class is missing"]),
    "one class": ("a,bought\n" + "1,yes\n2,yes\n" * 9, {}, ["only one class, 'yes'"]),
    "a class of one": (with_line(9, "1,2,red,perhaps"), {}, ["class perhaps has only 1 of 60"]),
    "regression": ("a,bought\n" + "".join(f"{i},{i * 0.37}\n" for i in range(300)), {}, ["looks like regression"]),
    "an identifier": ("a,bought\n" + "".join(f"{i},n{i}\n" for i in range(300)), {}, ["300 different classes"]),
    "free text": (
        "a,note,bought\n" + "".join(f"{i},note {'x' * i},{i % 2}\n" for i in range(99)),
        {},
        ["99 different texts", "data.drop=[note]"],
    ),
    "wrong encoding": (GOOD.replace("red", "rosé").encode("cp1252"), {}, ["is not utf-8", "0xe9", "data.encoding"]),
    "utf-16": (GOOD.encode("utf-16"), {}, ["data.encoding=utf-16"]),
    "unknown encoding": (GOOD, {"encoding": "utf-9"}, ["data.encoding=utf-9 is not a text encoding"]),
    "NUL": (GOOD.replace("red", "r\0d", 1), {}, ["NUL"]),
    "unclosed quote": (with_line(9, '1,2,"red,yes'), {}, ["line 9", "quote"]),
    "column absent": (GOOD, {"drop": ("weight",)}, ["data.drop", "'weight'"]),
    "nothing left": (GOOD, {"columns": ("bought",)}, ["no column is left"]),
    "damaged Parquet": (b"PAR1 and nothing", {}, ["damaged Parquet"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, kind: str):
    content, settings, said = WRONG[kind]
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        data.prepare(config(path, **settings))
    assert "\n" not in str(caught.value)
    assert [words for words in said if words not in str(caught.value)] == []


def test_a_file_that_nobody_named_is_asked_for():
    with pytest.raises(UserError, match=r"needs a file and its column of classes, e.g. data.path=table.csv"):
        data.prepare(DataConfig(name="csv"))


def test_what_is_no_file_is_refused_without_reading(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "it is a directory"),
        (tmp_path / "pipe", "it is a FIFO"),
        (Path("/dev/zero"), "it is a device"),
        (tmp_path / "nothing", "does not exist"),
    ):
        with pytest.raises(UserError, match=said):
            data.prepare(config(path))


@pytest.mark.parametrize(
    "spelled", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode(), GOOD.replace("\n", "\r").encode()]
)
def test_a_byte_order_mark_and_other_line_ends_simply_work(tmp_path: Path, spelled: bytes):
    (tmp_path / "plain.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_bytes(spelled)
    plain, other = (data.prepare(config(tmp_path / name)) for name in ("plain.csv", "other.csv"))
    assert torch.equal(plain.inputs, other.inputs)
    assert other.table.names == ["size", "age"]


def test_what_looks_odd_is_warned_of(tmp_path: Path, caplog):
    path = tmp_path / "table.csv"
    path.write_text("1,2\n" + "5,0\n5,1\n" * 20)
    data.load(config(path, target="2"))
    assert "looks like a sample, not like column names" in caplog.text
    assert "column 1 has the same value in every row" in caplog.text


@pytest.mark.parametrize("first", [10**18, -(10**18), 2**53])
def test_whole_numbers_that_are_equal_in_double_precision_are_warned_of(tmp_path: Path, caplog, first: int):
    path = tmp_path / "table.csv"
    path.write_text("id,a,y\n" + "".join(f"{first + i},{i},{i % 2}\n" for i in range(40)))
    merged = 40 - len({float(first + i) for i in range(40)})
    data.load(config(path, target="y"))
    assert f"column id has whole numbers with so many digits that {merged} different ones are equal" in caplog.text
    assert "column id has the same value" not in caplog.text


def test_whole_numbers_that_double_precision_tells_apart_are_not_warned_of(tmp_path: Path, caplog):
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "".join(f"{2**60 + 2**12 * (i // 2)},{i % 2}\n" for i in range(40)))
    data.load(config(path, target="y"))
    assert not caplog.text


def test_a_line_above_the_names_and_a_wrong_minus_sign_are_named(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("# made by a tool\na,y\n" + "1,0\n2,1\n" * 20)
    with pytest.raises(UserError, match="line 2: several fields, but the first line has one column name, '# made"):
        data.load(config(path, target="y"))
    path.write_text("a,y\n" + "\N{MINUS SIGN}1,0\n2,1\n" * 20, encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2, column a: .* its sign is U\+2212 and not the hyphen"):
        data.load(config(path, target="y"))


def test_labels_that_look_like_missing_values_are_classes(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("a,bought\n" + "1,NA\n2,None\n3,nan\n" * 10)
    assert data.prepare(config(path)).class_names == ["NA", "None", "nan"]


def test_numbers_and_categories_are_fitted_by_scikit_learn_to_the_training_part(tmp_path: Path):
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    path = tmp_path / "table.csv"
    path.write_text(with_line(9, ",,,yes"))
    found = data.prepare(config(path, missing="median"))
    train, table = found.split.train, found.table
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(table.inputs[train])
    fill = SimpleImputer(strategy="most_frequent", missing_values=None)
    texts = make_pipeline(fill, OneHotEncoder(sparse_output=False)).fit(table.categories[train])
    wanted = np.concatenate([numbers.transform(table.inputs), texts.transform(table.categories)], 1)
    assert torch.equal(found.inputs, torch.from_numpy(wanted.astype(np.float32)))
    assert (found.features.names, found.features.category_names) == (["size", "age"], ["colour"])
    assert found.features.values == [["blue", "red"]]
    again = Features(**found.features.to_plain())
    assert np.array_equal(again.transform(table.inputs, table.categories), found.inputs.numpy())


def test_parquet_gives_what_the_same_csv_gives(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    (tmp_path / "table.csv").write_text(GOOD)
    parquet.write_table(csv.read_csv(tmp_path / "table.csv"), tmp_path / "table.parquet")
    assert pyarrow
    one, two = (data.prepare(config(tmp_path / name)) for name in ("table.csv", "table.parquet"))
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.labels, two.labels)


def parquet_of(path: Path, frame_or_table, **options) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    if hasattr(frame_or_table, "to_parquet"):
        frame_or_table.to_parquet(path, **options)
    else:
        parquet.write_table(frame_or_table, path)
    return path


def columns(index=None, **changes):
    pandas = pytest.importorskip("pandas")
    own = {"size": [i % 7 + 0.5 for i in range(40)], "bought": [i % 2 for i in range(40)]}
    return pandas.DataFrame(own | changes, index=index)


def test_an_index_that_pandas_stored_is_not_a_feature_unless_it_is_named(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    nameless = columns(index=range(100, 60, -1))
    nameless = nameless.sample(frac=1, random_state=0)
    assert data.load(config(parquet_of(tmp_path / "a.parquet", nameless))).names == ["size"]
    named = columns(index=pandas.Index(range(40), name="customer"))
    path = parquet_of(tmp_path / "b.parquet", named, index=True)
    assert data.load(config(path)).names == ["size"]
    assert data.load(config(path, columns=("customer",))).names == ["customer"]


def test_a_categorical_of_whole_numbers_is_a_category_in_parquet(tmp_path: Path):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    codes = [i % 3 * 10 for i in range(40)]
    by_pandas = columns(code=pandas.Categorical(codes))
    by_arrow = pyarrow.table(
        {"size": [0.5 + i for i in range(40)], "code": pyarrow.array(codes).dictionary_encode(), "bought": [0, 1] * 20}
    )
    for name, content in (("pandas", by_pandas), ("arrow", by_arrow)):
        table = data.load(config(parquet_of(tmp_path / f"{name}.parquet", content)))
        assert (table.names, table.category_names) == (["size"], ["code"])
        assert set(table.categories[:, 0]) == {"0", "10", "20"}


def test_types_of_parquet_are_followed(tmp_path: Path, caplog):
    pyarrow = pytest.importorskip("pyarrow")
    from decimal import Decimal

    table = pyarrow.table(
        {
            "price": [Decimal(f"{i}.25") for i in range(40)],
            "zip": [f"{i % 4:03d}" for i in range(40)],
            "new": [i % 3 == 0 for i in range(40)],
            "gap": [None if i == 3 else float(i) for i in range(40)],
            "bought": [0, 1] * 20,
        }
    )
    path = parquet_of(tmp_path / "a.parquet", table)
    with pytest.raises(UserError, match=r"line 4, column gap: the value is missing"):
        data.load(config(path))
    # a decimal comma is a matter of texts
    found = data.load(config(path, missing="mean", decimal="comma"))
    assert (found.names, found.category_names) == (["price", "gap"], ["zip", "new"])
    assert found.inputs[2, 0] == 2.25
    assert "column zip holds texts that look like numbers; they are used as categories" in caplog.text


@pytest.mark.parametrize("kind", ["list", "bytes", "timestamp", "struct"])
def test_types_that_are_neither_numbers_nor_texts_are_refused_by_name(tmp_path: Path, kind: str):
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import UTC, datetime

    value = {"list": [1, 2], "bytes": b"ab", "timestamp": datetime(2026, 1, 1, tzinfo=UTC), "struct": {"a": 1}}[kind]
    table = pyarrow.table({"size": list(range(40)), "odd": [value] * 40, "bought": [0, 1] * 20})
    path = parquet_of(tmp_path / "a.parquet", table)
    with pytest.raises(UserError, match=r"column odd holds .*, neither numbers nor texts; .*data.drop=\[odd\]"):
        data.load(config(path))
    assert data.load(config(path, drop=("odd",))).names == ["size"]


def test_duplicate_names_in_parquet_are_called_so(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(range(40))] * 2 + [pyarrow.array([0, 1] * 20)], ["a", "a", "bought"]
    )
    with pytest.raises(UserError, match="two columns are called a"):
        data.load(config(parquet_of(tmp_path / "a.parquet", table)))


def test_one_class_has_one_name_however_it_is_spelled(tmp_path: Path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("a,bought\n" + "".join(f"{i},{('0', '0.0', '1', '1.0')[i % 4]}\n" for i in range(40)))
    table = data.load(config(path))
    assert table.class_names == ["0", "1"]
    assert table.labels.tolist() == [0, 0, 1, 1] * 10
    assert "column bought spells classes in several ways, which count as one: 0, 0.0 as 0; 1, 1.0 as 1" in caplog.text
    for name, spelled in (("a", "{}.0"), ("b", "{}")):
        (tmp_path / f"{name}.csv").write_text(
            "a,bought\n" + "".join(f"{i * i},{spelled.format(i % 2)}\n" for i in range(40))
        )
    found = data.prepare(config(tmp_path / "a.csv", test_path=str(tmp_path / "b.csv")))
    assert found.part("test")[1].tolist() == [0, 1] * 20
    assert found.class_names == ["0", "1"]


def test_categories_are_compared_by_value_and_new_ones_are_counted_in_one_warning(tmp_path: Path, caplog):
    def file(name: str, codes: list[str]) -> str:
        rows = "".join(f"{i * 0.37 + len(name)},{codes[i % len(codes)]},{i % 2}\n" for i in range(40))
        (tmp_path / name).write_text(f"a,code,bought\n{rows}")
        return str(tmp_path / name)

    path, test = file("a.csv", ["1", "2", "3"]), file("test.csv", ["1.0", "2.0", "7.0", "3"])
    found = data.prepare(config(Path(path), test_path=test, categorical=("code",)))
    assert found.features.values == [["1", "2", "3"]]
    one_hot = found.part("test")[0][:, 1:]
    assert one_hot[:4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    (said,) = [record.getMessage() for record in caplog.records if "do not occur" in record.getMessage()]
    assert "code: 7 (10 of 40 test samples)" in said


def test_leaks_are_warned_of_once_each(tmp_path: Path, caplog):
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.6f},{b:.6f},{label},{'AB'[label]}"
        for a, b, label in zip(*rng.normal(size=(2, 80)), rng.integers(2, size=80), strict=True)
    ]
    text = "a,b,bought,copy\n" + "\n".join(rows) + "\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "again.csv").write_text(text.replace("\n", "\r\n"))
    (tmp_path / "twice.csv").write_text(text + "\n".join(rows) + "\n")
    for seed in (0, 1):
        data.prepare(config(tmp_path / "a.csv", test_path=str(tmp_path / "again.csv"), drop=("copy",), seed=seed))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "of 80 test samples are in the training part, too" in said
    caplog.clear()
    for seed in (0, 1):
        data.prepare(config(tmp_path / "twice.csv", drop=("copy",), seed=seed))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "validation samples and" in said and "test samples are in the training part, too" in said
    caplog.clear()
    for seed in (0, 1):
        data.prepare(config(tmp_path / "a.csv", seed=seed))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "column copy determines the class in every row, like a copy of data.target=bought" in said
    assert "'data.drop=[copy]'" in said


def test_samples_that_must_repeat_are_no_leak(tmp_path: Path, caplog):
    (tmp_path / "a.csv").write_text("a,b,bought\n" + "".join(f"{i % 2},{i % 3},{i % 5 > 2}\n" for i in range(90)))
    data.prepare(config(tmp_path / "a.csv"))
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["nameless", "named", "counting"])
def test_a_column_that_identifies_the_rows_is_warned_of(tmp_path: Path, caplog, kind: str):
    name, values = {
        "nameless": ("x", [*range(59, -1, -1)]),
        "named": ("customer_id", [i * 17 % 1009 for i in range(60)]),
        "counting": ("x", [*range(1000, 1060)]),
    }[kind]
    (tmp_path / "a.csv").write_text(
        f"{name},b,bought\n" + "".join(f"{value},{i % 7 * 0.5},{i % 2}\n" for i, value in enumerate(values))
    )
    data.load(config(tmp_path / "a.csv"))
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"column {name} has another value in every row, like an id or a row number" in said
    assert f"'data.drop=[{name}]'" in said


# the same table, as other programs write it
SPELLINGS = {
    "a quote after a blank": "size, age, colour, bought\n"
    + "\n".join(", ".join(f'"{cell}"' for cell in row.split(",")) for row in ROWS),
    "Excel's separator": "sep=;\r\n" + GOOD.replace(",", ";").replace("\n", "\r\n"),
    "Excel's empty rows": GOOD + ",,,\n,,,\n",
    "Excel's empty columns": "\n".join(f"{line},," for line in GOOD.splitlines()),
    "a separator at each end": "size,age,colour,bought\n" + "\n".join(f"{row}," for row in ROWS),
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_what_spreadsheets_write_simply_works(tmp_path: Path, kind: str):
    (tmp_path / "plain.csv").write_text(GOOD)
    (tmp_path / "other.csv").write_text(SPELLINGS[kind], newline="")
    plain, other = (data.load(config(tmp_path / name)) for name in ("plain.csv", "other.csv"))
    assert np.array_equal(plain.inputs, other.inputs)
    assert np.array_equal(plain.categories, other.categories)
    assert (plain.names, plain.category_names, plain.class_names) == (
        other.names,
        other.category_names,
        other.class_names,
    )


def test_the_line_of_a_mistake_counts_excels_first_line(tmp_path: Path):
    (tmp_path / "a.csv").write_text("sep=;\n" + with_line(9, "x1,2,red,yes").replace(",", ";"))
    with pytest.raises(UserError, match="line 10, column size"):
        data.load(config(tmp_path / "a.csv"))


@pytest.mark.parametrize("encoding", ["hex", "rot13", "base64", "undefined", "no\0name", "zlib"])
def test_an_encoding_that_gives_no_text_is_refused(tmp_path: Path, encoding: str):
    (tmp_path / "a.csv").write_text(GOOD)
    with pytest.raises(UserError, match="is not a text encoding"):
        data.load(config(tmp_path / "a.csv", encoding=encoding))


def test_one_hot_inputs_that_do_not_fit_into_memory_are_refused_before_they_are_made(tmp_path: Path, monkeypatch):
    rows = "".join(f"{i % 7},text{i % 300},{i % 2}\n" for i in range(3000))
    (tmp_path / "a.csv").write_text(f"a,note,bought\n{rows}")
    monkeypatch.setattr("mlpexp.runtime.portable.total_memory", lambda: 2 << 20)
    with pytest.raises(
        UserError, match=r"3,000 samples of 301 inputs need .* column note alone makes 300 .*data.drop=\[note\]"
    ):
        data.prepare(config(tmp_path / "a.csv"))


def test_transforming_categories_needs_little_more_memory_than_the_inputs(tmp_path: Path):
    import tracemalloc

    texts = np.array([[f"t{i % 500}"] for i in range(4000)], dtype=object)
    features = Features(names=[], shift=[], scale=[], category_names=["t"], values=[sorted({*texts[:, 0]})])
    tracemalloc.start()
    inputs = features.transform(np.empty((4000, 0)), texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inputs.sum() == 4000
    assert peak < 1.5 * inputs.nbytes


def test_files_of_their_own_validate_and_test(tmp_path: Path):
    for name, content in (("a", GOOD), ("b", GOOD[: GOOD.index("3.5")]), ("c", GOOD)):
        (tmp_path / f"{name}.csv").write_text(content)
    found = data.prepare(
        config(tmp_path / "a.csv", val_path=str(tmp_path / "b.csv"), test_path=str(tmp_path / "c.csv"))
    )
    assert [len(part) for part in found.split] == [60, 3, 60]
    partly = data.prepare(config(tmp_path / "a.csv", test_path=str(tmp_path / "c.csv")))
    assert [len(part) for part in partly.split] == [51, 9, 60]
    (tmp_path / "b.csv").write_text(with_line(4, "1,2,red,perhaps"))
    with pytest.raises(UserError, match=r"b.csv, line 4, column bought: the class 'perhaps' is not among"):
        data.prepare(config(tmp_path / "a.csv", val_path=str(tmp_path / "b.csv")))


def test_a_file_that_changed_since_the_sweep_began_is_not_trained_on(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text(GOOD)
    cfg = Config(data=config(path))
    job = Job(
        spec=RunSpec(0, ()),
        overrides=(),
        output_dir=str(tmp_path / "run"),
        config=cfg,
        place=str(tmp_path / "run"),
        log_name=None,
        env_set={},
        data_digest=data.load(cfg.data).digest,
        hydra=lambda spec: None,
    )
    assert data_of(job).digest == job.data_digest
    path.write_text(with_line(9, "1,2,red,yes"))
    with pytest.raises(UserError, match="has changed since the sweep began"):
        data_of(job)


QUICK = "tracking.figures=false trainer.max_epochs=2"


def test_a_run_says_in_one_line_what_it_has_read(train, here: Path):
    (here / "table.csv").write_text(GOOD)
    own = f"data=csv data.path=table.csv data.target=bought {QUICK}"
    line = (
        "data: 60 rows (42 train, 9 val, 9 test), 3 features: 2 of numbers and 1 of categories (4 inputs), "
        "2 classes: no, yes"
    )
    assert line in train(f"{own} hydra.run.dir=run").out.splitlines()
    assert train(f"-m {own} seed=0,1 name=many").out.splitlines().count(line) == 1


def test_relative_paths_are_taken_from_where_the_program_was_started(train, here: Path, monkeypatch):
    (here / "own").mkdir()
    (here / "own" / "table.csv").write_text(GOOD)
    own = f"data=csv data.path=own/table.csv data.target=bought {QUICK}"
    assert train(f"{own} hydra.job.chdir=true hydra.run.dir=run").code == 0
    ended = train(f"-m {own} hydra.job.chdir=true seed=0,1 name=many")
    assert ended.code == 0, ended.err
    # evaluated and resumed from another folder, also after everything has moved together
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert run_script("evaluate.py", ["../run", "--part", "val", "--no-embedding"]).code == 0
    (here / "moved").mkdir()
    for name in ("own", "run"):
        (here / name).rename(here / "moved" / name)
    assert run_script("evaluate.py", ["../moved/run", "--part", "val", "--out", "again", "--no-embedding"]).code == 0
    resumed = run_script("train.py", ["resume=../moved/run", "trainer.max_epochs=3"])
    assert resumed.code == 0, resumed.err
    # a file with another name has to be named
    (here / "moved/own/table.csv").rename(here / "moved/other.csv")
    refused = run_script("train.py", ["resume=../moved/run", "trainer.max_epochs=4"])
    assert refused.code == 2
    named = run_script("train.py", ["resume=../moved/run", "trainer.max_epochs=4", "data.path=../moved/other.csv"])
    assert named.code == 0, named.err


def test_a_bad_file_is_found_before_anything_is_written(train, here: Path):
    (here / "table.csv").write_text(with_line(9, "x1,2,red,yes"))
    before = tree(here)
    for how in ("hydra.run.dir=run", "-m seed=0,1 name=many"):
        outcome = train(f"{how} data=csv data.path=table.csv data.target=bought")
        assert outcome.code == 2
        assert "line 9, column size: 'x1' is not a number" in outcome.line
        assert tree(here) == before


def test_a_stacked_run_on_a_file_equals_the_run_alone_and_a_changed_file_is_refused(train, here: Path):
    (here / "table.csv").write_text(GOOD)
    own = f"data=csv data.path=table.csv data.target=bought data.label_noise=0.1 stack.engine=torch {QUICK}"
    assert train(f"-m {own} seed=0,1 data.folds=2 data.fold=0,1 name=many").code == 0
    assert train(f"{own} seed=1 data.folds=2 data.fold=1 hydra.run.dir=alone").code == 0
    there = next(path for path in (here / "multirun/many").iterdir() if "fold=1" in path.name and "seed=1" in path.name)
    alone, stacked = (checkpoint_files.load(place / file_names.LAST) for place in (here / "alone", there))
    assert all(torch.equal(alone["state_dict"][name], stacked["state_dict"][name]) for name in alone["state_dict"])
    assert alone["hyper_parameters"]["data"] == stacked["hyper_parameters"]["data"]
    assert run_directory.read_result(here / "alone").identity == run_directory.read_result(there).identity
    (here / "table.csv").write_text(with_line(9, "1,2,red,yes"))
    changed = train(f"-m {own} seed=0,1 data.folds=2 data.fold=0,1 name=many")
    assert changed.code == 2
    assert "the data's bytes are others than when it began" in changed.line
    resumed = train("resume=alone trainer.max_epochs=3")
    assert resumed.code == 2
    assert "was trained on other data" in resumed.line


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris", "moons", "circles", "spirals", "blobs"])
def test_a_stack_over_parts_of_each_ready_made_set_equals_the_run_alone(train, here: Path, name: str):
    """Points in the plane are others for another data.seed, and of a table its means and deviations."""
    own = f"data={name} tracking.figures=false tracking.diagnostics=true"
    ended = train(f"-m {own} stack.engine=torch trainer.max_epochs=1,2 data.seed=0,5 name=many")
    assert "in 1 stack" in ended.out, ended.err
    assert train(f"{own} trainer.max_epochs=2 data.seed=5 hydra.run.dir=alone").code == 0
    alone = run_directory.read_result(here / "alone")
    places = [path.parent for path in (here / "multirun/many").glob("*/result.json")]
    (there,) = [place for place in places if run_directory.read_result(place).identity == alone.identity]
    assert run_directory.read_result(there).metrics == alone.metrics
    for file in (file_names.METRICS, file_names.LAYERS):
        mine, theirs = ((place / file).read_text().splitlines() for place in (there, here / "alone"))
        for a, b in zip(mine[1:], theirs[1:], strict=True):
            assert [float(x or 0) for x in a.split(",")] == pytest.approx([float(x or 0) for x in b.split(",")], 1e-4)
    mine, theirs = (checkpoint_files.load(place / file_names.LAST) for place in (there, here / "alone"))
    assert all(torch.equal(mine["state_dict"][key], value) for key, value in theirs["state_dict"].items())
    assert mine["hyper_parameters"]["data"] == theirs["hyper_parameters"]["data"]


ABROAD = "data=csv data.path=table.csv data.target=gekauft data.separator=semicolon data.decimal=comma"


def test_a_file_from_abroad_is_read_alike_by_training_evaluation_prediction_and_export(train, here: Path):
    lines = [
        f"{i % 7},{i % 10};{'grün' if i % 3 else 'weiß'};{'ja' if i % 7 > 3 and i % 3 else 'nein'}" for i in range(80)
    ]
    (here / "table.csv").write_bytes("\n".join(["größe;farbe;gekauft", *lines]).encode("latin-1"))
    ended = train(f"{ABROAD} data.encoding=latin-1 {QUICK} optimizer.lr=0.5 hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert run_script("evaluate.py", ["run", "--part", "all", "--out", "own", "--no-embedding"]).code == 0
    again = run_script("evaluate.py", ["run", "--data", "table.csv", "--out", "given", "--no-embedding"])
    assert (again.code, again.err) == (0, "")
    answers = [(here / place / "predictions.csv").read_text() for place in ("own", "given")]
    assert answers[0] == answers[1]
    predicted = run_script("predict.py", ["run", "--data", "table.csv", "--top", "1"])
    wanted = [row["predicted class"] for row in csv.DictReader(answers[0].splitlines())]
    assert [row["class 1"] for row in csv.DictReader(predicted.out.splitlines())] == wanted
    assert set(wanted) == {"ja", "nein"}
    exported = run_script("export.py", ["run", "--format", "safetensors"])
    assert (exported.code, exported.err) == (0, "")
    # and what is not written as the run's own table was is refused with a word about that
    (here / "other.csv").write_text("größe,farbe\n1.5,grün\n")
    refused = run_script("predict.py", ["run", "--data", "other.csv"])
    assert refused.code == 2
    assert "it is read as the run's own data, with data.separator=semicolon data.decimal=comma" in refused.line
