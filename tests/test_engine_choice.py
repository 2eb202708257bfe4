"""Which engine trains a run of a sweep: decided by the run itself, kept by a sweep that grows, part of the identity."""

import csv
from pathlib import Path

import pytest

from mlpexp.config import checks, schema
from mlpexp.engine.compiled import availability
from mlpexp.runtime.errors import UserError
from mlpexp.store import run_directory
from mlpexp.training.engine_choice import with_engine

pytest.importorskip("numba")

MISSING = "numba is not installed"


def chosen(settings: dict, **options) -> str:
    return with_engine(checks.parse(settings), **options).stack.engine


def test_a_run_is_compiled_where_its_own_configuration_allows_it():
    assert chosen({}) == "compiled"
    assert chosen({"stack": {"engine": "torch"}}) == "torch"
    for group, key, value in (
        ("model", "variant", "backprop"),
        ("tracking", "figures", True),
        ("trainer", "accelerator", "gpu"),
    ):
        assert chosen({group: {key: value}}) == "torch"
    assert chosen({}, alone=True) == "torch"


def test_a_key_that_the_engine_does_not_know_is_left_to_torch_unless_it_has_its_default(monkeypatch):
    known = availability.SUPPORTED_KEYS | {"optimizer": "name lr weight_decay schedule"}
    monkeypatch.setattr(availability, "SUPPORTED_KEYS", known)
    availability._other_keys.cache_clear()
    try:
        assert chosen({}) == "compiled"
        assert chosen({"optimizer": {"momentum": 0.9}}) == "torch"
        with pytest.raises(UserError, match=r"not possible here: optimizer.momentum=0.9 has no compiled form"):
            chosen({"optimizer": {"momentum": 0.9}, "stack": {"engine": "compiled"}})
    finally:
        availability._other_keys.cache_clear()


def test_the_keys_that_the_engine_knows_exist():
    named = {
        f"{section}.{key}".strip(".") for section, keys in availability.SUPPORTED_KEYS.items() for key in keys.split()
    }
    assert named <= {key for key, _, _ in schema.keys()}


def test_what_cannot_be_compiled_is_refused_where_it_is_asked_for():
    with pytest.raises(UserError, match=r"stack.engine=compiled is not possible here: model.variant=backprop"):
        chosen({"model": {"variant": "backprop"}, "stack": {"engine": "compiled"}})


def test_an_earlier_start_decides(monkeypatch):
    assert chosen({}, earlier="torch") == "torch"
    assert chosen({"model": {"variant": "backprop"}}, earlier="compiled") == "torch"
    monkeypatch.setattr("mlpexp.training.engine_choice.unavailable", lambda: MISSING)
    assert chosen({}) == "torch"
    with pytest.raises(UserError, match="started with the compiled engine, which is not available here: numba is not"):
        chosen({}, earlier="compiled")


def numbers(name: str) -> list[dict[str, str]]:
    rows = csv.DictReader((Path("multirun") / name / "results.csv").read_text().splitlines())
    return [{key: row[key] for key in row if "/" in key} for row in rows]


SMALL = ["-m", "trainer.max_epochs=2", "model.width=8"]


def test_a_sweep_that_grows_keeps_its_engine_and_another_engine_is_another_study(train, here, monkeypatch):
    first = train([*SMALL, "name=a", "seed=0,1"])
    assert first.code == 0, first.err
    assert "in 1 stack (compiled engine)" in first.out
    grown = train([*SMALL, "name=a", "seed=0,1,2"])
    assert "3 runs: 2 done before, 1 new" in grown.out
    refused = train([*SMALL, "name=a", "seed=0,1,2", "stack.engine=torch"])
    assert refused.code == 2
    assert "holds another study: stack.engine is compiled there and torch here" in refused.err

    exact = train([*SMALL, "name=b", "seed=0,1", "stack.engine=torch"])
    assert "in 1 stack (torch engine)" in exact.out
    assert "in 1 stack (torch engine)" in train([*SMALL, "name=b", "seed=0,1,2"]).out
    for ours, theirs in zip(numbers("a"), numbers("b"), strict=True):
        assert ours != theirs
        assert {key: float(value) for key, value in ours.items()} == pytest.approx(
            {key: float(value) for key, value in theirs.items()}, rel=1e-5
        )


def test_the_plan_says_why_torch_trains_a_run(train, here):
    ended = train(["-m", "dry_run=true", "optimizer=lion", "seed=0,1"])
    assert "in 1 stack (torch engine: the optimizer 'lion' has no compiled form)" in ended.out


def test_the_plan_of_a_mixed_sweep_names_both_engines_and_how_many_reasons_there_are(train, here):
    mixed = "model.norm=none,layer model.dropout=0,0.1,0.2 model.activation=tanh,glu"
    ended = train(["-m", "dry_run=true", *mixed.split(), "seed=0,1"])
    assert "(compiled and torch engine: model.norm=layer has no compiled form, and 3 other reasons)" in " ".join(
        ended.out.split()
    )


def test_without_numba_a_sweep_trains_with_torch(train, here, monkeypatch):
    monkeypatch.setattr("mlpexp.training.engine_choice.unavailable", lambda: MISSING)
    ended = train([*SMALL, "name=a", "seed=0,1"])
    assert ended.code == 0, ended.err
    assert "in 1 stack (torch engine: numba is not installed)" in ended.out


def test_a_run_of_a_compiled_stack_is_continued_by_torch_and_says_so(train, here):
    assert train([*SMALL, "name=a", "seed=0,1"]).code == 0
    (place, _) = sorted(path for path in Path("multirun/a").iterdir() if path.is_dir())
    assert run_directory.read_result(place).environment["engine"] == "compiled"
    ended = train([f"resume='{place}'", "trainer.max_epochs=4"])
    assert ended.code == 0, ended.err
    assert "was trained by the compiled engine, and torch continues it" in ended.out + ended.err
    assert run_directory.read_result(place).environment["engine"] == "compiled, then torch"
    assert train(["trainer.max_epochs=4", "model.width=8", "tracking.figures=false", "hydra.run.dir=alone"]).code == 0
    mixed, alone = (run_directory.read_result(run).metrics for run in (place, Path("alone")))
    assert mixed == pytest.approx(alone, rel=1e-4)


def test_a_configuration_of_an_earlier_schema_is_read(train, here):
    plain = schema.plain(checks.Config())
    del plain["stack"]["engine"]
    assert checks.from_plain({**plain, "stack": plain["stack"] | {"exact": True}}) == checks.Config()
