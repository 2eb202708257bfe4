"""Figures say what the numbers say, and can be read."""

import io
import itertools
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from mlpexp.tracking import figures

NAN = math.nan
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 17, size=(60, 8, 8)).astype(float)
TRUE = RNG.integers(0, 10, size=60)
PREDICTED = np.where(np.arange(60) % 2, TRUE, (TRUE + 1) % 10)  # 30 of 60 wrong
CONFIDENCE = RNG.permutation(np.linspace(0.2, 0.99, 60))
LONG_NAMES = ["setosa", "a very long class name", "$x^$", "two\nlines", "=1+1"]


def history(losses, accuracies):
    return [
        {"train/loss": loss, "val/loss": 1.1 * loss, "train/acc": acc, "val/acc": 0.9 * acc}
        for loss, acc in zip(losses, accuracies, strict=True)
    ]


FALLING = history(2.3 * np.exp(-np.arange(20) / 8), 1 - np.exp(-np.arange(1, 21) / 8))
DIVERGED = history([2.3, 2.3e2, 2.3e5, *[NAN] * 5], [0.1] * 8)

FIGURES = {
    "curves": lambda: figures.learning_curves(FALLING, 12),
    "curves, one epoch": lambda: figures.learning_curves(FALLING[:1], 0),
    "curves, long": lambda: figures.learning_curves(history(np.geomspace(3, 1e-6, 1000), np.linspace(0, 1, 1000))),
    "curves, diverged": lambda: figures.learning_curves(DIVERGED, 0),
    "curves, never finite": lambda: figures.learning_curves(history([NAN] * 3, [NAN] * 3)),
    "curves, all large": lambda: figures.learning_curves(history(np.linspace(1e10, 1.25e10, 9), [0.1] * 9)),
    "curves, no epoch": lambda: figures.learning_curves([]),
    "gallery": lambda: figures.sample_gallery(IMAGES, TRUE, [42, 7, 13]),
    "gallery, named": lambda: figures.sample_gallery(IMAGES, np.array(LONG_NAMES * 12), list(range(9))),
    "confusion": lambda: figures.confusion_matrix(RNG.integers(0, 50, (10, 10)), [str(c) for c in range(10)]),
    "confusion, large": lambda: figures.confusion_matrix(RNG.integers(0, 99999, (5, 5)), LONG_NAMES),
    "confusion, two": lambda: figures.confusion_matrix(np.array([[50, 3], [0, 0]]), ["no", "yes"]),
    "confusion, many": lambda: figures.confusion_matrix(np.eye(120, dtype=int), [f"class {c}" for c in range(120)]),
    "confusion, empty": lambda: figures.confusion_matrix(np.zeros((3, 3), int), ["a", "b", "c"]),
    "mistakes": lambda: figures.mistakes(IMAGES, TRUE, PREDICTED, CONFIDENCE),
    "mistakes, named": lambda: figures.mistakes(
        IMAGES, TRUE, PREDICTED, CONFIDENCE, class_names=["MMMMMMMMMMMMMM"] * 10, limit=3
    ),
    "mistakes, one": lambda: figures.mistakes(IMAGES[:1], TRUE[:1], PREDICTED[:1], CONFIDENCE[:1]),
    "mistakes, none": lambda: figures.mistakes(IMAGES, TRUE, TRUE, CONFIDENCE),
    "weights": lambda: figures.first_layer_weights(RNG.normal(size=(50, 64))),
    "weights, many": lambda: figures.first_layer_weights(RNG.normal(size=(128, 64))),
    "weights, one": lambda: figures.first_layer_weights(RNG.normal(size=(1, 64))),
    "weights, not finite": lambda: figures.first_layer_weights(np.full((4, 64), NAN)),
    "weights, zero": lambda: figures.first_layer_weights(np.zeros((4, 20)), shape=(4, 5)),
    "layers": lambda: figures.layer_lines(RNG.uniform(0.1, 0.5, (20, 3)), "gradient norm", "L2"),
    "layers, wide": lambda: figures.layer_lines(np.geomspace(1e-12, 1e3, 80).reshape(4, 20), "gradient norm"),
    "layers, share": lambda: figures.layer_lines(RNG.uniform(size=(5, 2)), "saturated units", "share", "share"),
    "layers, dead": lambda: figures.layer_lines(np.zeros((3, 2)), "gradient norm"),
    "layers, no epoch": lambda: figures.layer_lines(np.zeros((0, 2)), "gradient norm"),
}


