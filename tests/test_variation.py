"""Kinds of variation: what an interval covers, the test sample by counts and by recorded hits."""

import json

import numpy as np
import pytest
from scipy import stats

from mlpexp.analysis import best_score, load_sweep, run_files, variation
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.report import sentences
from mlpexp.store import run_directory, test_hits

SMALL = "model.width=5 trainer.max_epochs=2 tracking.tensorboard=false tracking.figures=false data=iris"
RECORD = f"{SMALL} tracking.test_hits=true"


@pytest.mark.parametrize(
    ("repeated", "redraws_test", "covers"),
    [
        ({"seed"}, True, [variation.RUNS]),
        ({"data.fold"}, True, [variation.TRAINING]),
        ({"seed", "data.fold"}, False, [variation.RUNS, variation.TRAINING]),
        ({"data.seed"}, True, [variation.TRAINING, variation.TEST]),
        ({"data.seed"}, False, [variation.TRAINING]),
        (set(), True, []),
    ],
)
def test_an_interval_covers_the_kinds_of_variation_that_were_repeated(repeated, redraws_test, covers):
    found, missing = variation.covered(repeated, redraws_test)
    assert found == covers
    assert sorted([*found, *missing]) == sorted([variation.RUNS, variation.TRAINING, variation.TEST])


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (255, 270), (270, 270)])
def test_counts_have_the_interval_of_wilson(hits, samples):
    interval = stats.binomtest(hits, samples).proportion_ci(method="wilson")
    assert variation.binomial_interval(hits / samples, samples) == pytest.approx((interval.low, interval.high))


def test_the_bootstrap_agrees_with_the_standard_error_over_samples():
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=2000)
    hits = np.stack([(rng.uniform(size=(4, 2000)) > hard * scale).mean(axis=0) for scale in (0.1, 0.2, 0.2)])
    found = variation.bootstrap(hits, 0)
    for low, high, values in [
        (found.low, found.high, hits[0]),
        (found.difference_low[1], found.difference_high[1], hits[0] - hits[1]),
    ]:
        half = 1.96 * values.std() / np.sqrt(2000)
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)
    assert found.samples == 2000
    assert np.isnan([found.difference[0], found.difference_low[0], found.difference_high[0]]).all()


def test_configurations_are_compared_on_the_test_samples_that_both_have():
    hits = np.array([[1.0, 1, 0, 1, np.nan, np.nan], [np.nan, 0, 0, 0, 1, 1], [np.nan] * 4 + [1.0, 1]])
    found = variation.bootstrap(hits, 0)
    assert found.samples == 4
    assert found.difference[1] == pytest.approx(2 / 3)
    assert np.isnan(found.difference[2])
    assert variation.bootstrap(hits[[2, 0]] * np.nan, 0) is None


def test_hits_are_read_as_they_were_written():
    text = test_hits.encode(np.array([True, False, True]), np.array([1, 2, 4, 5]), 7)
    assert text == "-10-1--\n"
    np.testing.assert_equal(test_hits.decode(text), [np.nan, 1, 0, np.nan, 1, np.nan, np.nan])


@pytest.mark.parametrize("text", ["", "10", "1x0\n", "1\n0\n", "1é\n"])
def test_another_text_is_no_record_of_hits(text):
    assert test_hits.decode(text) is None


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("variant", ["torch_nn", "autograd", "backprop"])
def test_a_run_alone_records_the_hits_of_its_accuracy(train, here, variant):
    assert train(f"{RECORD} model.variant={variant} hydra.run.dir=run").code == 0
    hits = test_hits.decode((here / "run/test_hits.txt").read_text())
    result = run_directory.read_result(here / "run")
    assert result.test_samples == np.isfinite(hits).sum() > 10
    assert result.metrics["test/acc"] == pytest.approx(np.nanmean(hits))
    assert "test_hits.txt" in result.files


def test_a_stack_records_what_runs_alone_record_whatever_the_back_end(train, here):
    grid = f"-m {RECORD} stack.engine=torch model.width=4,5 data.seed=0,1"
    for words in ("record=run", "record=table", "record=run hydra/launcher=basic"):
        place = words.replace("/", "_").replace(" ", "_").replace("=", "_")
        assert train(f"{grid} {words} hydra.sweep.dir={place}").code == 0
        table, sources = load_sweep.read(here / place)
        hits = run_files.hits(here / place, table.names, sources.results)
        np.testing.assert_allclose(np.nanmean(hits, axis=1), table.values["test/acc"], rtol=1e-12)
        if words == "record=run":
            first = hits
        np.testing.assert_equal(hits, first)
    assert hits.shape == (4, 150)


