"""Comparisons with the best: against scipy and statsmodels, and against chance under known truths."""

import numpy as np
import pytest
from scipy import stats

from mlpexp.analysis.comparison import compare
from mlpexp.analysis.layout import block_effects, fit
from mlpexp.analysis.max_statistic import range_p

RNG = np.random.default_rng(7)
NAN = np.nan


@pytest.mark.parametrize("groups", [2, 27, 400])
@pytest.mark.parametrize("freedom", [1.0, 4.0, 30.0])
def test_p_values_of_the_studentized_range_are_scipys(groups, freedom):
    t = np.array([0.1, 2.0, 4.0, 9.0])
    expected = stats.studentized_range.sf(t * np.sqrt(2), groups, freedom)
    np.testing.assert_allclose(range_p(t, groups, np.full(4, freedom)), expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("seeds", [3, 12])
def test_two_configurations_are_compared_by_the_paired_t_test(seeds):
    table = RNG.normal(size=(2, seeds))
    found, reference = compare(table, 1), stats.ttest_rel(table[1], table[0])
    interval = reference.confidence_interval()
    assert found.p[0] == pytest.approx(reference.pvalue)
    assert found.difference[0] - found.half[0] == pytest.approx(interval.low)
    assert found.difference[0] + found.half[0] == pytest.approx(interval.high)
    assert np.isnan([found.p[1], found.adjusted[1], found.difference[1]]).all()


def test_two_configurations_without_shared_seeds_are_compared_by_welch():
    table = RNG.normal(size=(2, 8))
    table[1] *= 4
    table[1, 5:] = NAN
    reference = stats.ttest_ind(table[0], table[1, :5], equal_var=False)
    found = compare(table, 0, paired=False)
    assert found.p[1] == pytest.approx(reference.pvalue)
    assert found.difference[1] - found.half[1] == pytest.approx(reference.confidence_interval().low)


def test_the_p_value_of_two_configurations_is_the_permutation_tests():
    table = RNG.normal(size=(2, 8)) + np.array([[0.0], [0.6]])
    reference = stats.permutation_test(
        (table[1] - table[0],), lambda d: abs(d.mean() / d.std(ddof=1)), permutation_type="samples",
        alternative="greater", n_resamples=np.inf, vectorized=False,
    )  # fmt: skip
    assert compare(table, 1).adjusted[0] == pytest.approx(reference.pvalue)


def test_blocks_of_an_incomplete_layout_are_those_of_least_squares():
    table = RNG.normal(size=(5, 7)) + np.arange(7) + 3 * np.arange(5)[:, None]
    table[RNG.random(table.shape) < 0.3] = NAN
    rows, columns = np.nonzero(np.isfinite(table))
    design = np.hstack([np.eye(5)[rows], np.eye(7)[columns]])
    solution = np.linalg.lstsq(design, table[rows, columns], rcond=None)[0][5:]
    np.testing.assert_allclose(block_effects(table), solution - solution.mean(), atol=1e-6)


def test_the_variance_of_configurations_that_are_alike_is_that_of_the_two_way_layout():
    table = np.random.default_rng(3).normal(size=(40, 3)) + RNG.normal(size=3)
    found = fit(table)
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    assert found.prior == np.inf
    assert found.variance.min() == pytest.approx((residual**2).sum() / 78)
    assert found.total == 78


@pytest.mark.parametrize("seeds", [2, 3, 5, 6, 10])
def test_a_gap_of_twenty_standard_deviations_is_found_with_any_number_of_seeds(seeds):
    table = np.random.default_rng(1).normal(size=(6, seeds)) + np.random.default_rng(2).normal(size=seeds)
    table[2] -= 20
    found = compare(table, int(table.mean(1).argmax()))
    assert found.distinguishable[2]
    assert found.method == ("sign flips" if seeds >= 6 else "studentized range")


def test_one_run_each_cannot_be_compared():
    assert np.isnan(compare(RNG.normal(size=(4, 1)), 0).adjusted).all()


def test_equal_differences_of_counted_accuracies_prove_nothing():
    table = np.array([[260, 262, 264], [259, 261, 263], [263, 262, 261]]) / 270
    assert not compare(table, 0).distinguishable.any()


def test_a_small_margin_is_not_called_equivalent_and_a_wide_one_is():
    table = np.random.default_rng(1).normal(size=(2, 20))
    found = compare(table, 0, margin=3.0)
    d = table[0] - table[1]
    one = stats.ttest_1samp(d, -3.0, alternative="greater").pvalue
    other = stats.ttest_1samp(d, 3.0, alternative="less").pvalue
    assert found.equivalence[1] == pytest.approx(max(one, other))
    assert found.equivalent[1]
    assert compare(table, 0, margin=0.01).undecided[1]
    assert np.isnan(compare(table, 0).equivalence[1])


def test_as_many_further_seeds_as_are_proposed_decide_in_about_four_of_five_sweeps():
    rng = np.random.default_rng(5)
    decided = 0
    for _ in range(200):
        base = rng.normal(size=8)
        base = (base - base.mean()) / base.std(ddof=1) + 0.5  # a difference of half a standard deviation, as seen
        found = compare(np.stack([base, np.zeros(8)]), 0)
        seeds = 8 + int(found.further_seeds[1])
        later = compare(np.stack([rng.normal(0.5, 1, seeds), np.zeros(seeds)]), 0)
        decided += bool(later.distinguishable[1])
    assert 0.7 <= decided / 200 <= 0.9


def test_folds_are_compared_with_the_corrected_standard_error():
    table = RNG.normal(size=(2, 10))
    found = compare(table, 0, sampling=1 / 9)
    d = table[0] - table[1]
    t = d.mean() / np.sqrt((1 / 10 + 1 / 9) * d.var(ddof=1))  # Nadeau & Bengio 2003, section 3
    assert found.p[1] == pytest.approx(2 * stats.t.sf(abs(t), 9))


def sweep(rng, mean, spread, seeds, correlation):
    """Validation and test of one sweep: a seed moves all, a run moves both of its metrics."""
    shape = (len(mean), seeds)
    common, run = rng.normal(size=seeds), rng.normal(size=shape)
    own = [np.sqrt(correlation) * run + np.sqrt(1 - correlation) * rng.normal(size=shape) for _ in range(2)]
    return [mean[:, None] + common + spread[:, None] * part for part in own]


EQUAL, ALIKE = np.zeros(9), np.ones(9)


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize(
    ("mean", "spread", "seeds", "correlation"),
    [
        (EQUAL, ALIKE, 3, 0.9),
        (EQUAL, ALIKE, 6, 0.7),
        (EQUAL, ALIKE, 10, 1.0),
        (EQUAL, np.geomspace(1, 10, 9), 8, 0.9),
        (np.r_[np.zeros(5), -np.linspace(3, 30, 4)], np.r_[np.ones(5), np.linspace(1, 10, 4)], 8, 0.9),
    ],
    ids=["few seeds", "flips", "validation is test", "unequal variances", "some are worse"],
)
def test_equal_configurations_are_called_different_in_at_most_one_of_twenty_sweeps(mean, spread, seeds, correlation):
    rng = np.random.default_rng(1)
    calls = 0
    for _ in range(200):
        validation, test = sweep(rng, mean, spread, seeds, correlation)
        best = int(validation.mean(1).argmax())
        found = compare(test, best, validation)
        calls += bool((found.distinguishable & (mean == mean[best])).any())
    assert calls <= stats.binom.ppf(0.999, 200, 0.05)
