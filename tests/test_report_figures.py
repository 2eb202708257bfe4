"""The report's figures say what the statistics say, and can be read."""

import itertools
import json
import math
import re
import shlex
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import report_sweeps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from report_sweeps import GRID
from test_figures import visible_texts, words

from mlpexp.analysis.statistics import Estimate
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.report import searched_trials
from mlpexp.report.figures import (
    canvas,
    cost_figure,
    curves_figure,
    effects_figure,
    heat_map_figure,
    ranking_figure,
    variance_figure,
)
from mlpexp.report.figures.svg import svg
from mlpexp.report.report_figure import DrawnKey, draw

LONG = {"model.activation": ["leaky_relu", "identity", "softplus"], "data.batch_size": [16, 64], "seed": range(2)}
SEVEN = {
    "model.depth": [1, 2],
    "model.width": [32, 64],
    "model.activation": ["tanh", "relu"],
    "optimizer.name": ["sgd", "adam"],
    "optimizer.lr": [0.01, 0.1],
    "data.shuffle": ["true", "false"],
    "model.init": ["orthogonal", "kaiming_uniform"],
    "seed": [0, 1],
}
SWEEPS = {
    "depth by width by activation": {"grid": GRID | {"seed": range(3)}, "layers": True},
    "one configuration": {"grid": {"seed": range(3)}},
    "one key": {"grid": {"optimizer.lr": [0.001, 0.01, 0.1], "seed": range(3)}},
    "many values": {"grid": {"optimizer.lr": [0.001 * 1.3**i for i in range(30)], "model.depth": [1, 2]}},
    "seven keys": {"grid": SEVEN},
    "long names": {"grid": LONG, "truth": lambda s: 0.9 if s["model.activation"] == "identity" else 0.1},
    "forty classes of a text": {"grid": {"+tag": [f"a rather long name {i}" for i in range(40)], "seed": [0, 1]}},
    "lists": {"grid": {"model.width": [16, "[64,32]", "[128,64,32]"], "seed": range(3)}},
}


@pytest.mark.thorough(sample=4)
@pytest.mark.parametrize(("name", "metric"), [*((name, "acc") for name in SWEEPS), ("long names", "loss")])
def test_no_text_overlaps_another_or_leaves_the_figure(name, metric, tmp_path):
    settings = dict(SWEEPS[name])
    grid = settings.pop("grid")
    found = list(draw(analyse(report_sweeps.write(tmp_path / "sweep", grid, **settings), metric)))
    assert found
    for drawn_name, picture in found:
        assert_texts_apart(drawn_name, picture.figure)


def assert_texts_apart(name, figure):
    """No text overlaps another or leaves the figure."""
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    for word, box in boxes:
        assert box.x0 >= -0.5, (name, word)
        assert box.y0 >= -0.5, (name, word)
        assert box.x1 <= figure.bbox.x1 + 0.5, (name, word)
        assert box.y1 <= figure.bbox.y1 + 0.5, (name, word)
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or up <= 1, f"{name}: {one!r} overlaps {other!r}"


def some(mean, half=0.01):
    return Estimate(mean, half, 5)


def drawn_key(label, levels):
    return DrawnKey(label=label, kind="numeric", levels=levels, indices=range(len(levels)))


def test_a_heat_map_writes_mean_and_interval_and_frames_the_best():
    parts = {
        "validation": {(0, 0, 0): some(0.9), (0, 0, 1): some(0.95), (0, 1, 0): some(0.8, math.nan)},
        "test": {(0, 0, 0): some(0.89), (0, 0, 1): some(0.94)},
    }
    rows, columns = (
        drawn_key("depth", ["1", "2"]),
        drawn_key("width", ["32", "64"]),
    )
    figure = heat_map_figure.heat_maps(rows, columns, None, parts, "acc", "accuracy", (0, 0, 1))
    shown = words(figure)
    assert {"0.900\n±0.010", "0.950\n±0.010", "0.800", "0.890\n±0.010", "0.940\n±0.010"} <= set(shown)
    assert {"depth", "width", "1", "2", "32", "64", "validation accuracy", "test accuracy"} <= set(shown)
    (axes,) = figure.axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    frames = [line.get_xydata() for line in axes.lines]
    assert len(frames) == 4  # two lines each on validation and test
    x, y = texts["0.950\n±0.010"]
    assert frames[0][:, 0].min() < x < frames[0][:, 0].max()
    assert frames[0][:, 1].min() < y < frames[0][:, 1].max()


