"""Printed commands work where they are printed: with or without an active environment, from any directory."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENTRY_POINTS, SCRIPTS

from mlpexp.runtime import shell_commands

BIN = Path(sys.executable).parent
ROOT = SCRIPTS.parent


def test_in_an_active_environment_the_names_are_enough(monkeypatch, here):
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert shell_commands.script("train.py", "-m", "seed=range(5)") == "python scripts/train.py -m 'seed=range(5)'"
    assert shell_commands.tool("tensorboard", "--logdir", "a b") == "tensorboard --logdir 'a b'"


def test_without_it_the_path_of_this_python_is_given(monkeypatch, here):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "train.py")])
    command = shlex.split(shell_commands.script("report.py", "--help"))
    assert command == [sys.executable, str(SCRIPTS / "report.py"), "--help"]
    monkeypatch.chdir(BIN.parents[1])
    assert shell_commands.tool("tensorboard") == str(BIN.relative_to(Path.cwd()) / "tensorboard")
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    assert shell_commands.script("report.py").endswith("bin/python scripts/report.py")


@pytest.mark.parametrize("directory", [ROOT, ROOT / "docs"], ids=["the repository", "another directory"])
def test_a_printed_command_works_when_pasted(directory):
    """A shell without the environment, in which a script was started by its path."""
    script = os.path.relpath(SCRIPTS / "train.py", directory)
    program = f"""
import sys
sys.argv[0] = {script!r}
from mlpexp.runtime import shell_commands
print(shell_commands.script("export.py", "--help"))
"""
    environment = {"PATH": "/usr/bin:/bin"}
    said = subprocess.check_output([sys.executable, "-c", program], cwd=directory, env=environment, text=True)
    pasted = subprocess.run(
        said, shell=True, cwd=directory, env=environment, capture_output=True, text=True, check=True
    )
    assert pasted.stdout.startswith("usage: export.py")


@pytest.mark.parametrize("script", ENTRY_POINTS)
def test_without_the_packages_a_script_ends_with_one_line(script, here):
    base = next(path for path in (Path(sys.base_prefix, "bin", "python3"), Path("/usr/bin/python3")) if path.exists())
    ended = subprocess.run(
        [base, "-S", SCRIPTS / script, "seed=range(3)"], capture_output=True, text=True, check=False, env={}
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"{script}: mlpexp, hydra, torch, lightning cannot be imported by ")
    advice = ended.stderr.rpartition("; ")[2]
    if (ROOT / ".venv/bin/python").exists():
        assert shlex.split(advice.partition(": ")[2])[-2:] == [os.path.relpath(SCRIPTS / script), "seed=range(3)"]
    else:
        assert advice == f"set the environment up first: make -C {ROOT} setup\n"
