import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raysweep.metrics.jackknife import auc_without_each, pseudo_values


def cases(num_subjects, per_subject, seed, decimals=8):
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(num_subjects), per_subject)
    effect = rng.normal(size=num_subjects)[subject]
    positive = rng.random(len(subject)) < 1 / (1 + np.exp(-effect))
    probability = np.round(1 / (1 + np.exp(-(effect + positive + rng.normal(size=len(subject))))), decimals)
    order = rng.permutation(len(subject))
    return probability[order], positive[order], subject[order]


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize(("num_subjects", "per_subject"), [(40, 1), (15, 6)])
def test_areas_without_each_subject_equal_leaving_it_out(num_subjects, per_subject, decimals):
    probability, positive, subject = cases(num_subjects, per_subject, seed=decimals, decimals=decimals)
    found = auc_without_each(probability, positive, subject, num_subjects)
    for left_out in range(num_subjects):
        kept = subject != left_out
        assert found[left_out] == pytest.approx(roc_auc_score(positive[kept], probability[kept]), abs=1e-12)


def test_a_subject_without_a_case_changes_nothing_and_one_with_all_positives_leaves_no_area():
    probability, positive = np.array([0.1, 0.9, 0.4]), np.array([False, True, False])
    found = auc_without_each(probability, positive, np.array([0, 1, 2]), 4)
    assert found[[0, 2, 3]].tolist() == [1, 1, 1]
    assert np.isnan(found[1])


def test_pseudo_values_average_to_the_score():
    probability, positive, subject = cases(15, 6, seed=3)
    score = roc_auc_score(positive, probability)
    values = pseudo_values(score, auc_without_each(probability, positive, subject, 15))
    assert values.mean() == pytest.approx(score, abs=1e-12)


def test_pseudo_values_of_a_mean_are_the_values_themselves():
    values = np.random.default_rng(0).random(20)
    without = (values.sum() - values) / 19
    np.testing.assert_allclose(pseudo_values(values.mean(), without), values)


def test_their_spread_is_the_standard_error_that_delong_gives():
    """For one case a subject; DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44(3), by its plain definition."""
    probability, positive, subject = cases(400, 1, seed=5)
    of_positive, of_negative = probability[positive], probability[~positive]
    wins = (of_positive[:, None] > of_negative).astype(float) + 0.5 * (of_positive[:, None] == of_negative)
    variance = wins.mean(1).var(ddof=1) / len(of_positive) + wins.mean(0).var(ddof=1) / len(of_negative)
    values = pseudo_values(float(wins.mean()), auc_without_each(probability, positive, subject, 400))
    assert np.sqrt(values.var(ddof=1) / 400) == pytest.approx(np.sqrt(variance), rel=0.01)