def test_nothing_is_recorded_unless_asked_for_and_the_identity_is_the_same(train, here):
    assert train(f"{SMALL} hydra.run.dir=without").code == 0
    assert train(f"{RECORD} hydra.run.dir=with").code == 0
    assert not (here / "without/test_hits.txt").exists()
    results = [run_directory.read_result(here / name) for name in ("without", "with")]
    assert results[0].identity == results[1].identity
    assert results[0].metrics == results[1].metrics


def test_a_continued_run_records_the_hits_of_its_new_weights(train, here):
    for name, epochs in (("short", 2), ("long", 4)):
        assert train(f"{RECORD} hydra.run.dir={name} trainer.max_epochs={epochs}").code == 0
    assert train("resume=short trainer.max_epochs=4").code == 0
    assert (here / "short/test_hits.txt").read_bytes() == (here / "long/test_hits.txt").read_bytes()


def test_a_result_of_an_earlier_version_is_read(train, here):
    assert train(f"{SMALL} hydra.run.dir=run").code == 0
    path = here / "run/result.json"
    content = json.loads(path.read_text())
    assert content.pop("test_samples") == 22
    del content["sha256"]
    older = json.dumps(content | {"sha256": run_directory.seal(content)})
    assert run_directory.parse_result(older, path).test_samples == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_the_report_says_what_the_interval_covers_and_how_the_test_sample_varies(train, here, recorded):
    words = f"{RECORD if recorded else SMALL} record=table model.width=4,5 seed=0,1,2 hydra.sweep.dir=sweep"
    assert train(f"-m {words}").code == 0
    analysed = analyse(here / "sweep")
    said = sentences.headline(analysed)
    assert "The interval covers initialisation and batch order; fixed: training sample, test sample." in said
    [sample] = [one for one in said if "22 other test samples" in one]
    found = variation.sample_variation(analysed.study, analysed.sources, analysed.best)
    if recorded:
        assert f"[{found.low:.4f}, {found.high:.4f}]" in sample and "lead over the runner-up" in sample
        mean = analysed.ranking.estimate(analysed.best, "test/acc").mean
        assert found.low <= mean <= found.high
    else:
        assert found is None
        assert "tracking.test_hits=true" in sample


def test_a_test_file_of_its_own_is_not_drawn_again(train, here):
    for name, rows in (("all", range(40)), ("test", range(40, 60))):
        lines = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in rows]
        (here / f"{name}.csv").write_text("\n".join(["x,y,label", *lines]) + "\n")
    words = "data=csv data.path=all.csv data.target=label data.seed=0,1 model.width=3 trainer.max_epochs=1 record=table"
    assert train(f"-m {words} hydra.sweep.dir=drawn").code == 0
    assert train(f"-m {words} data.test_path=test.csv hydra.sweep.dir=given").code == 0
    for place, covers in (("drawn", "training sample, test sample"), ("given", "training sample")):
        fixed = "initialisation and batch order" + ", test sample" * (place == "given")
        assert f"The interval covers {covers}; fixed: {fixed}." in sentences.headline(analyse(here / place))


def test_the_interval_includes_the_rounding_to_counts_of_test_samples(train, here):
    words = f"-m {SMALL} seed=0,1 record=table hydra.sweep.dir=sweep"
    assert train(words).code == 0
    analysed = analyse(here / "sweep")
    accuracies = analysed.study.values["test/acc"]
    found = best_score.score_of_best(analysed.blocks, analysed.ranking, "test/acc", samples=22)
    half = 12.706 * np.sqrt(accuracies.var(ddof=1) + 1 / 22**2 / 2) / np.sqrt(2)
    ends = (max(0, accuracies.mean() - half), min(1, accuracies.mean() + half))  # an accuracy is a share
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-4)
    assert f"interval over 2 seeds [{found.low:.4f}, {found.high:.4f}]" in sentences.headline(analysed)[1]
