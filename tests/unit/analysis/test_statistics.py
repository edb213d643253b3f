import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from raysweep.analysis._statistics import holm, mean_interval, sign_flip_p


def crossed(rng, num_seeds, num_subjects, *, seed_sd, subject_sd, noise_sd):
    shape = (num_seeds, num_subjects)
    rows, columns = rng.normal(0, seed_sd, (num_seeds, 1)), rng.normal(0, subject_sd, num_subjects)
    return 0.8 + rows + columns + rng.normal(0, noise_sd, shape)


@pytest.mark.parametrize(
    ("num_seeds", "num_subjects", "seed_sd", "subject_sd"),
    [
        (3, 10, 0.005, 0.04),
        (3, 10, 0.02, 0.01),
        (10, 20, 0.01, 0.04),
        (1, 15, 0.0, 0.04),
        (5, 30, 0.01, 0.01),
    ],
)
def test_interval_covers_the_truth_at_about_the_nominal_rate(num_seeds, num_subjects, seed_sd, subject_sd):
    rng = np.random.default_rng(7)
    trials = 400
    hits = 0
    for _ in range(trials):
        scores = crossed(rng, num_seeds, num_subjects, seed_sd=seed_sd, subject_sd=subject_sd, noise_sd=0.01)
        interval = mean_interval(scores, num_resamples=500)
        hits += interval.low <= 0.8 <= interval.high
    # A true rate of 92 % fails this on the low side about once in a hundred runs; the seed is fixed.
    assert stats.binom.cdf(hits, trials, 0.92) > 0.01
    assert hits / trials <= 0.995


def test_plain_percentiles_of_three_seeds_would_cover_too_rarely():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        means = crossed(rng, 3, 10, seed_sd=0.02, subject_sd=0.0, noise_sd=0.001).mean(axis=1)
        resampled = means[rng.integers(0, 3, (500, 3))].mean(axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        hits += low <= 0.8 <= high
    assert hits / 400 < 0.85


def test_interval_of_one_seed_agrees_with_students_t_over_subjects():
    scores = np.random.default_rng(3).normal(0.8, 0.05, (1, 40))
    interval = mean_interval(scores, num_resamples=20_000)
    low, high = stats.t.interval(0.95, 39, loc=scores.mean(), scale=stats.sem(scores[0]))
    assert interval.mean == pytest.approx(scores.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.0015)


def test_interval_is_the_same_in_every_call():
    scores = np.random.default_rng(0).normal(0.8, 0.05, (3, 10))
    assert mean_interval(scores) == mean_interval(scores.copy())


def test_interval_ignores_missing_scores():
    scores = np.random.default_rng(0).normal(0.8, 0.05, (3, 10))
    scores[1, 4] = np.nan
    interval = mean_interval(scores)
    assert interval.mean == pytest.approx(np.nanmean(scores))
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize("scores", [np.empty((0, 0)), np.full((2, 3), np.nan)])
def test_interval_of_nothing_is_nan(scores):
    assert all(np.isnan(value) for value in mean_interval(scores).__dict__.values())


def test_one_seed_and_one_subject_have_a_mean_and_no_interval():
    interval = mean_interval(np.array([[0.7]]))
    assert interval.mean == 0.7
    assert np.isnan(interval.low)
    assert not interval.excludes_zero()


@pytest.mark.parametrize("n", [1, 4, 9])
def test_exact_sign_flip_equals_every_pattern_by_hand(n):
    values = np.random.default_rng(n).normal(0.3, 1, n)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=n)]
    expected = np.mean([s >= abs(values.sum()) - 1e-9 for s in sums])
    assert sign_flip_p(values) == pytest.approx(expected)


def test_sign_flip_agrees_with_scipy():
    values = np.random.default_rng(2).normal(0.3, 1, 12)
    reference = stats.permutation_test(
        (values, np.zeros(12)), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert sign_flip_p(values) == pytest.approx(reference.pvalue)


def test_monte_carlo_sign_flip_is_close_to_the_exact_p_and_never_zero():
    values = np.random.default_rng(2).normal(0.2, 1, 20)
    signs = 1.0 - 2.0 * ((np.arange(2**20)[:, None] >> np.arange(20)) & 1)
    exact = (abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.015)
    assert sign_flip_p(np.ones(30)) == pytest.approx(1 / 10_000)


@pytest.mark.parametrize("n", [11, 16])
def test_sign_flip_p_is_uniform_under_the_null(n):
    rng = np.random.default_rng(11)
    values = [sign_flip_p(rng.normal(0, 1, n)) for _ in range(400)]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_sign_flip_is_small_where_there_is_an_effect():
    assert sign_flip_p(np.random.default_rng(0).normal(1, 0.3, 12)) == pytest.approx(2 / 2**12)


def test_holm_equals_statsmodels():
    rng = np.random.default_rng(5)
    for size in (1, 2, 7, 40):
        p_values = rng.uniform(0, 0.3, size).round(2)
        expected = multipletests(p_values, method="holm")[1]
        np.testing.assert_allclose(holm(p_values), expected)


def test_holm_does_not_count_tests_that_were_not_made():
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])
    assert holm(np.array([])).size == 0
