"""The report's statistics against scipy's and textbooks' numbers, and against chance."""

import numpy as np
import pytest
from scipy import stats

from mlpexp.analysis.statistics import compare, granularity, holm, marginal, mean_and_half, pareto_front, signed_rank
from mlpexp.analysis.variance import decompose

RNG = np.random.default_rng(7)
NAN = np.nan


def test_an_interval_is_students():
    values = RNG.normal(size=(3, 9))
    mean, half, count = mean_and_half(values)
    low, high = stats.t.interval(0.95, 8, loc=values.mean(1), scale=stats.sem(values, axis=1))
    np.testing.assert_allclose([mean - half, mean + half], [low, high])
    assert list(count) == [9, 9, 9]


def test_missing_values_are_left_out_of_an_interval_and_one_value_has_none():
    mean, half, count = mean_and_half(np.array([[1.0, NAN, 3.0], [5.0, NAN, NAN], [NAN, NAN, NAN]]))
    low, _ = stats.t.interval(0.95, 1, loc=2, scale=stats.sem([1, 3]))
    assert (mean[0], mean[1], list(count)) == (2, 5, [2, 1, 0])
    assert half[0] == pytest.approx(2 - low)
    assert np.isnan([half[1], half[2], mean[2]]).all()


def test_a_marginal_mean_keeps_what_configurations_of_one_seed_have_in_common():
    seeds = RNG.normal(size=20)
    table = seeds + 0.01 * RNG.normal(size=(5, 20))
    found = marginal(table)
    low, high = stats.t.interval(0.95, 19, loc=table.mean(), scale=stats.sem(table.mean(0)))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.runs == 100


def test_a_marginal_mean_of_unshared_seeds_is_welchs():
    one, other = RNG.normal(size=6), RNG.normal(2, 3, size=9)
    table = np.full((2, 15), NAN)
    table[0, :6], table[1, 6:] = one, other
    found = marginal(table)
    reference = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()  # of the sum of the means
    assert 2 * (found.mean - found.half) == pytest.approx(reference.low)
    assert 2 * (found.mean + found.half) == pytest.approx(reference.high)


@pytest.mark.parametrize("table", [np.zeros((0, 3)), np.full((2, 3), NAN)], ids=["nothing", "all missing"])
def test_a_marginal_mean_of_nothing_is_none(table):
    assert np.isnan(marginal(table).mean)


def test_paired_comparisons_are_those_of_scipy():
    table = RNG.normal(size=(4, 12))
    found = compare(table, 2)
    for other in (0, 1, 3):
        reference = stats.ttest_rel(table[2], table[other])
        interval = reference.confidence_interval()
        assert found.p[other] == pytest.approx(reference.pvalue)
        assert found.difference[other] - found.half[other] == pytest.approx(interval.low)
        assert found.difference[other] + found.half[other] == pytest.approx(interval.high)
    assert np.isnan([found.p[2], found.adjusted[2], found.difference[2]]).all()
    assert (found.num_pairs, found.method) == (6, "Holm")


def test_pairs_are_the_seeds_that_both_have():
    table = RNG.normal(size=(2, 10))
    table[0, :3] = NAN
    table[1, -2:] = NAN
    found = compare(table, 0)
    assert found.seeds[1] == 5
    assert found.p[1] == pytest.approx(stats.ttest_rel(table[0, 3:8], table[1, 3:8]).pvalue)


def test_unshared_seeds_are_compared_by_welch():
    table = RNG.normal(size=(2, 8))
    table[1] *= 4
    table[1, 5:] = NAN
    reference = stats.ttest_ind(table[0], table[1, :5], equal_var=False)
    found = compare(table, 0, paired=False)
    assert found.p[1] == pytest.approx(reference.pvalue)
    assert found.difference[1] - found.half[1] == pytest.approx(reference.confidence_interval().low)


def test_p_values_are_holms_over_all_pairs():
    table = RNG.normal(size=(4, 12)) + np.arange(4)[:, None] * 0.7
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    raw = np.array([stats.ttest_rel(table[i], table[j]).pvalue for i, j in pairs])
    order = np.argsort(raw)
    expected = dict.fromkeys(pairs, 0.0)
    running = 0.0
    for step, place in enumerate(order):  # as Holm wrote it down
        running = max(running, min(1.0, raw[place] * (len(raw) - step)))
        expected[pairs[place]] = running
    found = compare(table, 3)
    for other in range(3):
        assert found.adjusted[other] == pytest.approx(expected[other, 3])


def test_holms_example():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.01, NAN])), [0.02, NAN])