def test_a_heat_map_of_several_panels_names_part_and_metric_once_above_each_column():
    parts = {part: {(p, 0, c): some(0.9) for p in range(2) for c in range(2)} for part in ("validation", "test")}
    axis = {key: drawn_key(key, levels) for key, levels in (("depth", ["1"]), ("width", "24"))}
    panels = drawn_key("activation", ["tanh", "relu"])
    shown = words(heat_map_figure.heat_maps(axis["depth"], axis["width"], panels, parts, "acc", "accuracy", None))
    assert [word for word in shown if word.startswith(("validation", "test"))] == [
        "validation accuracy",
        "test accuracy",
    ]
    assert shown.count("activation = tanh") == shown.count("activation = relu") == 2


def test_a_heat_map_keeps_its_differences_when_a_few_cells_have_failed():
    cells = {(0, r, c): some(0.95 + 0.001 * (3 * r + c)) for r in range(3) for c in range(3)}
    cells[0, 2, 2] = some(0.1)
    names = drawn_key("k", ["a", "b", "c"])
    shown = words(heat_map_figure.heat_maps(names, names, None, {"validation": cells}, "acc", "accuracy", None))
    assert any("or beyond" in word for word in shown)
    assert "0.100\n±0.010" in shown


def test_effects_draw_each_level_with_its_interval():
    parts = {"validation": [some(0.9), None], "test": [some(0.8)] * 2}
    (axes,) = effects_figure.draw_effects([(drawn_key("depth", ["1", "2"]), parts)], "acc").axes
    points = [line.get_ydata() for line in axes.get_lines() if line.get_marker() in "os"]
    np.testing.assert_array_equal(points[0], [0.9, np.nan])
    np.testing.assert_array_equal(points[1], [0.8, 0.8])
    bars = [segment[:, 1] for bar in axes.collections for segment in bar.get_segments() if len(segment) == 2]
    assert [0.89, 0.91] in [pytest.approx(sorted(bar)) for bar in bars]


def test_learning_curves_draw_the_mean_and_the_percentiles_of_the_seeds():
    rows = np.array([[0.1, 0.5, 0.9], [0.3, 0.7, np.nan]])
    low, middle, high = curves_figure.band(rows)
    np.testing.assert_allclose(middle, [0.2, 0.6, 0.9])
    np.testing.assert_allclose(low, [0.12, 0.52, 0.9])
    np.testing.assert_allclose(high, [0.28, 0.68, 0.9])
    figure = curves_figure.learning_curves([("depth=1", {"validation": (low, middle, high)})], "acc", "accuracy")
    (axes,) = figure.axes
    lines = [c for c in axes.collections if len(c.get_paths()) == 1 and len(c.get_paths()[0].vertices) == 3]
    heights = next(c.get_paths()[0].vertices[:, 1] for c in lines if np.ptp(c.get_paths()[0].vertices[:, 1]) > 0.5)
    assert (heights[1] - heights[0]) / (heights[2] - heights[0]) == pytest.approx(0.4 / 0.7)  # an honest axis


def test_a_run_that_stopped_early_leaves_a_gap_and_no_warning():
    low, middle, high = curves_figure.band(np.full((2, 4), np.nan))
    assert np.isnan([low, middle, high]).all()