def visible_texts(figure) -> list[Text]:
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            out = [tick for tick in ticks if not axes.axison or not low <= tick.get_loc() <= high]
            hidden.update(label for tick in out for label in (tick.label1, tick.label2))
        if not axes.axison:
            hidden.update((axes.xaxis.label, axes.yaxis.label))
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in texts if text not in hidden and text.get_text().strip()]


def words(figure) -> list[str]:
    return [text.get_text() for text in visible_texts(figure)]


def ticks(axis) -> list[str]:
    low, high = axis.get_view_interval()
    return [t.label1.get_text() for t in axis.get_major_ticks() if low <= t.get_loc() <= high]


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_no_text_overlaps_another_or_leaves_the_figure(draw):
    figure = draw()
    figures.png(figure)
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    assert boxes or figure.axes
    for word, box in boxes:
        assert box.x0 >= -0.5, word
        assert box.y0 >= -0.5, word
        assert box.x1 <= figure.bbox.x1 + 0.5, word
        assert box.y1 <= figure.bbox.y1 + 0.5, word
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or up <= 1, f"{one!r} overlaps {other!r}"


def test_a_png_has_the_size_that_it_says_and_something_on_it():
    content, width, height = figures.png(figures.learning_curves(FALLING))
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    assert picture.size == (width, height) == (1000, 400)
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10


def test_dpi_scales_a_png():
    figure = figures.learning_curves(FALLING)
    assert figures.png(figure, dpi=200)[1:] == (2000, 800)
    assert figures.png(figure)[1:] == (1000, 400)


def test_the_callers_matplotlib_settings_neither_change_nor_count():
    plain = figures.png(figures.learning_curves(FALLING))[0]
    with mpl.rc_context({"axes.facecolor": "black", "text.color": "white", "font.size": 30, "axes.grid": True}):
        before = dict(mpl.rcParams)
        assert figures.png(figures.learning_curves(FALLING))[0] == plain
        assert dict(mpl.rcParams) == before


def test_learning_curves_draw_train_and_validation_over_epochs_from_zero():
    loss, accuracy = figures.learning_curves(FALLING, 12).axes
    for axes, metric in ((loss, "loss"), (accuracy, "acc")):
        for line, part in zip(axes.get_lines()[:2], ("train", "val"), strict=True):
            assert list(line.get_xdata()) == list(range(20))
            assert list(line.get_ydata()) == [row[f"{part}/{metric}"] for row in FALLING]
        assert [t.get_text() for t in axes.get_legend().get_texts()] == [
            "train",
            "validation",
            "best epoch: 12",
        ]
        assert list(axes.get_lines()[2].get_xdata()) == [12, 12]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nats)", "accuracy (share correct)")
    assert accuracy.get_ylim() == (0, 1)
    assert loss.get_ylim()[0] == 0
    assert loss.get_ylim()[1] >= 1.1 * 2.3


def test_a_loss_over_two_decades_gets_a_logarithmic_axis_that_says_so():
    loss, _ = figures.learning_curves(history(np.geomspace(2, 1e-3, 30), [0.5] * 30)).axes
    assert loss.get_yscale() == "log"
    assert loss.get_ylabel() == "loss (nats), log scale"
    low, high = loss.get_ylim()
    assert low < 1e-3
    assert high > 2.2


def test_epochs_that_are_not_finite_are_shaded_and_named():
    loss, accuracy = figures.learning_curves(DIVERGED).axes
    assert "not finite from epoch 3" in [t.get_text() for t in loss.get_legend().get_texts()]
    assert len(accuracy.get_legend().get_texts()) == 2


def test_a_metric_that_was_not_measured_is_no_divergence():
    loss, _ = figures.learning_curves([{"train/loss": 1.0, "train/acc": 0.5}] * 3).axes
    assert [t.get_text() for t in loss.get_legend().get_texts()] == ["train", "validation"]


def test_a_gallery_shows_the_chosen_samples_with_their_labels():
    figure = figures.sample_gallery(IMAGES, TRUE, [42, 7])
    (axes,) = figure.axes
    assert words(figure) == [str(TRUE[42]), str(TRUE[7]), "sample 42", "sample 7"]
    pixels = axes.get_images()[0].get_array()
    np.testing.assert_array_equal(pixels[:8, :8], IMAGES[42])
    np.testing.assert_array_equal(pixels[:8, -8:], IMAGES[7])