def test_many_configurations_are_corrected_for_all_pairs_too():
    table = RNG.normal(size=(500, 5))
    found = compare(table, 7)
    assert (found.num_pairs, found.method) == (124750, "Bonferroni")
    p = stats.ttest_rel(table[7], table[8]).pvalue
    assert found.adjusted[8] == pytest.approx(min(1, p * 124750))


def test_equal_differences_of_counted_accuracies_prove_nothing():
    table = np.array([[260, 262, 264], [259, 261, 263], [263, 262, 261]]) / 270
    assert granularity(table) == pytest.approx(1 / 270)
    assert np.std(table[0] - table[1]) < 1e-9  # an ordinary t-test would be certain
    assert not compare(table, 0).distinguishable.any()


@pytest.mark.parametrize("n", [12, 30])
def test_the_signed_rank_test_is_scipys(n):
    values = np.round(RNG.normal(0.3, 1, size=n), 1)
    values[:2] = 0
    reference = stats.wilcoxon(values[values != 0], method="asymptotic", correction=False)
    assert signed_rank(values) == pytest.approx(reference.pvalue)
    assert signed_rank(np.zeros(5)) == 1


def study(rng, configurations, seeds, correlated, samples=None, tails=np.inf):
    """Validation and test of equal configurations: a seed moves all, a run moves both of its metrics."""
    shape = (configurations, seeds)
    noise = rng.standard_normal if np.isinf(tails) else lambda size: rng.standard_t(tails, size)
    common, run = noise(seeds), noise(shape)
    val, test = (common + correlated * run + (1 - correlated) * noise(shape) for _ in range(2))
    if samples is None:
        return val, test
    return tuple(rng.binomial(samples, 1 / (1 + np.exp(-3.5 - 0.2 * part))) / samples for part in (val, test))


@pytest.mark.parametrize(
    ("configurations", "seeds", "samples", "tails", "correlated"),
    [
        (27, 5, None, np.inf, 1.0),  # validation is test: the choice has its full effect
        (27, 40, None, 3, 1.0),
        (27, 10, 270, np.inf, 0.5),
        (9, 3, 270, np.inf, 0.5),
        (3, 10, None, np.inf, 0.0),
    ],
)
def test_a_study_without_a_difference_is_called_distinguishable_in_at_most_one_of_twenty(
    configurations, seeds, samples, tails, correlated
):
    rng = np.random.default_rng(1)
    calls = 0
    for _ in range(1000):
        val, test = study(rng, configurations, seeds, correlated, samples, tails)
        # stricter than the headline: not the runner-up alone, but any configuration
        calls += compare(test, int(val.mean(1).argmax())).distinguishable.any()
    assert calls <= 50


def test_correcting_for_the_comparisons_with_the_best_alone_would_not_do():
    rng = np.random.default_rng(1)
    calls = 0
    for _ in range(400):
        val, test = study(rng, 27, 40, 1.0)
        found = compare(test, int(val.mean(1).argmax()))
        calls += np.nanmin(holm(found.p[~np.isnan(found.p)])) <= 0.05
    assert calls > 20


def test_a_real_difference_is_found():
    table = RNG.normal(size=(27, 40)) * 0.01
    table[3] += 0.02
    found = compare(table, 3)
    assert found.distinguishable[np.arange(27) != 3].all()


def test_one_key_is_scipys_f_test():
    groups = [RNG.normal(i, 1, size=6) for i in range(4)]
    table = np.full((4, 24), NAN)
    for i, group in enumerate(groups):
        table[i, 6 * i : 6 * i + 6] = group
    (term,) = decompose(np.arange(4)[:, None], table).terms
    reference = stats.f_oneway(*groups)
    assert (term.f, term.p) == pytest.approx((reference.statistic, reference.pvalue))
    total = np.concatenate(groups).var() * 24
    assert term.share == pytest.approx(term.squares / total)


# R's ToothGrowth: length by supplement (OJ, VC) and dose (0.5, 1, 2), ten animals each, as published (Crampton 1947)
TEETH = {
    (0, 0): [15.2, 21.5, 17.6, 9.7, 14.5, 10, 8.2, 9.4, 16.5, 9.7],
    (0, 1): [19.7, 23.3, 23.6, 26.4, 20, 25.2, 25.8, 21.2, 14.5, 27.3],
    (0, 2): [25.5, 26.4, 22.4, 24.5, 24.8, 30.9, 26.4, 27.3, 29.4, 23],
    (1, 0): [4.2, 11.5, 7.3, 5.8, 6.4, 10, 11.2, 11.2, 5.2, 7],
    (1, 1): [16.5, 16.5, 15.2, 17.3, 22.5, 17.3, 13.6, 14.5, 18.8, 15.5],
    (1, 2): [23.6, 18.5, 33.9, 25.5, 26.4, 32.5, 26.7, 21.5, 23.3, 29.5],
}


