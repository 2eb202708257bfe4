"""What a notebook shows of an error or a stop of a Python call, and what it can do afterwards."""

import re
import signal
import subprocess
import sys

import pytest

import mlpexp
from mlpexp.api import python_settings
from mlpexp.config.overrides import parse
from mlpexp.runtime import signals


def call(**settings):
    mlpexp.run(**settings)  # the user's line


def test_an_error_is_shown_as_the_users_line_and_the_message(here):
    with pytest.raises(mlpexp.ConfigError) as caught:
        call(model={"depht": 2}, optimizer={"lr": -1})
    line, *message = "\n".join(caught.value._render_traceback_()).splitlines()
    assert re.fullmatch(rf"{re.escape(__file__)}, line \d+: mlpexp\.run\(\*\*settings\)  # the user's line", line)
    assert message[0].startswith("ConfigError: ") and len(message) == 2
    assert "did you mean model.depth?" in "\n".join(message)


def test_an_error_that_was_never_raised_is_shown_by_its_message():
    assert mlpexp.UserError("no")._render_traceback_() == ["UserError: no"]


def test_ipython_shows_nothing_more(here):
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.colors = "NoColor"
shell.run_cell("import mlpexp; mlpexp.load_sweep('nowhere')")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert len(lines) == 2 and "load_sweep('nowhere')" in lines[0]
    assert lines[1].startswith("UserError: nowhere does not exist")


def test_a_stop_outside_the_training_is_a_keyboard_interrupt_with_one_line(here, monkeypatch):
    from mlpexp.api import hydra_session

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hydra_session.sweep_syntax, "for_hydra", interrupt)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT") as caught:
        call()
    assert caught.value._render_traceback_()[1] == "Stopped: stopped by SIGINT; finished runs are kept"


def test_a_stop_while_modules_are_imported_waits_until_they_are():
    done = []
    with pytest.raises(KeyboardInterrupt), signals.importing():
        signal.raise_signal(signal.SIGINT)
        done.append("imported")
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_import_that_fails_is_still_an_error_and_the_handler_returns():
    with pytest.raises(ImportError), signals.importing():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_call_from_python_has_the_overrides_of_the_command():
    written = python_settings.sweep_call("python scripts/train.py -m name=x model.width=8,4 'seed=range(3,35)'")
    grid = eval(written.removeprefix("mlpexp.sweep"))
    assert python_settings.grid_overrides(grid) == ["name=x", "model.width=8,4", "seed=range(3,35)"]
    assert [parse(text).key for text in grid] == ["name", "model.width", "seed"]


def test_commands_that_follow_each_other_are_calls_that_do():
    written = python_settings.sweep_call("a/train.py -m name=x seed=1 && a/train.py -m name=x 'seed=range(2)'")
    assert written.splitlines() == ["mlpexp.sweep(['name=x', 'seed=1'])", "mlpexp.sweep(['name=x', 'seed=range(2)'])"]