def test_a_confusion_matrix_writes_counts_and_colours_shares_of_the_true_class():
    counts = np.array([[8, 2, 0], [0, 1, 1], [0, 0, 0]])
    figure = figures.confusion_matrix(counts, ["a", "b", "c"])
    axes = figure.axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((0, 0), "8"),
        ((1, 0), "2"),
        ((1, 1), "1"),
        ((2, 1), "1"),
    }
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.8, 0.2, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert ticks(axes.xaxis) == ["a", "b", "c"]
    assert "Accuracy 0.750: 9 of 12 right" in words(figure)


def test_mistakes_are_the_wrong_ones_most_confident_first():
    figure = figures.mistakes(IMAGES, TRUE, PREDICTED, CONFIDENCE, limit=20)
    wrong = sorted(np.flatnonzero(TRUE != PREDICTED), key=lambda i: -CONFIDENCE[i])[:20]
    titles = [text.get_text() for text in figure.axes[0].texts]
    assert titles == [f"{TRUE[i]} → {PREDICTED[i]}  {CONFIDENCE[i]:.2f}" for i in wrong]
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array()[:8, :8], IMAGES[wrong[0]])
    assert "30 of 60 misclassified: the 20 most confident" in words(figure)


def test_mistakes_have_a_legend():
    assert "true → predicted class, probability of the latter" in words(
        figures.mistakes(IMAGES, TRUE, PREDICTED, CONFIDENCE)
    )


def test_layer_lines_begin_before_training_where_that_was_recorded():
    (axes,) = figures.layer_lines(np.array([[1.0], [0.1], [0.2]]), "gradient norm", "L2", first_epoch=-1).axes
    assert axes.get_lines()[0].get_xdata().tolist() == [-1, 0, 1]
    assert axes.get_xlabel() == "epoch (-1: before training)"


def test_no_mistakes_are_said_to_be_none():
    assert words(figures.mistakes(IMAGES, TRUE, TRUE, CONFIDENCE)) == ["0 of 60 misclassified"]


@pytest.mark.parametrize(("width", "title"), [(50, "all 50 units"), (128, "64 of 128 units")])
def test_first_layer_weights_share_one_symmetric_scale(width, title):
    weights = RNG.normal(size=(width, 64))
    figure = figures.first_layer_weights(weights)
    (image,) = figure.axes[0].get_images()
    low, high = image.get_clim()
    assert -low == high == np.abs(weights[:64]).max()
    np.testing.assert_array_equal(image.get_array()[:8, :8], weights[0].reshape(8, 8))
    assert f"First-layer weights: {title}" in words(figure)


def test_layer_lines_leave_gaps_where_a_logarithm_has_no_value():
    values = np.array([[1.0, 0.0], [0.1, 0.5], [math.inf, 0.25]])
    (axes,) = figures.layer_lines(values, "gradient norm", "L2").axes
    first, second = (line.get_ydata() for line in axes.get_lines())
    np.testing.assert_array_equal(first, [1.0, 0.1, NAN])
    np.testing.assert_array_equal(second, [NAN, 0.5, 0.25])
    assert axes.get_yscale() == "log"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["layer 0", "layer 1"]


def test_shares_are_drawn_from_zero_to_one():
    (axes,) = figures.layer_lines(np.array([[0.0, 0.02]]), "saturated units", "share", "share").axes
    assert axes.get_ylim() == (0, 1)
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [0.0, 0.02]


@pytest.mark.parametrize("low", [1e-9, 0.0001, 1, 12345], ids=str)
@pytest.mark.parametrize("span", [1.3, 4, 30, 1e15], ids=str)
def test_a_logarithmic_axis_has_labels_that_are_their_values(low, span):
    figure = figures.layer_lines(np.array([[low], [low * span]]), "gradient norm")
    figures.png(figure)
    labels, places = ticks(figure.axes[0].yaxis), figure.axes[0].get_yticks()
    shown = [p for p in places if figure.axes[0].get_ylim()[0] <= p <= figure.axes[0].get_ylim()[1]]
    assert len(labels) >= 2
    assert [float(label) for label in labels] == pytest.approx(shown)


def test_a_name_in_a_script_that_the_font_lacks_is_no_warning():
    figures.png(figures.confusion_matrix(np.eye(2, dtype=int), ["猫", "\U0001f600"]))
