"""What a person sees: a bar while it trains, a table when it is done, what to type next."""

import ast
import io
import logging
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from mlpexp.cli import console
from mlpexp.config.schema import Config, OptimizerConfig, TrainerConfig
from mlpexp.runtime import rich_console
from mlpexp.runtime.terminal import TerminalFormatter, say, wrapped
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
    assert resume.proposed_epochs(cfg, result) == epochs


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


HOSTILE = "\x1b]0;title\x07\x1b[2Jred\x9b31m\u202egnp.exe"


def test_control_characters_of_a_name_are_shown_as_escapes(capsys):
    say(f"a class called {HOSTILE}", "second line\twith a tab")
    said = capsys.readouterr().out
    assert said == ("a class called \\x1b]0;title\\x07\\x1b[2Jred\\x9b31m\\u202egnp.exe\nsecond line\twith a tab\n")
    screen = rich_console.Console(file=(text := io.StringIO()), force_terminal=True, width=200)
    table = Table()
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    screen.print(HOSTILE, markup=False, highlight=False)
    screen.print(table)
    shown = text.getvalue()
    assert shown.count("\\x1b]0;title") == 3
    assert not set(shown) & set("\x07\x9b\u202e")
    assert "\x1b[2J" not in shown


def test_a_hostile_name_never_reaches_the_terminal_raw(train, here: Path):
    (here / "t.csv").write_text(f"a,y{HOSTILE}\n" + "".join(f"{i},{i % 2}\n" for i in range(20)), encoding="utf-8")
    ended = train(["data=csv", "data.path=t.csv", "data.target=y"])
    assert ended.code == 2
    assert "\\x1b]0;title" in ended.err
    assert not set(ended.err) & set("\x07\x9b\x1b\u202e")
    for words in (["model.activation=\x1b[31m"], ["\x1b[31mx=1"], ["-m", "seed=1,2", "model.init=\x1b[31m"]):
        assert "\x1b" not in train(words).err


def test_a_log_message_on_the_terminal_is_escaped():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "class %s", (HOSTILE,), None)
    assert "\x1b" not in TerminalFormatter("%(message)s").format(record)


def test_everything_is_printed_through_one_door():
    source = Path(__file__).parents[1]
    found = set()
    for path in [*(source / "src/mlpexp").rglob("*.py"), *(source / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add(path.name)
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                found.add(path.name)
    # the door itself; words of our own for a shell; before the environment is known to be there
    assert found == {"terminal.py", "hydra_app.py", "require_environment.py"}


@pytest.mark.parametrize("width", [44, 80, 120])
def test_a_sentence_is_broken_between_words_in_a_terminal_only_and_its_commands_never(monkeypatch, width):
    path = "multirun/" + 60 * "x"
    command = "python scripts/train.py -m " + " ".join(f"model.width={n}" for n in range(20))
    said = (
        f"Each interval covers initialisation and batch order; fixed: training sample, test sample, {path}.\n{command}"
    )
    assert wrapped(said, "  ") == "  " + said.replace("\n", "\n    ")  # a file: one line each
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    *lines, last = wrapped(said, "  ").split("\n")
    assert last == f"    {command}"
    assert all(len(line) <= width for line in lines if path not in line)
    assert " ".join(line.strip() for line in lines) == said.split("\n", maxsplit=1)[0]
