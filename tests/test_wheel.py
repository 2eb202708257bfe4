"""The built wheel in a fresh environment: commands, configuration and Python functions, without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ENTRY_POINTS

ROOT = Path(__file__).parents[1]
campaign = pytest.mark.skipif("MLPEXP_WHEEL" not in os.environ, reason="make test-wheel: half a minute")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the checkout without git, as from an archive of the sources."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("src", "conf", "scripts"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=place, check=True, capture_output=True
    )
    (found,) = (place / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The `bin` of an environment that has the wheel, and sees the packages of this one except mlpexp itself."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    (site,) = place.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--prefix", place, wheel], check=True
    )
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    # not through site: the checkout's own .pth must not count
    (site / "others.pth").write_text("\n".join(others) + "\n")
    command = place / "bin" / "mlpexp"
    command.write_text(f"#!{place}/bin/python\nfrom mlpexp.__main__ import main\nmain()\n")
    return place / "bin"


def call(installed, *words, cwd, code=0):
    environment = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [installed / words[0], *words[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended.stderr
    return ended


def test_the_wheel_has_what_the_checkout_has(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for directory in ("conf", "scripts"):
        for path in (ROOT / directory).rglob("*.*"):
            if "__pycache__" not in path.parts:
                assert f"mlpexp/{path.relative_to(ROOT)}" in names
    assert {"mlpexp/py.typed", "mlpexp/report/page.html.j2"} <= names
    assert any(name.endswith("METADATA") and "-0.2" in name for name in names), "the version without git"


@campaign
def test_every_script_is_a_command(installed, here):
    said = call(installed, "mlpexp", cwd=here).stdout
    for name in ENTRY_POINTS:
        assert f"  {Path(name).stem} " in said
        shown = call(installed, "mlpexp", Path(name).stem, "--help", cwd=here).stdout
        assert "scripts/" not in shown
        assert "mlpexp" in shown
    wrong = call(installed, "mlpexp", "trian", cwd=here, code=2).stderr
    assert wrong == "mlpexp: unknown command 'trian'; did you mean train?\n"
    assert call(installed, "mlpexp", "--version", cwd=here).stdout.startswith("mlpexp 0.2")


@campaign
def test_it_trains_reports_and_advises_outside_of_a_checkout(installed, here):
    words = ("data=iris", "trainer.max_epochs=2", "stack.engine=torch")
    said = call(installed, "mlpexp", "train", "-m", *words, "seed=0,1", "name=s", cwd=here).stdout
    assert "mlpexp report multirun/s" in said
    assert (here / "multirun/s/results.csv").is_file()
    call(installed, "mlpexp", "report", "multirun/s", cwd=here)
    page = (here / "multirun/s/report/index.html").read_text()
    assert "mlpexp train data=iris" in page
    assert "scripts/train.py" not in page
    error = call(installed, "mlpexp", "train", "model.dept=3", cwd=here, code=2).stderr
    assert error == "mlpexp train: unknown key 'model.dept'; did you mean model.depth?\n"


@campaign
def test_two_hundred_and_seventy_networks_in_six_lines(installed, here):
    lines = [
        "import mlpexp",
        "grid = {'model.depth': [1, 2, 3], 'model.width': [8, 16, 32], 'model.activation': ['tanh', 'relu', 'gelu']}",
        "results = mlpexp.sweep(grid | {'seed': range(10)}, data='iris', name='grid', trainer={'max_epochs': 2})",
        "results.report()",
    ]
    shown = "\nimport json; print(json.dumps([mlpexp.__file__, len(results), results.report()._repr_html_()[:7]]))"
    (here / "cell.py").write_text("\n".join(lines) + shown)
    place, runs, start = json.loads(call(installed, "python", "cell.py", cwd=here).stdout)
    assert not Path(place).is_relative_to(ROOT)
    assert (runs, start) == (270, "<iframe")


def test_the_command_of_the_checkout_is_the_script(here):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(
        [sys.executable, "-m", "mlpexp", "report", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith("usage: report.py")
