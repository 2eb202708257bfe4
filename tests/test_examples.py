"""The notebooks in examples/: executed in a small form, and committed without outputs."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
SMALL = {
    "course_notebook": "EPOCHS, SEEDS = 2, 2",
    "depth_width_activation": "SEEDS, EPOCHS = 2, 2",
    "own_data": "SEEDS, EPOCHS = 2, 3",
}
campaign = pytest.mark.skipif("MLPEXP_EXAMPLES" not in os.environ, reason="make test-examples: a minute")


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@by_name(EXAMPLES)
def test_a_notebook_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), "clear the outputs"
            compile(cell.source, str(path), "exec")
    assert path.stat().st_size < 40_000
    assert path.stem in SMALL
    assert sum("parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells) == 1


@campaign
@by_name(EXAMPLES)
def test_a_notebook_runs_from_top_to_bottom(path, here, monkeypatch):
    kernel = here / "jupyter" / "kernels" / "own"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "own", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(here / "jupyter"))
    notebook = nbformat.read(path, as_version=4)
    if os.environ["MLPEXP_EXAMPLES"] != "full":
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
        cell.source = SMALL[path.stem]
    resources = {"metadata": {"path": str(here)}}
    NotebookClient(notebook, timeout=600, kernel_name="own", resources=resources).execute()
    shown = json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "Traceback" not in shown
    if path.stem != "own_data":
        assert "<iframe srcdoc=" in shown, "the report is shown"
    assert list((here / "multirun").glob("*/results.csv"))
