"""The report's statistics against scipy's and textbooks' numbers, and against chance."""

import itertools

import numpy as np
import pandas as pd
import pytest
import report_sweeps
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from mlpexp.analysis.statistics import granularity, holm, marginal, mean_and_half, pareto_front
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.analysis.variance import confounded, decompose
from mlpexp.report.sentences import headline

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


def test_holms_example():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.01, NAN])), [0.02, NAN])


def test_the_grain_of_counted_accuracies_is_one_sample():
    assert granularity(np.array([[260, 262, 264], [259, 261, 263]]) / 270) == pytest.approx(1 / 270)


def test_one_key_is_scipys_f_test():
    groups = [RNG.normal(i, 1, size=6) for i in range(4)]
    table = np.full((4, 24), NAN)
    for i, group in enumerate(groups):
        table[i, 6 * i : 6 * i + 6] = group
    (term,) = decompose(np.arange(4)[:, None], table, shares_blocks=False).terms
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
    found = decompose(np.array(list(TEETH)), unshared(list(TEETH.values())), shares_blocks=False)
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


@pytest.mark.parametrize("together", [[3, 0, 7], [1, 1, 0]])
def test_a_key_that_only_changed_together_with_another_has_no_share_and_takes_none(together):
    rng = np.random.default_rng(5)
    levels = np.array(list(itertools.product(range(3), range(2))))
    table = rng.normal(size=(6, 8)) + levels @ [[2.0], [1.0]]
    zipped = np.column_stack([np.array(together)[levels[:, 0]], levels])
    first, second = (0, 1) if len(set(together)) == 3 else (1, 0)  # equal numbers of levels: the first typed one stays
    assert confounded(zipped) == {second: first}
    assert confounded(levels) == {}
    found, alone = decompose(zipped, table), decompose(levels, table)
    place = {0: first, 1: 2}
    assert {term.keys: term.squares for term in found.terms} == pytest.approx(
        {tuple(place[key] for key in term.keys): term.squares for term in alone.terms}
    )
    assert (found.rest, found.noise, found.blocks) == pytest.approx((alone.rest, alone.noise, alone.blocks))


def test_the_report_says_which_keys_only_changed_together(tmp_path):
    pairs = [{"model.width": width, "optimizer.lr": rate} for width, rate in ((32, 0.1), (64, 0.05), (128, 0.02))]
    grid = [pair | {"model.depth": depth, "seed": seed} for pair in pairs for depth in (1, 2) for seed in range(3)]
    said = headline(analyse(report_sweeps.write(tmp_path / "zip", grid)))
    careful = [sentence for sentence in said if "together" in sentence]
    assert careful == [
        "Careful: optimizer.lr only changed together with model.width, so their effects cannot be told apart; effects "
        "of model.width are those of both."
    ]


def anova(levels, table, blocks):
    """statsmodels' analysis of variance of type II, with all pairs of keys, from single runs."""
    rows, seeds = np.nonzero(np.isfinite(table))
    data = pd.DataFrame(levels[rows], columns=[f"k{i}" for i in range(levels.shape[1])])
    data = data.assign(y=table[rows, seeds], seed=seeds)
    keys = " + ".join(f"C({name}, Sum)" for name in data if name.startswith("k"))
    return anova_lm(smf.ols(f"y ~ ({keys})**2" + " + C(seed, Sum)" * blocks, data).fit(), typ=2)["sum_sq"]


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("keys", [2, 3])
def test_sums_of_squares_of_unequal_cells_are_statsmodels(keys, blocks):
    rng = np.random.default_rng(keys)
    levels = np.array(list(itertools.product(range(2), range(3), range(2))))[:, :keys]
    levels = np.unique(levels, axis=0)
    table = rng.normal(size=(len(levels), 6)) + levels @ rng.normal(size=(keys, 1)) + blocks * rng.normal(size=6)
    table[:, 2:][rng.random((len(levels), 4)) < 0.4] = NAN
    reference = anova(levels, table, blocks)
    found = decompose(levels, table, blocks)
    squares = {":".join(f"C(k{key}, Sum)" for key in term.keys): term.squares for term in found.terms}
    for name, value in squares.items():
        assert value == pytest.approx(reference[name]), name
    assert (found.rest + found.noise) * found.total == pytest.approx(reference["Residual"])
    shares = [term.share for term in found.terms]
    assert sum(shares) + found.rest + found.blocks + found.noise == pytest.approx(1)
    if keys == 2 or not blocks:  # of three keys, statsmodels' model leaves their interaction out before the seeds
        assert shares[0] == pytest.approx(squares["C(k0, Sum)"] / reference.sum())


def test_a_grid_with_an_empty_cell_gives_each_key_what_it_adds_to_the_others():
    levels = np.array([(a, b) for a in range(3) for b in range(4) if (a, b) != (2, 3)])
    cells = [RNG.normal(a + 0.5 * b, 1, size=RNG.integers(2, 6)) for a, b in levels]
    found = decompose(levels, unshared(cells), shares_blocks=False)
    y = np.concatenate(cells)
    rows = np.repeat(levels, [len(cell) for cell in cells], axis=0)

    def residual(*keys):
        columns = [np.ones(len(y))] + [rows[:, k] == v for k in keys for v in range(1, 4)]
        design = np.stack(columns, axis=1).astype(float)
        return ((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum()

    squares = {term.keys: term.squares for term in found.terms}
    assert squares[0,] == pytest.approx(residual(1) - residual(0, 1))
    assert squares[1,] == pytest.approx(residual(0) - residual(0, 1))
    within = sum(((cell - cell.mean()) ** 2).sum() for cell in cells)
    assert squares[0, 1] == pytest.approx(residual(0, 1) - within)
    assert {term.keys: term.freedom for term in found.terms} == {(0,): 2, (1,): 3, (0, 1): 5}
    assert sum(squares.values()) + within == pytest.approx(found.total)


def test_what_a_seed_does_to_all_alike_is_no_noise():
    rng = np.random.default_rng(4)
    seeds = rng.normal(size=10) * 3
    levels = np.array([(a, b) for a in range(2) for b in range(3)])
    table = (levels @ np.array([1.0, 0.5]))[:, None] + seeds
    found = decompose(levels, table + 0.1 * rng.normal(size=(6, 10)))
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
