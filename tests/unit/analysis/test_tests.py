"""Tests and effect sizes against scipy, statsmodels and published worked examples."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from raysweep.analysis import _tests
from raysweep.analysis._statistics import standard_error
from raysweep.analysis.power_law import fit_power_law
from raysweep.analysis.ranking import _nemenyi, cliques
from raysweep.analysis.seeds_needed import components

# Demsar 2006, table 6: area under the ROC curve of C4.5, with m, with cf, with both, on 14 data sets.
DEMSAR = np.array([
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9752, 0.975], [0.957, 0.978, 0.946, 0.970],
])  # fmt: skip


def test_ranks_friedman_and_critical_difference_are_those_of_demsar():
    ranks = stats.rankdata(-DEMSAR, axis=1)
    np.testing.assert_allclose(ranks.mean(axis=0), [3.143, 2.000, 2.893, 1.964], atol=0.0005)
    # He does not correct for the ties: chi2 = 9.28 and F = 3.69.
    chi2 = 12 * 14 / 20 * ((ranks.mean(axis=0) ** 2).sum() - 4 * 25 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.005)
    assert 13 * chi2 / (42 - chi2) == pytest.approx(3.69, abs=0.005)
    p_chi2, p_f = _tests.friedman_p(ranks)
    corrected = stats.friedmanchisquare(*DEMSAR.T)
    assert p_chi2 == pytest.approx(corrected.pvalue)
    assert p_f == pytest.approx(stats.f.sf(13 * corrected.statistic / (42 - corrected.statistic), 3, 39))
    without_ties = stats.rankdata(-DEMSAR - np.arange(4) * 1e-9, axis=1)
    assert _tests.friedman_p(without_ties)[0] == pytest.approx(
        stats.chi2.sf(12 * 14 / 20 * ((without_ties.mean(axis=0) - 2.5) ** 2).sum(), 3)
    )
    assert _tests.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert _tests.critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(("num_arms", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table_5(num_arms, q):
    found = _tests.critical_difference(num_arms, 20) / np.sqrt(num_arms * (num_arms + 1) / 120)
    assert found == pytest.approx(q, abs=0.001)


def test_groups_of_the_diagram_are_maximal_runs_within_the_critical_difference():
    assert cliques(_nemenyi(np.array([1.0, 1.5, 2.6, 2.7, 5.0]), 1.25)) == [(0, 1), (1, 2, 3)]
    assert cliques(np.zeros((3, 3), bool)) == [(0, 1, 2)]
    assert cliques(~np.eye(3, dtype=bool)) == []


@pytest.mark.parametrize("n", [6, 14, 60])
def test_wilcoxon_is_the_test_of_scipy_and_leaves_out_missing_values(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    assert _tests.wilcoxon_p(np.append(values, np.nan)) == stats.wilcoxon(values).pvalue
    assert _tests.wilcoxon_p(np.zeros(n)) == 1.0
    assert np.isnan(_tests.wilcoxon_p(np.array([])))


def test_wilcoxon_finds_what_demsar_finds_between_two_of_his_classifiers():
    # His section 3.1.3: T = 12 for C4.5 against C4.5+m, significant at 0.05.
    differences = DEMSAR[:, 1] - DEMSAR[:, 0]
    ranks = stats.rankdata(abs(differences.round(3)))
    # He splits the ranks of zeros between the sides.
    zeros = ranks[differences.round(3) == 0].sum() / 2
    assert ranks[differences.round(3) < 0].sum() + zeros == 12
    assert _tests.wilcoxon_p(differences) < 0.05


def test_the_legacy_test_is_students_t_of_two_samples():
    first, second = np.random.default_rng(0).normal(np.array([[0.0], [0.8]]), 1, (2, 10))
    assert _tests.independent_t_p(first, second) == stats.ttest_ind(first, second, equal_var=True).pvalue
    assert _tests.independent_t_p(np.ones(3), np.ones(3)) == 1.0
    assert _tests.independent_t_p(np.ones(3), np.zeros(3)) == 0.0
    assert np.isnan(_tests.independent_t_p(np.ones(1), np.ones(1)))


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_two_one_sided_tests_of_one_seed_are_those_of_statsmodels(margin):
    first, second = np.random.default_rng(1).normal(0.8, 0.03, (2, 25))
    differences = (first - second)[None, :]
    error = standard_error(differences)
    found = max(
        _tests.one_sided_t_p(differences.mean(), error, -margin),
        _tests.one_sided_t_p(-differences.mean(), error, -margin),
    )
    assert found == pytest.approx(ttost_paired(first, second, -margin, margin)[0])


def test_standard_error_of_one_axis_is_that_of_the_mean():
    values = np.random.default_rng(2).normal(0, 1, 12)
    for scores in (values[None, :], values[:, None]):
        found = standard_error(scores)
        assert (found.value, found.freedom) == pytest.approx((stats.sem(values), 11))
    assert standard_error(np.array([[0.5]])) is None


def test_probability_of_improvement_is_the_share_of_wins_by_hand():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 4, (3, 5)).astype(float), rng.integers(0, 4, (4, 5)).astype(float)
    wins = [
        np.mean([1.0 if a > b else 0.5 if a == b else 0.0
                 for a, b in itertools.product(first[:, j], second[:, j])]) for j in range(5)
    ]  # fmt: skip
    assert _tests.probability_of_improvement(first, second) == pytest.approx(np.mean(wins))
    assert _tests.probability_of_improvement(first, first) == 0.5
    mann_whitney = stats.mannwhitneyu(first[:, 0], second[:, 0]).statistic / 12
    assert _tests.probability_of_improvement(first[:, :1], second[:, :1]) == pytest.approx(mann_whitney)


def test_effect_size_is_the_mean_over_the_spread():
    values = np.array([0.1, 0.3, -0.1, 0.2, np.nan])
    assert _tests.standardised_mean(values) == pytest.approx(0.125 / np.std([0.1, 0.3, -0.1, 0.2], ddof=1))
    assert np.isnan(_tests.standardised_mean(np.array([0.1])))
    assert np.isnan(_tests.standardised_mean(np.array([0.1, 0.1])))


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    assert _tests.interquartile_mean(np.array([9.0, 1, 2, 3, 100, 4, 5, -7])) == np.mean([2, 3, 4, 5])
    assert np.isnan(_tests.interquartile_mean(np.array([np.nan])))


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(0.1, 0.5, 0.35), (0.0, 0.4, 0.7), (0.2, 0.3, 1.5)])
def test_an_exact_power_law_is_found_again(floor, scale, exponent):
    counts = np.array([1, 3, 7, 15, 30, 75, 150, 300.0])
    found = fit_power_law(counts, (floor + scale * counts**-exponent)[None, :])
    assert [value[0] for value in found] == pytest.approx([floor, scale, exponent], rel=0.02, abs=0.004)


def test_the_fit_is_no_worse_than_scipys():
    from scipy.optimize import curve_fit

    def law(n, floor, scale, exponent):
        return floor + scale * n**-exponent

    counts = np.array([1, 3, 7, 15, 30, 75, 150.0])
    for seed in range(5):
        errors = law(counts, 0.1, 0.5, 0.5) + np.random.default_rng(seed).normal(0, 0.01, len(counts))
        best, _ = curve_fit(law, counts, errors, p0=(0.1, 0.5, 0.5), bounds=([0, 0, 0.02], [1, 2, 3]))
        floor, scale, exponent = (value[0] for value in fit_power_law(counts, errors[None, :]))
        ours = ((errors - law(counts, floor, scale, exponent)) ** 2).sum()
        assert ours <= ((errors - law(counts, *best)) ** 2).sum() * 1.001


def test_variance_components_are_found_again():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(200):
        shape = (8, 20)
        scores = rng.normal(0, 2, (8, 1)) + rng.normal(0, 3, (1, 20)) + rng.normal(0, 1, shape)
        found.append(components(scores).__dict__.values())
    np.testing.assert_allclose(np.mean([list(values) for values in found], axis=0), [4, 9, 1], rtol=0.12)
    assert components(np.ones((1, 5))) is None
