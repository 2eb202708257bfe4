"""The studies' theory, against what is known of it, and each study's verdict on tables made up for it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mlpexp import data as datasets
from mlpexp.config.schema import DataConfig, ModelConfig
from mlpexp.data.prepared_data import prepare
from mlpexp.nn.diagnostics import inspect
from mlpexp.nn.initialisation import initialise
from mlpexp.report.studies import (
    depth_width_activation,
    edge_of_chaos,
    learning_rate_transfer,
    mean_field,
    notebook_variants,
    seed_luck,
    vanishing,
    width_double_descent,
)
from mlpexp.report.studies.mean_field import critical_sigma_w, fixed_point
from mlpexp.store import atomic_files
from mlpexp.store.results_table import load_results


def test_without_biases_the_edge_of_chaos_is_at_one():
    assert critical_sigma_w(0.0) == pytest.approx(1.0, abs=2e-3)
    scales = {sigma: fixed_point(sigma, 0.0).depth_scale for sigma in (0.6, 0.8, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0)}
    assert max(scales, key=lambda sigma: scales[sigma]) == 1.0
    # in the ordered phase the signal dies out and tanh is the identity: each layer multiplies by sigma_w²
    assert scales[0.8] == pytest.approx(-1 / math.log(0.64), rel=1e-6)


def test_the_variance_is_that_of_a_wide_random_network():
    sigma_w, sigma_b, width = 1.8, 0.3, 1000
    generator = np.random.default_rng(0)
    h = generator.standard_normal(width)
    for _ in range(12):
        x = generator.standard_normal((width, width)) @ h * sigma_w / math.sqrt(width)
        x += sigma_b * generator.standard_normal(width)
        h = np.tanh(x)
    assert fixed_point(sigma_w, sigma_b).variance == pytest.approx(float(x.var()), rel=0.15)


def test_two_inputs_forget_each_other_at_the_rate_of_the_depth_scale():
    point = fixed_point(1.8, 0.3)
    q, c, distances = point.variance, 0.0, []
    for _ in range(12):
        first, second = mean_field._pair(q, c)
        c = float(1.8**2 * (mean_field.WEIGHTS @ (np.tanh(first) * np.tanh(second)) @ mean_field.WEIGHTS) + 0.09) / q
        distances.append(point.correlation - c)
    assert distances[-1] / distances[-2] == pytest.approx(math.exp(-1 / point.depth_scale), rel=0.02)


@pytest.mark.parametrize("sigma_b", [0.0, edge_of_chaos.SIGMA_B])
@pytest.mark.parametrize("sigma_w", [0.8, 1.1, 1.33, 1.7, 2.1])
def test_the_quadrature_has_converged_over_the_whole_map(monkeypatch, sigma_w, sigma_b):
    coarse = fixed_point(sigma_w, sigma_b)
    nodes, weights = np.polynomial.hermite_e.hermegauss(128)
    monkeypatch.setattr(mean_field, "NODES", nodes)
    monkeypatch.setattr(mean_field, "WEIGHTS", weights / math.sqrt(2 * math.pi))
    fine = fixed_point(sigma_w, sigma_b)
    assert coarse.variance == pytest.approx(fine.variance, rel=1e-3, abs=1e-9)
    assert coarse.correlation == pytest.approx(fine.correlation, abs=1e-3)
    assert coarse.slope == pytest.approx(fine.slope, rel=1e-3)
    assert coarse.depth_scale == pytest.approx(fine.depth_scale, rel=0.01)


def test_thirty_layers_learn_near_the_edge_of_chaos_and_hardly_on_either_side(train):
    assert train("-m experiment=edge_of_chaos model.depth=30 model.sigma_w=0.8,1.4,2.1").code == 0
    rows = load_results(Path("multirun/edge_of_chaos"))
    ordered, edge, chaotic = (
        np.mean([row["train/acc"] for row in rows if row["model.sigma_w"] == sigma]) for sigma in (0.8, 1.4, 2.1)
    )
    assert edge > 0.5
    assert ordered < 0.2
    assert chaotic < edge - 0.2


def test_networks_that_learn_to_twice_the_depth_scale_are_told_so():
    rows = [
        {"model.sigma_w": s, "model.depth": d, "train/acc": 1 / (1 + (d / (2 * scale)) ** 4) * 0.5 + 0.05}
        for s in (0.9, 1.0, 1.1, 1.2, 1.5, 1.6, 1.8, 2.0)
        if (scale := fixed_point(s, edge_of_chaos.SIGMA_B).depth_scale)
        for d in (1, 2, 3, 5, 8, 12, 20, 30, 50, 80)
    ]
    assert "is 2.0 depth scales" in edge_of_chaos.verdict(rows).sentences[2]


def test_the_seeds_that_are_enough_are_those_of_the_normal_distribution():
    generator = np.random.default_rng(1)
    values = np.round(0.95 + 0.01 * generator.standard_normal(4000), 3)
    rows = [{"seed": i, "status": "ok", "test/acc": float(v)} for i, v in enumerate(values)]
    said = seed_luck.verdict(rows).sentences
    assert "standard deviation 0.0100" in said[0]
    assert "24% where they differ by 1.0%" in said[2]  # the normal's tail beyond 1 / sqrt(2)
    assert "6 for 1.0%" in said[3]


def test_the_best_rate_is_found_between_those_of_the_grid():
    rates = [0.001 * 2**i for i in range(7)]
    losses = np.exp([0.3 * (math.log(rate) - math.log(0.011)) ** 2 for rate in rates])
    assert learning_rate_transfer.best_rate(rates, losses) == pytest.approx(0.011, rel=1e-6)


def test_a_drifting_optimum_is_told_from_one_that_stays():
    rows = [
        {"model.parametrization": which, "model.width": w, "optimizer.lr": rate,
         "train/loss": math.exp((math.log(rate) - math.log(0.016 / (w / 32 if which == "standard" else 1))) ** 2)}
        for which in ("standard", "mup") for w in (32, 64, 128) for rate in (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    ]  # fmt: skip
    said = learning_rate_transfer.verdict(rows).sentences[1]
    assert "4.0 in the standard parametrization, 1.0 in muP" in said


def test_in_mup_the_best_rate_moves_less_over_widths_than_in_the_standard_parametrization(train):
    """Trained for real: one epoch, the widths 32 and 256, rates by factors of two."""
    small = (
        "model.width=32,256 seed=0,1 data.batch_size=32 trainer.max_epochs=1 "
        "optimizer.lr=0.001,0.002,0.004,0.008,0.016,0.032,0.064 tracking.tensorboard=false"
    )
    assert train(f"-m experiment=learning_rate_transfer {small}").code == 0
    said = learning_rate_transfer.verdict(load_results(Path("multirun/learning_rate_transfer"))).sentences
    standard, mup = (float(number) for number in re.findall(r"([\d.]+) in (?:the standard|muP)", said[1]))
    assert standard > 2.5
    assert mup < 0.6 * standard


def test_a_peak_is_found_where_there_is_one():
    rows = [
        {"data.label_noise": 0.2, "model.width": w, "num_parameters": 75 * w + 10, "seed": seed,
         "test/acc": 1 - (0.3 - 0.01 * seed + 0.2 * (w == 32)), "train/acc": 1.0 if w >= 32 else 0.7,
         "test/loss": 1.0 + (w == 32) + 0.5 * (w < 8)}
        for w in (2, 4, 8, 16, 32, 64, 128) for seed in (0, 1)
    ]  # fmt: skip
    said = width_double_descent.verdict(rows).sentences[0]
    assert "from width 32 (2,410 parameters) on" in said
    assert "test error 0.295 at width 2, 0.495 at 32 (+0.200 ± 0.000), 0.295 at 128" in said
    assert "test loss 1.000 at width 8, 2.000 at 32 (+1.000 ± 0.000), 1.000 at 128" in said


def test_the_notebooks_grid_is_told_with_intervals_at_the_rate_that_validation_prefers(train):
    grid = "model.depth=1,3 model.width=8,16 model.activation=tanh,relu optimizer.lr=0.001,0.3 seed=0,1"
    assert train(f"-m experiment=depth_width_activation {grid} trainer.max_epochs=2").code == 0
    analysis = depth_width_activation.read(Path("multirun/depth_width_activation"))
    chosen = depth_width_activation.at_own_rate(analysis)
    rows = load_results(Path("multirun/depth_width_activation"))
    of = [row for row in rows if (row["model.depth"], row["model.width"], row["model.activation"]) == (1, 16, "tanh")]
    assert chosen[0, 1, 0].mean == pytest.approx(np.mean([r["test/acc"] for r in of if r["optimizer.lr"] == 0.3]))
    assert len(chosen) == 8
    said = depth_width_activation.verdict(analysis).sentences
    assert said[0].startswith("Best by validation loss: ")
    assert any(line.startswith("Test accuracy by lr, over all else: 0.001 ") and "±" in line for line in said)


def _spreads(activation, init, depth=6):
    """Forwards and backwards: the factor from one layer to the next on real digits, before any training."""
    model = ModelConfig(depth=depth, width=100, activation=activation, init=init)
    data = prepare(datasets.load(DataConfig()), DataConfig())
    inputs, labels = data.part("train")
    network = model.network(64, 10)
    numbers, _ = inspect(network, initialise(network, model, 0), inputs[:256], labels[:256])
    backwards = numbers.gradient_std[:depth].flip(0)
    return vanishing.per_layer(numbers.activation_std.numpy()), vanishing.per_layer(backwards.numpy())


def test_signals_vanish_with_the_usual_weights_and_last_with_normalised_ones():
    assert _spreads("tanh", "fan_in_uniform") == pytest.approx((3**-0.5, 3**-0.5), abs=0.05)
    assert min(_spreads("tanh", "xavier_uniform")) > 0.85
    assert _spreads("sigmoid", "xavier_uniform")[1] < 0.3


def test_a_deep_sigmoid_network_does_not_learn_where_a_tanh_network_does(train):
    small = "model.depth=4 seed=0 trainer.max_epochs=6 model.width=40"
    assert train(f"-m experiment=vanishing {small}").code == 0
    rows = vanishing.read(Path("multirun/vanishing"))
    assert all(row["inside"]["gradient_std"].shape == (7, 5) for row in rows)
    reached = {(row["model.activation"], row["model.init"]): row["train/acc"] for row in rows}
    assert reached["tanh", "xavier_uniform"] > 0.9
    assert reached["sigmoid", "xavier_uniform"] < 0.2
    said = vanishing.verdict([{**row, "model.depth": 4, "seed": 0} for row in rows]).sentences
    assert said[-1] == (
        "All seeds learn with sigmoid: standard up to no depth (9% of the training samples right at depth 4); "
        "normalised up to no depth (9% of the training samples right at depth 4)."
    )


def test_the_notebooks_variants_are_told_apart_by_what_they_are():
    curve = {"val/loss": np.array([[1.5, 0.5, 0.4, 0.3]]), "val/acc": np.array([[0.5, 0.7, 0.8, 0.9]])}
    off = {**curve, "val/loss": curve["val/loss"] * (1 + 1e-7)}
    rows = [
        {"model.init": init, "model.variant": variant, "tracking.figures": alone,
         "curves": off if variant == "backprop" else curve}
        for init in ("notebook", "torch") for variant in ("backprop", "autograd", "torch_nn") for alone in (True, False)
    ]  # fmt: skip
    said = notebook_variants.verdict(rows).sentences[1]
    assert "by hand 1e-07, autograd nothing, to the bit, stack nothing, to the bit" in said


def test_a_study_writes_beside_its_sweep_and_replaces_a_page_only_when_asked(train, here, monkeypatch):
    assert train("-m experiment=seed_luck 'seed=range(4)' trainer.max_epochs=1").code == 0
    pages = Path(__file__).parents[1] / "docs/studies/images"
    before = {path: path.stat().st_mtime_ns for path in pages.iterdir()}
    ended = run_script("study.py", ["seed_luck"])
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "multirun/seed_luck/study/seed_luck.png"
    text = (here / "multirun/seed_luck/study/seed_luck.txt").read_text()
    assert text.strip() in ended.out
    assert {path: path.stat().st_mtime_ns for path in pages.iterdir()} == before
    assert run_script("study.py", ["seed_luck"]).code == 0  # again, over its own files
    (here / "mine").mkdir()
    (here / "mine/seed_luck.png").write_text("precious")
    refused = run_script("study.py", ["seed_luck", "--out", "mine"])
    assert (refused.code, "choose another directory with --out DIR" in refused.line) == (2, True)
    assert (here / "mine/seed_luck.png").read_text() == "precious"
    written = {}
    monkeypatch.setattr(atomic_files, "write", lambda path, content: written.update({path: content}))
    assert run_script("study.py", ["seed_luck", "--pages"]).code == 0
    assert list(written) == [pages / "seed_luck.png"]


def test_the_time_of_an_epoch_leaves_the_first_one_out(train, here):
    assert train("-m experiment=notebook_variants model.init=torch trainer.max_epochs=3 data.batch_size=256").code == 0
    rows = [row for row in notebook_variants.read(Path("multirun/notebook_variants")) if row["epoch_s"] is not None]
    times = notebook_variants._epoch_times(rows)
    assert set(times) == {"by hand", "autograd", "torch.nn"}
    for row in rows:
        [events] = (Path("multirun/notebook_variants") / row["name"]).glob("events.out.tfevents.*")
        loaded = EventFileLoader(str(events)).Load()
        ends = [event.wall_time for event in loaded if any(v.tag == "train/loss" for v in event.summary.value)]
        assert len(ends) == 3
        assert row["epoch_s"] == pytest.approx(float(np.median(np.diff(ends))))
    assert times["torch.nn"] == next(r["epoch_s"] for r in rows if r["model.variant"] == "torch_nn")
    one = train("hydra.run.dir=one trainer.max_epochs=3 tracking.figures=false")
    assert re.search(r"s of training, \d+ ms an epoch \(median after the first\)", one.out)
    assert "an epoch" not in train("hydra.run.dir=two trainer.max_epochs=1 tracking.figures=false").out


def test_seeds_at_chance_level_count_and_diverged_ones_do_not():
    values = [("ok", 0.9), ("ok", 0.92), ("chance", 0.1), ("diverged", float("nan"))]
    rows = [{"seed": i, "status": status, "test/acc": value} for i, (status, value) in enumerate(values)]
    said = seed_luck.verdict(rows).sentences
    assert said[0].startswith("3 seeds: test accuracy 0.6400 in the mean")
    assert "Worst 0.1000 (seed 2)" in said[1]