def test_the_pareto_front_joins_what_nothing_cheaper_beats():
    price, mean = np.array([1.0, 2.0, 3.0]), np.array([0.8, 0.7, 0.9])
    front = np.array([True, False, True])
    (axes,) = cost_figure.cost([("parameters", price, front)], mean, np.full(3, 0.01), "acc", 2, "accuracy").axes
    joined = next(line for line in axes.get_lines() if line.get_label() == "Pareto front")
    np.testing.assert_array_equal(joined.get_xydata(), [[1, 0.8], [3, 0.9]])


def test_the_cost_figure_shows_the_whole_interval_of_the_best():
    mean, half, front = np.full(2, 0.878), np.full(2, 0.01), np.array([True, False])
    (axes,) = cost_figure.cost([("parameters", np.array([22.0, 42.0]), front)], mean, half, "acc", 1, "accuracy").axes
    low, high = axes.get_ylim()
    (intervals,) = axes.collections
    assert len(intervals.get_segments()) == 2
    assert all(low < segment[0, 1] < segment[1, 1] < high for segment in intervals.get_segments())


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("number", [2, 3, 8, 30])
def test_colours_of_ordered_levels_are_legible_on_light_and_on_dark_pages_and_rise(number):
    css = resources.files("mlpexp.report").joinpath("page.css").read_text()
    papers = [luminance(paper) for paper in re.findall(r"--paper:(#\w+)", css)[:2]]
    assert max(papers) == 1 and min(papers) < 0.01
    found = [luminance(colour) for colour in canvas.in_order(number)]
    assert found == sorted(found)
    for value in found:
        assert min((max(value, paper) + 0.05) / (min(value, paper) + 0.05) for paper in papers) >= 3


@pytest.mark.parametrize(
    ("distribution", "ticks"),
    [
        ({"low": 8, "high": 32, "step": 8}, ["8", "16", "24", "32"]),
        ({"low": 0.001, "high": 1.0, "log": True}, ["0.001", "0.01", "0.1", "1"]),
        ({"low": 0.02, "high": 0.9, "log": True}, ["0.02", "0.1", "0.9"]),
        ({"low": 0.0, "high": 0.9}, ["0", "0.25", "0.5", "0.9"]),
        ({"low": 1, "high": 1000, "log": True}, ["1", "10", "100", "1000"]),
    ],
)
def test_axes_of_searched_numbers_have_ticks_that_stay_apart(distribution, ticks):
    distributions = pytest.importorskip("optuna.distributions")
    low = distribution["low"]
    kind = distributions.IntDistribution if isinstance(low, int) else distributions.FloatDistribution
    key = searched_trials._key("x", kind(**distribution), [low])
    assert [text for _, text in key.ticks] == ticks
    places = [place for place, _ in key.ticks]
    assert places == sorted(places) and places[0] == 0 and places[-1] == 1


def test_shares_and_forests_have_a_line_for_each_name():
    figure = variance_figure.shares([("depth", 0.5, "key", "p = 0.01"), ("noise", 0.0001, "noise", "")], "acc")
    assert {"depth", "noise", "50.0%", "< 0.1%", "p = 0.01"} <= set(words(figure))
    figure = ranking_figure.forest("Best", ["a", "b"], {"test": [some(0.9), some(0.8, math.nan)]}, "acc")
    assert {"a", "b", "test", "Best"} <= set(words(figure))


@pytest.fixture(scope="module")
def drawn():
    hostile = "<script>alert(1)</script> & \"q\" 'x'"
    figure = ranking_figure.forest(hostile, [hostile, "0.123456"], {"test": [some(0.9), some(0.8)]}, "acc")
    return svg(figure, "best", hostile)


def test_an_svg_is_well_formed_and_holds_names_as_text(drawn):
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "<script>alert(1)</script> & \"q\" 'x'"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "0.123456" in texts  # what is written is not rounded with the coordinates
    assert "<script" not in drawn


def test_an_svg_has_no_inline_style_and_loads_nothing(drawn):
    assert "style=" not in drawn
    assert "<style" not in drawn
    assert "<image" not in drawn
    assert all(link.startswith("#best-") for link in re.findall(r'href="([^"]*)"', drawn))
    ids = set(re.findall(r' id="([^"]*)"', drawn))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', drawn))
    assert used <= ids
    assert all(one.startswith("best-") for one in ids)


