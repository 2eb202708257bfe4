"""Names of directories: one safe path component each, readable, distinct, stable."""

import multiprocessing
from datetime import datetime
from pathlib import Path, PurePosixPath

import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

from mlpexp.cli import automatic_directories, hydra_app
from mlpexp.config.run_names import MAX_BYTES, run_name, safe_component

HOSTILE = [
    "",
    " ",
    ".",
    "..",
    "../../etc",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\nb",
    "a\0b",
    "-rf",
    "~root",
    "x" * 5000,
    "é" * 200,
    "🦊" * 100,
    "<script>alert(1)</script>",
    "\ud800",
    "CON ",
    ".hidden",
]
TEXT = st.one_of(st.text(), st.sampled_from(HOSTILE), st.text(alphabet="./-~ \n\\ab", max_size=8))


@given(TEXT)
def test_any_name_becomes_one_safe_component(name: str):
    safe = safe_component(name)
    assert 0 < len(safe.encode("utf-8")) <= MAX_BYTES
    assert PurePosixPath("top") / safe == PurePosixPath(f"top/{safe}")
    assert PurePosixPath(safe).parts == (safe,)
    assert safe not in (".", "..")
    assert safe[0] not in ".-~ "
    assert safe.strip() == safe
    assert not any(ord(letter) < 32 or letter in "/\\\x7f" for letter in safe)


@given(TEXT, TEXT)
def test_distinct_names_stay_distinct(one: str, other: str):
    assert (safe_component(one) == safe_component(other)) == (one == other)


@given(st.text(alphabet="abcXYZ019_-=,.", min_size=1, max_size=60).filter(lambda name: name[0] not in ".-"))
def test_a_harmless_name_is_left_alone(name: str):
    assert safe_component(name) == name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "default"),
        (["seed=3", "model.depth=2", "model.width=64"], "depth=2,width=64,seed=3"),
        (["model.width=64", "seed=3", "model.depth=2"], "depth=2,width=64,seed=3"),
        (["optimizer=adam", "optimizer.lr=0.01"], "optimizer=adam,lr=0.01"),
        (["name=study", "tracking.figures=false", "stack.threads=2", "model.depth=1"], "depth=1"),
        (["data.seed=4", "seed=1"], "data.seed=4,seed=1"),
    ],
)
def test_a_run_is_named_by_its_own_settings_in_the_schemas_order(overrides: list[str], name: str):
    assert run_name(overrides) == name


@given(st.permutations(["model.depth=2", "model.width=64", "seed=1", "+trainer.gradient_clip_val=1", "optimizer=adam"]))
def test_the_order_of_typing_does_not_matter(overrides: list[str]):
    assert run_name(overrides) == run_name(sorted(overrides))


def _claim(_: int) -> str:
    automatic_directories._taken.clear()
    return automatic_directories.claim("outputs/day/second")


def test_processes_that_start_in_one_second_have_directories_of_their_own(here: Path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        claimed = pool.map(_claim, range(12), chunksize=1)
    expected = {"outputs/day/second", *(f"outputs/day/second-{number}" for number in range(2, 13))}
    assert set(claimed) == expected == {str(path) for path in Path("outputs/day").iterdir()}


@pytest.mark.parametrize("command", ["", "-m seed=0,1 tracking.tensorboard=false"])
def test_a_directory_that_another_process_has_just_made_is_left_to_it(train, here: Path, monkeypatch, command: str):
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(hydra_app, "datetime", Clock)
    top = Path("multirun" if command else "outputs")
    theirs = top / "2026-01-02/03-04-05"
    theirs.mkdir(parents=True)
    quick = "trainer.max_epochs=1 tracking.figures=false tracking.diagnostics=false"
    for number in (2, 3):
        ended = train(f"{command} {quick}")
        assert (ended.code, ended.err) == (0, "")
        assert any(Path(f"{theirs}-{number}").iterdir())
    assert list(theirs.iterdir()) == []
    before = tree(here)
    assert train(f"{command} {quick} model.activation=tahn").code == 2
    assert train(f"{command} {quick} data=csv data.path=missing.csv data.target=y").code == 2
    assert tree(here) == before
