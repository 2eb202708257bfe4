"""What a person sees: a bar while it trains, a table when it is done, what to type next."""

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mlpexp.cli import console
from mlpexp.config.schema import Config, OptimizerConfig, TrainerConfig
from mlpexp.store.run_directory import Result
from mlpexp.training import resume

RESULT = Result(
    status="ok",
    metrics={
        "train/loss": 0.1234567,
        "train/acc": 0.9,
        "val/loss": 0.2,
        "val/acc": 0.8,
        "test/loss": 0.3,
        "test/acc": 0.7,
    },
    objective=0.2,
    monitor="val/loss",
    epoch=6,
    epochs=10,
    identity="",
    data_digest="",
    seconds={"fit": 0.44},
    versions={},
    num_parameters=3760,
)


def shown(
    capsys: pytest.CaptureFixture[str], result: Result, directory: str = "outputs/run", further: int | None = 20
) -> str:
    console.show(result, Path(directory), further)
    return capsys.readouterr().out


def test_the_table_names_the_epoch_and_all_three_parts(capsys):
    said = shown(capsys, RESULT)
    assert said.startswith("epoch 6, the best by val/loss, of epochs 0 to 9\n")
    assert "3,760 parameters, 0.4 s of training" in said
    for part, loss, accuracy in (
        ("training", "0.1235", "0.9000"),
        ("validation", "0.2000", "0.8000"),
        ("test", "0.3000", "0.7000"),
    ):
        line = next(line for line in said.splitlines() if part in line and "│" in line)
        assert loss in line
        assert accuracy in line


def test_what_one_would_type_next_can_be_copied_whatever_the_name(capsys):
    name = "outputs/a b [bold]'x' " + "y" * 150
    said = shown(capsys, RESULT, name).splitlines()
    assert f"tensorboard --logdir 'outputs/a b [bold]'\"'\"'x'\"'\"' {'y' * 150}'" in said[-2]
    assert said[-1].endswith("trainer.max_epochs=20")


def test_numbers_that_are_none_are_shown_as_such(capsys):
    diverged = replace(RESULT, status="diverged", objective=math.nan, metrics=RESULT.metrics | {"val/loss": math.nan})
    said = shown(capsys, diverged, further=None)
    assert "epoch 6, the last, of epochs 0 to 9" in said
    assert "nan" in said
    assert "resume=" not in said


@pytest.mark.parametrize(
    ("cfg", "result", "epochs"),
    [
        (Config(), RESULT, 20),
        (Config(trainer=TrainerConfig(max_epochs=30)), replace(RESULT, epochs=30), 60),
        (Config(trainer=TrainerConfig(max_epochs=30)), RESULT, None),  # stopped early
        (Config(optimizer=OptimizerConfig(schedule="cosine")), RESULT, None),
        (Config(), replace(RESULT, status="diverged"), None),
    ],
)
def test_training_further_is_proposed_only_where_it_is_possible(cfg: Config, result: Result, epochs: int | None):
    assert resume.further(cfg, result) == epochs


def test_there_is_no_bar_where_nobody_looks(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert console.bar(10) is None


def test_the_bar_shows_epochs_loss_and_accuracy(train, here: Path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        console,
        "Console",
        lambda stderr=False: Console(file=screen, force_terminal=True, width=120) if stderr else Console(),
    )
    monkeypatch.setattr(console, "bar", console.EpochBar)
    outcome = train("hydra.run.dir=run trainer.max_epochs=2 tracking.figures=false")
    assert outcome.code == 0
    assert "2/2" in screen.getvalue()
    assert "val/loss" in screen.getvalue()
    assert "val/acc" in screen.getvalue()
    off = io.StringIO()
    monkeypatch.setattr(console, "Console", lambda stderr=False: Console(file=off if stderr else None))
    train("hydra.run.dir=off trainer=smoke trainer.enable_progress_bar=false tracking.figures=false")
    assert off.getvalue() == ""
