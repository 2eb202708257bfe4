"""The score of the chosen configuration, corrected for the choice."""

import numpy as np
import pytest
import report_sweeps
from scipy import stats

from mlpexp.analysis.best_score import best_score, score_of_best
from mlpexp.analysis.sweep_analysis import analyse


def draw(configurations, repetitions, seed=0, missing=0.0):
    """Validation and test scores that are correlated, with some runs missing from both."""
    rng = np.random.default_rng(seed)
    decisive = rng.normal(size=(configurations, repetitions))
    reported = 0.8 * decisive + 0.6 * rng.normal(size=decisive.shape)
    gone = rng.random(decisive.shape) < missing
    gone[:, :2] = False
    decisive[gone], reported[gone] = np.nan, np.nan
    return decisive, reported, int(np.nanmean(decisive, axis=1).argmax())


def test_a_single_configuration_has_the_mean_and_students_interval():
    decisive, reported, best = draw(1, 7)
    found = best_score(decisive, reported, best, grain=0)
    interval = stats.ttest_1samp(reported[0], 0).confidence_interval(0.95)
    assert found.mean == found.corrected == pytest.approx(reported.mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.repetitions, found.choices) == (7, 1)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_each_repetition_is_scored_by_the_configuration_that_the_others_choose(missing):
    decisive, reported, best = draw(6, 5, seed=1, missing=missing)
    scores = []
    for b in range(5):
        there = [c for c in range(6) if np.isfinite(reported[c, b])]
        if there:
            chosen = max(there, key=lambda c: np.nanmean(np.delete(decisive[c], b)))
            scores.append(reported[chosen, b])
    assert best_score(decisive, reported, best).corrected == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("repetitions", [2, 3, 10])
def test_a_clear_winner_keeps_its_mean_and_nearly_its_own_interval(repetitions):
    decisive, reported, _ = draw(5, repetitions)
    decisive[3] += 1000
    reported[3] += 1000
    found = best_score(decisive, reported, 3, grain=0)
    alone = best_score(decisive[3:4], reported[3:4], 0, grain=0)
    assert found.choices == 1
    assert (found.corrected, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_among_equal_configurations_the_correction_and_the_interval_go_towards_the_worse():
    found = [best_score(*draw(20, 5, seed), higher_is_better=True) for seed in range(100)]
    bias = np.mean([one.mean for one in found])
    assert bias > 0.5  # of scores with mean 0 and standard deviation 1
    assert abs(np.mean([one.corrected for one in found])) < 0.15
    assert all(one.mean - one.low >= one.high - one.mean for one in found)


def test_a_loss_is_treated_as_the_mirrored_gain():
    decisive, reported, best = draw(8, 4, seed=2)
    gain = best_score(decisive, reported, best, grain=0.01)
    loss = best_score(decisive, -reported, best, higher_is_better=False, grain=0.01)
    assert (loss.mean, loss.corrected, loss.low, loss.high) == (-gain.mean, -gain.corrected, -gain.high, -gain.low)


def test_equal_counts_are_no_proof_of_a_variance_of_zero():
    reported = np.full((3, 3), 268 / 270)
    found = best_score(reported, reported, 0, grain=1 / 270)
    assert found.low < 267.5 / 270 < found.mean < found.high


@pytest.mark.parametrize("shape", [(4, 1), (1, 1)])
def test_one_repetition_has_a_mean_and_nothing_else(shape):
    decisive, reported, best = np.ones(shape), np.full(shape, 0.5), 0
    found = best_score(decisive, reported, best)
    assert found.mean == 0.5
    assert np.isnan([found.corrected, found.low, found.high]).all()


def test_folds_have_a_wider_interval_than_seeds():
    decisive, reported, best = draw(1, 5)
    seeds = best_score(decisive, reported, best, grain=0)
    folds = best_score(decisive, reported, best, grain=0, sampling=0.25)
    ratio = (folds.high - folds.low) / (seeds.high - seeds.low)
    assert ratio == pytest.approx(np.sqrt((1 / 5 + 0.25) / (1 / 5)))


def test_configurations_that_could_not_be_chosen_do_not_count():
    decisive, reported, _ = draw(4, 5)
    decisive[1] = np.nan
    best = int(np.nanargmax(np.where(np.isnan(decisive).any(1), np.nan, decisive.mean(1))))
    without = [0, 2, 3]
    found = best_score(decisive, reported, best, grain=0)
    assert found == best_score(decisive[without], reported[without], without.index(best), grain=0)


def test_the_interval_of_a_share_ends_at_one(tmp_path):
    accuracies = {1: 0.999, 2: 0.96, 3: 0.9995}
    sweep = report_sweeps.write(
        tmp_path / "sweep", {"model.depth": [1], "seed": [1, 2, 3]}, truth=lambda s: accuracies[s["seed"]], noise=0.0
    )
    analysis = analyse(sweep)
    unbounded = best_score(np.ones((1, 3)), analysis.blocks.table("test/acc"), 0)
    found = score_of_best(analysis.blocks, analysis.ranking, "test/acc")
    assert unbounded.high > 1 == found.high
    assert (found.low, found.mean) == pytest.approx((unbounded.low, unbounded.mean))
