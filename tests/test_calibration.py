"""A sample of the calibration of the statistics (`make calibrate` is the whole)."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent / "calibration"))

import calibrate
import rates
import real_sweeps
from simulated_sweeps import KINDS, LAYOUTS, simulate

FEW = 200  # sweeps


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_means_of_simulated_sweeps_are_those_of_many_seeds(kind):
    sweeps = simulate(kind, "spread", sweeps=1, configurations=3, seeds=40_000, r=0.9, seed=1)
    mean = np.nanmean(sweeps.reported[0], axis=1)
    error = np.nanstd(sweeps.reported[0], axis=1) / np.sqrt(20_000)
    assert (np.abs(mean - sweeps.truth[0]) < 4 * error).all()


@pytest.mark.parametrize("r", [0.7, 0.9])
def test_validation_and_test_are_correlated_as_asked(r):
    sweeps = simulate("normal", "equal", sweeps=1, configurations=1, seeds=20_000, r=r, seed=1)
    assert np.corrcoef(sweeps.decisive.ravel(), sweeps.reported.ravel())[0, 1] == pytest.approx(r, abs=0.01)


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seeds", [3, 6])
def test_comparisons_keep_the_family_wise_error(layout, seeds):
    found = rates.comparisons(simulate("normal", layout, sweeps=FEW, configurations=6, seeds=seeds, r=0.9, seed=2))
    for rate in calibrate.KEPT["comparisons"]:
        assert not found.interval(rate)[0] > calibrate.MOST_ERRORS, found.spelled(rate)
    if layout != "equal":
        assert found.value("power") > found.value("Holm power")


def test_the_suite_sees_comparisons_without_a_correction(monkeypatch):
    compare = rates.compare

    def uncorrected(*arguments, **options):
        found = compare(*arguments, **options)
        return dataclasses.replace(found, adjusted=found.p)

    monkeypatch.setattr(rates, "compare", uncorrected)
    found = rates.comparisons(simulate("normal", "equal", sweeps=FEW, configurations=6, seeds=3, r=0.9, seed=2))
    assert found.interval("family")[0] > calibrate.MOST_ERRORS


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_of_the_best_covers_its_true_mean(kind):
    found = rates.best_scores(simulate(kind, "equal", sweeps=FEW, configurations=20, seeds=5, r=0.9, seed=3))
    assert found.interval("coverage")[1] >= calibrate.LEAST_COVERAGE, found.spelled("coverage")
    assert found.interval("Student")[1] < calibrate.LEAST_COVERAGE or kind == "heavy tails"  # the suite sees the curse
    assert abs(found.means["bias corrected"]) < 0.12 < found.means["bias of the mean"]


def test_holms_method_is_that_of_the_textbook():
    sweeps = simulate("normal", "half", sweeps=1, configurations=5, seeds=8, r=0.9, seed=4)
    [(_, reported, _)], best = [one for one, _ in rates.each(sweeps)], 0
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    p = np.array([stats.ttest_rel(reported[i], reported[j]).pvalue for i, j in pairs])
    limit = next((k for k, value in enumerate(np.sort(p)) if value > 0.05 / (len(p) - k)), len(p))
    rejected = {pairs[k] for k in np.argsort(p)[:limit]}
    claimed = rates._holm(reported, best)
    assert {(0, j) for j in range(1, 5) if claimed[j]} == {pair for pair in rejected if pair[0] == best}


def test_seeds_of_one_network_are_dealt_into_equal_configurations(here):
    small = ("data=iris", "model.width=3", "trainer.max_epochs=1", "stack.engine=torch")
    scores = real_sweeps.trained(here / "null", 12, *small)
    decisive, accuracy = -scores["val/loss"][0], scores["test/acc"][0]
    sweeps = real_sweeps.dealt(decisive, accuracy, sweeps=4, configurations=3, seeds=4)
    assert np.isfinite(sweeps.decisive).all() and sweeps.decisive.shape == (4, 3, 4)
    for dealt, reported in zip(sweeps.decisive, sweeps.reported, strict=True):
        assert sorted(dealt.ravel()) == sorted(decisive)
        assert sorted(reported.ravel()) == sorted(accuracy)
    with pytest.raises(ValueError, match="more than the 12"):
        real_sweeps.dealt(decisive, accuracy, sweeps=1, configurations=4, seeds=4)


def test_sweeps_drawn_from_a_grid_share_their_seeds():
    reported = np.arange(12.0).reshape(3, 4)
    sweeps = real_sweeps.drawn(-reported, reported, sweeps=5, seeds=2)
    assert sweeps.reported.shape == (5, 3, 2)
    np.testing.assert_array_equal(sweeps.decisive, -sweeps.reported)
    np.testing.assert_array_equal(np.ptp(sweeps.reported % 4, axis=1), 0)  # one seed is one column of the grid
    np.testing.assert_array_equal(sweeps.truth, np.tile([1.5, 5.5, 9.5], (5, 1)))
