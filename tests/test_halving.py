"""`halving.rungs`: only the best go on, with the numbers that they would have had without rivals."""

import csv
import gc
import math
from collections import Counter
from pathlib import Path

import pytest
from conftest import tree
from test_stack import configured, differences

from mlpexp.config import checks, schema
from mlpexp.models.stack_module import StackModule
from mlpexp.runtime.errors import ConfigError, Interrupted
from mlpexp.store import checkpoint_files, file_names, run_directory
from mlpexp.store.identity import entry, identity
from mlpexp.store.run_directory import Result
from mlpexp.sweep import successive_halving

# two shapes and two activations; with and without momentum; 16 candidates
CANDIDATES = (
    "-m stack.engine=torch model.width=3,5 model.activation=relu,tanh optimizer.lr=0.02,0.3 optimizer.momentum=0,0.9 "
    "optimizer.schedule=cosine data.batch_size=128 trainer.max_epochs=5 tracking.diagnostics=true "
    "tracking.figures=false hydra.sweep.subdir=run-${hydra.job.num}"
)
HALVED = f"{CANDIDATES} halving.rungs=[1,3] halving.factor=2 hydra.sweep.dir=halved"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same candidates, all trained to the end and halved, as (undisturbed, halved)."""
    from conftest import run_script

    place = tmp_path_factory.mktemp("race")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in (f"{CANDIDATES} hydra.sweep.dir=full", HALVED):
            ended = run_script("train.py", command.split())
            assert ended.code == 0, ended.err
    return place / "full", place / "halved"


def results(directory: Path) -> dict[str, Result]:
    return {
        place.parent.name: run_directory.read_result(place.parent) for place in sorted(directory.glob("*/result.json"))
    }


def text(place: Path) -> str:
    return place.read_text(encoding="utf-8")


def layers(directory: Path) -> list[float]:
    with (directory / file_names.LAYERS).open(newline="") as file:
        return [float(cell or 0) for row in csv.DictReader(file) for cell in row.values()]


def test_each_rung_lets_one_in_so_many_go_on_whatever_their_architecture(both):
    ended = results(both[1])
    assert Counter((end.status, end.epochs) for end in ended.values()) == {
        ("stopped", 1): 8, ("stopped", 3): 4, ("ok", 5): 4,
    }  # fmt: skip
    with (both[1] / "results.csv").open(newline="") as file:
        assert Counter(row["status"] for row in csv.DictReader(file)) == {"stopped": 12, "ok": 4}


def test_those_that_go_on_are_the_best_of_all_at_each_rung(both):
    """Against the curves of the undisturbed sweep."""
    curves = {}
    for name in results(both[0]):
        with (both[0] / name / file_names.METRICS).open(newline="") as file:
            curves[name] = [float(row["val/loss"]) for row in csv.DictReader(file)]
    ended = results(both[1])
    going = set(curves)
    for rung in (1, 3):
        order = sorted(going, key=lambda name: min(curves[name][:rung]))
        going = set(order[: math.ceil(len(order) / 2)])
        for number, name in enumerate(order, 1):
            if name not in going:
                assert ended[name].message == f"stopped at epoch {rung}: place {number} of {len(order)}"
    assert {name for name, end in ended.items() if end.status == "ok"} == going


def test_a_survivor_has_the_bits_of_the_undisturbed_run(both):
    full, halved = both
    survivors = [name for name, end in results(halved).items() if end.status == "ok"]
    for name in survivors:
        assert text(halved / name / file_names.METRICS) == text(full / name / file_names.METRICS)
        mine, theirs = (layers(place / name) for place in (halved, full))
        assert mine == pytest.approx(theirs, rel=1e-5)  # equal to rounding in any stack: nothing hangs on them
        for file in (file_names.BEST, file_names.LAST):
            mine, theirs = (checkpoint_files.load(place / name / file) for place in (halved, full))
            for loaded in (mine, theirs):  # its configuration says that it was halved
                loaded.pop("hyper_parameters")
            assert differences(mine, theirs) == [], name
        mine, theirs = (run_directory.read_result(place / name) for place in (halved, full))
        assert (mine.metrics, mine.objective, mine.epoch) == (theirs.metrics, theirs.objective, theirs.epoch)


def test_what_leaves_has_the_beginning_of_the_undisturbed_run_and_all_its_files(both):
    full, halved = both
    for name, end in results(halved).items():
        if end.status == "stopped":
            lines = text(full / name / file_names.METRICS).splitlines()
            assert text(halved / name / file_names.METRICS).splitlines() == lines[: end.epochs + 1]
            assert set(end.files) >= {
                file_names.METRICS,
                file_names.LAYERS,
                file_names.LAST,
                file_names.BEST,
            }
            assert any(file.startswith("events") for file in end.files)
            state = checkpoint_files.load(halved / name / file_names.LAST)["callbacks"]["Recorder"]
            assert state["epochs"] == end.epochs


@pytest.fixture
def halved(both, here, monkeypatch):
    import shutil

    shutil.copytree(both[1], here / "halved")
    return here / "halved"


def test_the_same_command_again_trains_nothing(halved, train, monkeypatch):
    monkeypatch.setattr(StackModule, "on_fit_start", lambda self: pytest.fail("trained"))
    again = train(HALVED.split())
    assert again.code == 0, again.err
    assert "16 runs: 16 done before" in again.out
    assert "12 of 16 runs were stopped early: 8 after epoch 1, 4 after epoch 3; 4 trained to the end" in again.out


def test_a_sweep_that_was_stopped_in_the_middle_makes_the_same_cuts(both, halved, train):
    before = {name: (end.status, end.epochs, end.message, end.metrics) for name, end in results(halved).items()}
    order = sorted(before)
    for name in order:  # all that were still in the race after the first rung, and two that were not
        if before[name][1] > 1 or name in order[:2]:
            (halved / name / file_names.RESULT).unlink()
    ended = train(HALVED.split())
    assert ended.code == 0, ended.err
    assert {name: (end.status, end.epochs, end.message, end.metrics) for name, end in results(halved).items()} == before


@pytest.mark.parametrize(
    ("there", "rungs", "said"),
    [
        (1, "halving.rungs=[2,3] halving.factor=2", "halving.rungs is [1,3] there and [2,3] here"),
        (1, "halving.rungs=[1,3] halving.factor=4", "halving.factor is 2 there and 4 here"),
        (1, "", "halving.rungs is [1,3] there and null here"),
        (0, "halving.rungs=[1,3] halving.factor=2", "halving.rungs is null there and [1,3] here"),
        (0, "halving.rungs=[1] record=table", "halving.rungs is null there and [1] here"),
    ],
)
@pytest.mark.thorough(sample=2)
def test_another_halving_or_none_in_the_place_of_a_sweep_is_another_study(both, train, there, rungs, said):
    """Every run of either is done: none may be set aside for a namesake that races otherwise, or not at all."""
    before = tree(both[there])
    refused = train(f"{CANDIDATES} hydra.sweep.dir={both[there]} {rungs}".split())
    assert refused.code == 2
    assert f"holds another study: {said}; choose another name=" in refused.line
    assert tree(both[there]) == before


def test_who_is_stopped_can_be_trained_to_the_end(halved, both, train):
    name = next(name for name, end in results(halved).items() if end.status == "stopped")
    ended = train([f"resume={halved / name}"])
    assert ended.code == 0, ended.err
    assert text(halved / name / file_names.METRICS) == text(both[0] / name / file_names.METRICS)


def test_an_interrupted_race_marks_those_that_were_in_it(here, train, monkeypatch):
    ordinary = StackModule.on_fit_start

    def stop(self):
        if self.start == 3:
            raise Interrupted("stopped by SIGINT", 130)
        ordinary(self)

    monkeypatch.setattr(StackModule, "on_fit_start", stop)
    assert train(HALVED.split()).code == 130
    statuses = Counter(end.status for end in results(Path("halved")).values())
    assert statuses == {"stopped": 12, "interrupted": 4}
    monkeypatch.undo()
    monkeypatch.chdir(here)
    gc.collect()
    assert train(HALVED.split()).code == 0
    assert Counter(end.status for end in results(Path("halved")).values()) == {"stopped": 12, "ok": 4}


def test_a_run_that_raises_fails_by_itself(train, monkeypatch):
    ordinary = StackModule.on_fit_start

    def fail(self):
        if self.start == 1 and any(cfg.seed == 2 for cfg in self.configs):
            raise RuntimeError("no")
        ordinary(self)

    monkeypatch.setattr(StackModule, "on_fit_start", fail)
    train("-m seed=0,1,2,3 halving.rungs=[1,2] halving.factor=2 trainer.max_epochs=3 model.width=3 "
          "hydra.sweep.dir=d record=table monitor=val/acc")  # fmt: skip
    with Path("d", "results.csv").open(newline="") as file:
        statuses = {row["seed"]: row["status"] for row in csv.DictReader(file)}
    reached = statuses.pop("2")
    assert reached in ("stopped", "failed")
    assert Counter(statuses.values())["ok"] == 1


def test_halving_is_part_of_the_identity_and_absent_from_it_when_off():
    off = configured({})
    assert entry(off, "halving").content == {}
    assert identity(configured({"halving.factor": 5}), "d") == identity(off, "d")
    one, two = (configured({"halving.rungs": rungs, "trainer.max_epochs": 9}) for rungs in ([1], [1, 3]))
    assert len({identity(cfg, "d") for cfg in (off, one, two)}) == 3


def test_nan_comes_last_and_the_earlier_of_equals_first():
    assert successive_halving.ranked({0: math.nan, 1: 2.0, 2: 1.0, 3: 2.0, 4: math.inf}) == [2, 1, 3, 0, 4]


@pytest.mark.parametrize("rungs", [[], [3, 3], [3, 1], [1, 10]])
def test_rungs_that_do_not_rise_to_the_last_epoch_are_refused(rungs):
    plain = schema.defaults()
    plain["halving"]["rungs"] = rungs
    with pytest.raises(ConfigError, match="must rise and end below"):
        checks.parse(plain)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("halving.rungs=[1]", "halving.rungs compares the runs of a sweep; add -m"),
        ("-m seed=0,1 halving.rungs=[1] model.variant=backprop", "model.variant=backprop trains alone"),
        ("-m seed=0,1 halving.rungs=[1] hydra.launcher.backend=loky", "halving trains in this process"),
        ("-m halving.rungs=[1],[2]", "one setting for the whole sweep"),
        ("-m seed=0,1 halving.rungs=[1] trainer=ddp trainer.devices=2", "trains alone"),
        ("-m seed=0,1 halving.rungs=[1] hydra.job.chdir=true", "hydra.job.chdir"),
        ("-m hydra/sweeper=optuna seed=0,1 halving.rungs=[1]", "another sweeper's are not known beforehand"),
    ],
)
def test_what_cannot_race_is_refused_before_anything_is_written(arguments, said, train, here):
    refused = train(arguments)
    assert refused.code == 2, refused.err
    assert said in refused.lines[0]
    assert list(here.iterdir()) == []
