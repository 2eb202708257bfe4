"""A run that has learned nothing is told from one that learns slowly."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlpexp import data, load_results
from mlpexp.config.schema import Config, TrainerConfig
from mlpexp.models.training_state import RunRecord
from mlpexp.nn import chance_level
from mlpexp.store import run_directory
from mlpexp.training.final_status import CUT_SHORT, conclude

BALANCED = [126] * 9 + [123]


def ended(loss: float, accuracy: float) -> list[dict[str, float]]:
    return [{"train/loss": 9.0, "train/acc": 0.5}, {"train/loss": loss, "train/acc": accuracy}]


@pytest.mark.parametrize(
    ("loss", "accuracy", "counts", "nothing"),
    [
        (math.log(10), 0.1, BALANCED, True),
        (4.0, 0.12, BALANCED, True),
        (2.2, 0.12, BALANCED, False),  # slowly
        (4.0, 0.3, BALANCED, False),  # badly calibrated
        (math.log(10), 0.1, [10] * 10, True),
        (0.33, 0.9, [900, 100], True),  # always the commonest
        (0.33, 0.97, [900, 100], False),
        (0.7, 0.5, [0, 5, 5], True),
    ],
)
def test_a_run_at_chance_level_is_one_that_guessing_equals(loss, accuracy, counts, nothing):
    told = chance_level.chance_message(ended(loss, accuracy), counts)
    assert (told is not None) == nothing
    if told:
        assert told.startswith(chance_level.MARK)
        assert f"{accuracy:.3f}" in told


@given(st.integers(2, 5000), st.floats(0.01, 0.99), st.floats(0, 1))
def test_the_bound_never_takes_a_guesser_for_more_than_the_exact_binomial_does(samples, share, part):
    hits = round(part * samples)
    if chance_level.is_better(hits / samples, share, samples):
        assert binom.sf(hits - 1, samples, share) <= chance_level.FALSE_ALARM * (1 + 1e-9)


def test_the_bound_is_not_blind_either():
    assert chance_level.is_better(0.16, 0.1, 1257)
    assert not chance_level.is_better(0.13, 0.1, 1257)


def test_runs_at_chance_level_are_marked_alone_and_in_a_sweep_but_are_no_failure(train, here):
    settings = "optimizer.lr=1e-9 trainer.max_epochs=1 tracking.figures=false"
    alone = train(f"{settings} hydra.run.dir=run seed=2")
    assert (alone.code, "no better than guessing" in alone.line) == (0, True)
    assert "model.depth, model.activation or model.init" in alone.line
    sweep = train(f"-m {settings} optimizer.lr=1e-9,0.1 seed=1,2 name=s")
    assert sweep.code == 0, sweep.err
    assert "2 of 4 runs are no better than guessing" in sweep.err
    rows = load_results(here / "multirun/s")
    assert [row["status"] for row in rows] == ["chance", "chance", "ok", "ok"]
    assert rows[1]["message"].startswith(chance_level.MARK)


def test_a_configuration_at_chance_level_stays_in_the_ranking_of_the_terminal(train, here):
    settings = "trainer.max_epochs=1 tracking.figures=false optimizer.lr=1e-9,0.1 seed=1,2"
    shown = train(f"-m {settings} name=s")
    assert "best of 2 configurations, 1 of them at chance level, by mean val/loss" in shown.out
    assert sum("±" in line for line in shown.out.splitlines()) == 2
    assert "model.depth, model.activation or model.init" in shown.err


OLD_MESSAGE = "at chance level: in the last epoch train/acc 0.100 and train/loss 2.303 are no better than guessing"


def test_results_of_earlier_versions_that_called_chance_diverged_are_read_as_chance(train, here, monkeypatch):
    command = "-m optimizer.lr=1e-9 seed=1,2 trainer.max_epochs=1 tracking.figures=false name=s"
    assert train(command).code == 0
    directories = sorted((here / "multirun/s").glob("*/result.json"))
    for path in directories:
        old = replace(run_directory.read_result(path.parent), status="diverged", message=OLD_MESSAGE)
        path.unlink()
        run_directory.write_result(path.parent, old)
        assert '"diverged"' in path.read_text()
        assert run_directory.read_result(path.parent).status == "chance"
    again = train(command)
    assert (again.code, "2 of 2 runs are no better than guessing" in again.err) == (0, True)
    assert [path.read_text().count('"diverged"') for path in directories] == [1, 1]  # nothing was trained again
    table = here / "multirun/s/results.csv"
    table.write_text(table.read_text().replace(",chance,", ",diverged,"))
    assert [row["status"] for row in load_results(table)] == ["chance", "chance"]


def test_a_run_whose_loss_is_not_finite_stays_diverged():
    assert run_directory.current_status("diverged", "diverged in epoch 3: the loss is no longer finite") == "diverged"
    assert run_directory.current_status("diverged", None) == "diverged"


@pytest.mark.parametrize("flag", [None, *sorted(CUT_SHORT)])
def test_a_training_that_was_cut_short_on_purpose_is_not_judged(flag):
    cfg = Config(trainer=TrainerConfig(flags={flag: 1} if flag else {}))
    history = [{"train/loss": math.log(10), "train/acc": 0.1, "val/loss": math.log(10), "val/acc": 0.1}]
    prepared = data.prepare(cfg.data)
    told = conclude(cfg, prepared, RunRecord.of(cfg, history))
    assert (told.status, told.message is None) == (("ok", True) if flag else ("chance", False))
    blown = [history[0] | {"train/loss": math.inf}]
    assert conclude(cfg, prepared, RunRecord.of(cfg, blown)).status == "diverged"  # that is no question of time


@pytest.mark.parametrize("flag", ["max_steps=40", "limit_train_batches=2", "fast_dev_run=true"])
def test_nor_is_one_at_the_command_line(train, here, flag):
    ended = train(f"optimizer.lr=1e-9 trainer.max_epochs=1 tracking.figures=false hydra.run.dir=run +trainer.{flag}")
    assert (ended.code, ended.err) == (0, "")
    assert run_directory.read_result(here / "run").status == "ok"