@pytest.mark.parametrize("half", [0.0, 0.004, 0.05])
@pytest.mark.parametrize("best", [0.9, 0.996, 0.9999])
def test_ticks_of_the_cost_figure_stay_apart_when_an_interval_touches_accuracy_one(half, best):
    mean = np.array([0.6, 0.8, 0.85, best])
    sizes, front = np.array([100.0, 200, 400, 800]), np.ones(4, bool)
    figure = cost_figure.cost(
        [("parameters", sizes, front)], mean, np.array([0.01, 0.01, 0.01, half]), "acc", 3, "accuracy"
    )
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    assert low < mean.min() and mean.max() < high
    labels = [
        label.get_window_extent()
        for label in axes.get_yticklabels()
        if label.get_text() and low <= label.get_position()[1] <= high
    ]
    labels.sort(key=lambda box: box.y0)
    assert len(labels) >= 3
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(labels))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search with a pruner and a conditional key."""
    pytest.importorskip("optuna")
    from conftest import run_script

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("search"))
        ended = run_script(
            "train.py",
            shlex.split(
                "-m hydra/sweeper=optuna name=s optimizer.name=adam,sgd model.activation=tanh,relu,leaky_relu "
                "optimizer.momentum='interval(0,0.9)' optimizer.lr='tag(log,interval(0.003,1))' model.width=3 "
                "hydra.sweeper.n_trials=16 hydra.sweeper.pruner=median hydra.sweeper.batch_size=8 "
                "'hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}}' record=table "
                "trainer.max_epochs=5 data.batch_size=256 tracking.tensorboard=false"
            ),
        )
        assert ended.code == 0, ended.err
        return Path("multirun/s").absolute()


def test_a_search_has_its_history_importances_slices_and_parallel_coordinates(searched):
    from mlpexp.search import study_storage

    drawn = dict(draw(analyse(searched, "loss")))
    names, study = study_storage.load(searched)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert names == ["val/loss"] and len(study.trials) == 16 and 4 <= len(complete) < 16
    (history,) = drawn["search_history"].figure.axes
    points, crosses, best = history.get_lines()
    np.testing.assert_array_equal(points.get_xydata(), [(trial.number + 1, trial.value) for trial in complete])
    assert len(crosses.get_xdata()) == 16 - len(complete)
    assert best.get_ydata()[-1] == study.best_value
    (bars,) = drawn["search_importance"].figure.axes
    assert sum(bar.get_width() for bar in bars.patches) == pytest.approx(1)
    assert "momentum" in drawn["search_importance"].caption
    slices = {axes.get_title(): axes.collections[0].get_offsets() for axes in drawn["search_slices"].figure.axes}
    assert set(slices) == {"optimizer", "activation", "momentum", "lr"}
    expected = sorted(math.log(trial.params["optimizer.lr"] / 0.003) / math.log(1 / 0.003) for trial in complete)
    np.testing.assert_allclose(sorted(slices["lr"][:, 0]), expected)
    (lines,) = drawn["search_parallel"].figure.axes[0].collections
    assert len(lines.get_segments()) == len(complete)


@pytest.mark.parametrize(("state", "value"), [("COMPLETE", 1.0), ("PRUNED", 2.0), ("FAIL", math.nan)])
def test_a_pruned_trial_has_the_value_that_was_compared_last_and_a_failed_one_has_none(state, value):
    optuna = pytest.importorskip("optuna")
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState[state],
        value=1.0 if state == "COMPLETE" else None,
        intermediate_values={1: 3.0, 4: 2.0},
    )
    np.testing.assert_equal(searched_trials._value(trial), value)


def test_no_text_of_a_search_s_figures_overlaps_another(searched):
    for name, picture in draw(analyse(searched, "loss")):
        if name.startswith("search"):
            assert_texts_apart(name, picture.figure)


def study_in(directory, objectives, distributions, states="COMPLETE"):
    """A study with 12 trials, as a search leaves it."""
    optuna = pytest.importorskip("optuna")
    from mlpexp.search import objectives as search_objectives
    from mlpexp.search.study_journal import Journal

    directory.mkdir()
    (directory / "search.jsonl").touch()
    journal = Journal(directory / "optuna.log")
    study = optuna.create_study(
        study_name="mlpexp",
        storage=optuna.storages.JournalStorage(journal),
        directions=search_objectives.directions(objectives),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    study.set_user_attr("search", json.dumps({"objectives": ",".join(objectives)}))
    random = np.random.default_rng(0)
    for number in range(12):
        trial = study.ask(distributions)
        is_complete = states == "COMPLETE" or number % 2
        values = random.uniform(0.01, 0.99, len(objectives)).tolist() if is_complete else None
        study.tell(trial, values, state=None if is_complete else getattr(optuna.trial.TrialState, states))
    journal.flush()
    return study


def test_keys_of_all_kinds_have_labels_that_do_not_overlap(tmp_path):
    optuna = pytest.importorskip("optuna")
    from mlpexp.report.figures import search_figures
    from mlpexp.report.searched_trials import trials_of

    kinds = optuna.distributions
    study_in(tmp_path / "s", ["val/loss"], {
        "optimizer.lr": kinds.FloatDistribution(1e-30, 1e30, log=True),
        "optimizer.weight_decay": kinds.FloatDistribution(123456.5, 123457.5),
        "model.depth": kinds.IntDistribution(4, 4),
        "model.width": kinds.IntDistribution(1, 100_000, log=True),
        "model.bias": kinds.CategoricalDistribution(["true", "false"]),
        "model.activation": kinds.CategoricalDistribution(["a_very_long_name_of_an_activation", *"bcdefghijkl"]),
        "data.batch_size": kinds.CategoricalDistribution(["8"]),
        "model.norm": kinds.CategoricalDistribution(["none", "batch"]),
    }, states="FAIL")  # fmt: skip
    trials = trials_of(tmp_path / "s")
    (constant,) = [key for key in trials.keys if key.name == "depth"]
    assert (constant.ticks, set(constant.positions)) == ([(0.5, "4")], {0.5})
    for drawn in (search_figures.history, search_figures.importance, search_figures.slices, search_figures.parallel):
        assert_texts_apart(drawn.__name__, search_figures.in_house_style(drawn)(trials).figure)
    picture = search_figures.history(trials)
    assert "6 failed" in picture.caption
    assert all(float(tick).is_integer() for tick in picture.figure.axes[0].get_xticks())


@pytest.mark.parametrize("objectives", [["val/acc", "num_parameters"], ["val/acc", "val/loss", "seconds"]])
def test_a_search_with_several_objectives_has_the_front_of_optuna(objectives, tmp_path):
    optuna = pytest.importorskip("optuna")
    from mlpexp.report.figures import search_figures
    from mlpexp.report.searched_trials import front_of, trials_of

    study = study_in(tmp_path / "s", objectives, {"optimizer.lr": optuna.distributions.FloatDistribution(0, 1)})
    assert trials_of(tmp_path / "s") is None
    front = front_of(tmp_path / "s")
    best = sorted(trial.values for trial in study.best_trials)
    assert sorted(front.values[front.on_front].tolist()) == best and 0 < len(best) < 12
    picture = search_figures.in_house_style(search_figures.front)(front)
    assert len(picture.figure.axes) == math.comb(len(objectives), 2)
    drawn = picture.figure.axes[0].get_lines()[1].get_xydata()
    assert sorted(map(tuple, drawn)) == sorted((values[1], values[0]) for values in best)
    assert_texts_apart("front", picture.figure)


def test_other_sweeps_have_no_figures_of_a_search(tmp_path):
    sweep = report_sweeps.write(tmp_path / "sweep", {"optimizer.lr": [0.01, 0.1], "seed": range(2)})
    assert not [name for name, _ in draw(analyse(sweep, "acc")) if name.startswith("search")]
