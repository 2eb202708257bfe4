"""Where a sample is two numbers: what the network says everywhere, after a run and in a sweep's report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlpexp import load_results
from mlpexp.store import checkpoint_files, file_names
from mlpexp.tracking import figures
from mlpexp.training import decision_boundary

Train = Callable[..., Outcome]
SWEEP = "-m name=s trainer.max_epochs=3 optimizer.lr=0.5 model.width=4,8 seed=0,1"


@pytest.fixture
def seen(monkeypatch) -> list[dict]:
    """What was drawn, figure by figure."""
    found: list[dict] = []
    draw = figures.boundary

    def spy(points, labels, field, extent, class_names, *rest):
        found.append({"points": points, "labels": labels, "field": field, "extent": extent, "words": rest[-1]})
        return draw(points, labels, field, extent, class_names, *rest)

    monkeypatch.setattr(figures, "boundary", spy)
    return found


def agrees(drawn: dict, checkpoint: Path) -> float:
    """The share of grid points at which torch alone, from the checkpoint's weights, says what was drawn."""
    content = checkpoint_files.load(checkpoint)
    features = checkpoint_files.described_data(checkpoint, content).features
    left, right, bottom, top = drawn["extent"]
    rows, columns = drawn["field"].shape
    across, up = np.meshgrid(np.linspace(left, right, columns), np.linspace(bottom, top, rows))
    raw = np.stack([across, up], axis=-1).reshape(-1, 2)
    x = torch.from_numpy((raw - features.shift) / features.scale).float()
    state = content["state_dict"]
    x = torch.tanh(torch.nn.functional.linear(x, state["layers.0.weight"], state["layers.0.bias"]))
    x = torch.nn.functional.linear(x, state["layers.1.weight"], state["layers.1.bias"])
    return float((x.argmax(-1).numpy().reshape(rows, columns) == drawn["field"]).mean())


@pytest.mark.parametrize("variant", ["torch_nn", "backprop"])
def test_a_run_ends_with_its_decision_boundary_on_disk_and_in_tensorboard(train: Train, here, seen, variant):
    words = f"data=spirals data.samples=200 trainer.max_epochs=2 model.variant={variant} tracking.diagnostics=false"
    assert train(f"hydra.run.dir=run {words}").code == 0
    assert (here / "run/figures/decision_boundary.png").read_bytes().startswith(b"\x89PNG")
    tags = EventAccumulator(str(here / "run")).Reload().Tags()
    assert "visual/decision_boundary" in tags["images"]
    (drawn,) = seen
    assert drawn["words"] == "test samples"
    assert set(np.unique(drawn["field"])) == {0, 1, 2}
    assert agrees(drawn, here / "run" / file_names.BEST) > 0.999
    left, right, bottom, top = drawn["extent"]
    assert ((drawn["points"] > (left, bottom)) & (drawn["points"] < (right, top))).all()


def test_samples_of_more_than_two_numbers_have_none(train: Train, here):
    assert train("hydra.run.dir=run data=iris trainer.max_epochs=1 tracking.diagnostics=false").code == 0
    assert not (here / "run/figures/decision_boundary.png").exists()


def test_points_without_a_finite_answer_stay_blank():
    field = np.full((4, 4), -1)
    field[2:] = 1
    figure = figures.boundary(np.zeros((1, 2)), np.array([1]), field, (-1, 1, -1, 1), ["a", "b"], ("x", "y"))
    _, width, height = figures.png(figure)
    assert (width, height) == (720, 580)
    assert len(figure.axes[0].collections) == 2  # the one class's region, and its samples


def test_the_report_shows_the_boundary_of_the_best_run_and_goes_without_it_quietly(train: Train, here, seen):
    assert train(f"{SWEEP} data=moons data.samples=200").code == 0
    place = here / "multirun/s"

    def page() -> str:
        ended = run_script("report.py", [str(place)])
        assert (ended.code, ended.err) == (0, "")
        return (place / "report/index.html").read_text()

    text = page()
    by_width: dict[int, list[dict]] = {}
    for row in load_results(place):
        by_width.setdefault(row["model.width"], []).append(row)
    best = min(by_width.values(), key=lambda rows: float(np.mean([row["val/loss"] for row in rows])))
    name = min(best, key=lambda row: row["val/loss"])["name"]
    assert 'id="boundary"' in text
    assert name in text[text.index('id="boundary"') :]
    assert "<image" not in text  # which the page's own policy would block
    assert agrees(seen[0], place / name / file_names.BEST) > 0.999
    (place / name / file_names.BEST).write_bytes(b"damaged")
    assert 'id="boundary"' not in page()
    shutil.rmtree(place / name)
    assert 'id="boundary"' not in page()
    assert not (place / "report/figures/boundary.png").exists()


def test_a_file_that_has_changed_since_is_not_drawn(train: Train, here):
    rows = [f"{i % 7},{(i * 5) % 11},{'ab'[i % 2]}" for i in range(60)]
    (here / "t.csv").write_text("\n".join(["u,v,kind", *rows]) + "\n")
    words = "data=csv data.path=t.csv data.target=kind trainer.max_epochs=1 tracking.figures=false"
    assert train(f"hydra.run.dir=run {words} tracking.diagnostics=false").code == 0
    checkpoint = here / "run" / file_names.BEST
    assert decision_boundary.draw_run(checkpoint, 10) is not None
    (here / "t.csv").write_text("\n".join(["u,v,kind", *rows, "0,0,a"]) + "\n")
    assert decision_boundary.draw_run(checkpoint, 10) is None
    (here / "t.csv").unlink()
    assert decision_boundary.draw_run(checkpoint, 10) is None
