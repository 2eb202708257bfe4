"""The built wheel in a fresh environment: commands, configuration and Python functions, without a checkout."""

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
from conftest import ENTRY_POINTS
from nbclient import NotebookClient

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
def test_a_notebook_trains_two_hundred_and_seventy_networks_and_shows_the_report_in_six_lines(
    installed, here, monkeypatch
):
    kernel = here / "jupyter" / "kernels" / "fresh"
    kernel.mkdir(parents=True)
    command = [str(installed / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "fresh", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(here / "jupyter"))
    cells = [
        "import mlpexp\n"
        "grid = {'model.depth': [1, 2, 3], 'model.width': [8, 16, 32], 'model.activation': ['tanh', 'relu', 'gelu']}\n"
        "results = mlpexp.sweep(grid | {'seed': range(10)}, data='iris', name='grid')\n"
        "results.report()",
        "mlpexp.__file__, len(results)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(here)}}
    NotebookClient(notebook, timeout=600, kernel_name="fresh", resources=resources).execute()
    (shown,) = (item.data["text/html"] for item in notebook.cells[0].outputs if item.output_type == "execute_result")
    assert shown.startswith("<iframe srcdoc=")
    place, runs = ast.literal_eval(notebook.cells[1].outputs[0].data["text/plain"])
    assert not Path(place).is_relative_to(ROOT)
    assert runs == 270


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