def unshared(cells):
    width = sum(map(len, cells))
    table, start = np.full((len(cells), width), NAN), 0
    for row, cell in enumerate(cells):
        table[row, start : start + len(cell)] = cell
        start += len(cell)
    return table


def test_two_keys_and_their_interaction_are_the_textbooks():
    found = decompose(np.array(list(TEETH)), unshared(list(TEETH.values())))
    squares = {term.keys: term.squares for term in found.terms}
    f = {term.keys: term.f for term in found.terms}
    # as R's summary(aov(len ~ supp * factor(dose))) prints them
    assert squares[0,] == pytest.approx(205.35, abs=0.01)
    assert squares[1,] == pytest.approx(2426.43, abs=0.01)
    assert squares[0, 1] == pytest.approx(108.32, abs=0.01)
    assert (f[0,], f[1,], f[0, 1]) == pytest.approx((15.572, 92.0, 4.107), abs=0.001)
    assert found.noise * found.total == pytest.approx(712.11, abs=0.01)
    assert found.noise_freedom == 54
    assert found.rest == pytest.approx(0, abs=1e-12)
    assert sum(term.share for term in found.terms) + found.noise == pytest.approx(1)


def test_an_incomplete_grid_gives_each_key_what_it_adds_to_the_others():
    levels = np.array([(a, b) for a in range(3) for b in range(4) if (a, b) != (2, 3)])
    cells = [RNG.normal(a + 0.5 * b, 1, size=RNG.integers(2, 6)) for a, b in levels]
    found = decompose(levels, unshared(cells))

    y = np.concatenate(cells)
    rows = np.repeat(levels, [len(cell) for cell in cells], axis=0)

    def residual(*keys):  # from single runs, where decompose works on means
        columns = [np.ones(len(y))] + [rows[:, k] == v for k in keys for v in range(1, 4)]
        design = np.stack(columns, axis=1).astype(float)
        return ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum()

    squares = {term.keys: term.squares for term in found.terms}
    assert squares[0,] == pytest.approx(residual(1) - residual(0, 1))
    assert squares[1,] == pytest.approx(residual(0) - residual(0, 1))
    within = sum(((cell - cell.mean()) ** 2).sum() for cell in cells)
    assert squares[0, 1] == pytest.approx(residual(0, 1) - within)
    freedom = {term.keys: term.freedom for term in found.terms}
    assert freedom == {(0,): 2, (1,): 3, (0, 1): 5}


def test_what_a_seed_does_to_all_alike_is_no_noise():
    seeds = RNG.normal(size=10) * 3
    levels = np.array([(a, b) for a in range(2) for b in range(3)])
    table = (levels @ np.array([1.0, 0.5]))[:, None] + seeds
    found = decompose(levels, table + 0.1 * RNG.normal(size=(6, 10)))
    assert found.blocks > 0.9
    assert found.noise < 0.01
    assert found.noise_freedom == 45
    shares = [term.share for term in found.terms]
    assert sum(shares) + found.blocks + found.noise + found.rest == pytest.approx(1)


def test_without_repetitions_there_are_shares_but_no_tests():
    levels = np.array([(a, b) for a in range(3) for b in range(3)])
    found = decompose(levels, RNG.normal(size=(9, 1)))
    assert np.isnan([term.p for term in found.terms]).all()
    assert sum(term.share for term in found.terms) == pytest.approx(1)
    assert found.noise == 0


@pytest.mark.parametrize("table", [np.zeros((0, 0)), np.full((2, 3), NAN), np.ones((2, 3)), np.array([[1.0], [NAN]])])
def test_no_variance_is_decomposed_into_nothing(table):
    assert decompose(np.arange(len(table))[:, None], table).terms == []


def test_keys_without_any_effect_are_rarely_called_important():
    rng = np.random.default_rng(3)
    levels = np.array([(a, b, c) for a in range(3) for b in range(3) for c in range(3)])
    calls = 0
    for _ in range(300):
        table = rng.normal(size=(27, 5)) + rng.normal(size=5)
        calls += min(term.adjusted for term in decompose(levels, table).terms) <= 0.05
    assert calls <= 25  # 15 expected, three standard deviations above


def test_the_pareto_front_is_what_nothing_beats():
    cost = np.array([1, 2, 2, 3, 4, NAN, 1])
    gain = np.array([0.5, 0.6, 0.7, 0.65, 0.9, 1.0, 0.5])
    assert list(pareto_front(cost, gain)) == [True, False, True, False, True, False, False]
