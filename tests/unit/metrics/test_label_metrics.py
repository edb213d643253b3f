import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from raysweep.metrics.labels import (
    accuracy,
    average_precision,
    balanced_accuracy,
    brier,
    calibration_error,
    label_scores,
    roc_auc,
)

RNG = np.random.default_rng(0)


def columns() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Probabilities and truths, ordinary and awkward ones."""
    n = 200
    truth = (RNG.random(n) < 0.3).astype(float)
    informed = np.clip(truth * 0.3 + RNG.random(n) * 0.7, 0, 1)
    return {
        "random": (RNG.random(n), truth),
        "informed": (informed, truth),
        "ties": (informed.round(1), truth),
        "constant": (np.full(n, 0.5), truth),
        "perfect": (truth, truth),
        "inverted": (1 - truth, truth),
        "one positive": (RNG.random(5), np.array([0.0, 0, 1, 0, 0])),
        "one negative": (RNG.random(5), np.array([1.0, 1, 0, 1, 1])),
        "two cases": (np.array([0.2, 0.2]), np.array([0.0, 1.0])),
        "tiny": (np.array([1e-300, 0.0, 1e-300, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])),
    }


@pytest.mark.parametrize("kind", columns())
def test_areas_equal_scikit_learn(kind):
    probability, truth = columns()[kind]
    assert roc_auc(probability, truth) == pytest.approx(sk.roc_auc_score(truth, probability), abs=1e-12)
    expected = sk.average_precision_score(truth, probability)
    assert average_precision(probability, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("area", [roc_auc, average_precision])
def test_areas_leave_unknown_cases_out_and_are_nan_without_both_classes(area):
    probability, truth = columns()["ties"]
    with_unknown = np.insert(truth, [0, 50, 200], np.nan), np.insert(probability, [0, 50, 200], [0.0, 1.0, 0.3])
    assert area(with_unknown[1], with_unknown[0]) == area(probability, truth)
    for alike in (np.ones(4), np.zeros(4), np.full(4, np.nan)):
        assert np.isnan(area(np.array([0.1, 0.2, 0.3, 0.4]), alike))


def exclusive_case(n=300, num_labels=4):
    truth = RNG.integers(0, num_labels, n)
    logits = RNG.normal(size=(n, num_labels)) + 1.5 * np.eye(num_labels)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probability, np.eye(num_labels)[truth]


def test_decisions_of_exclusive_labels_equal_scikit_learn():
    probability, truth = exclusive_case()
    decided, known = probability.argmax(1), truth.argmax(1)
    assert accuracy(probability, truth, exclusive=True) == sk.accuracy_score(known, decided)
    expected = sk.balanced_accuracy_score(known, decided)
    assert balanced_accuracy(probability, truth, exclusive=True) == pytest.approx(expected)
    assert brier(probability, truth, exclusive=True) == pytest.approx(((probability - truth) ** 2).sum(1).mean())


def test_balanced_accuracy_is_over_the_classes_that_are_there():
    probability, truth = exclusive_case()
    kept = truth[:, 2] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that decisions hold a class that the truth lacks
        expected = sk.balanced_accuracy_score(truth[kept].argmax(1), probability[kept].argmax(1))
    assert balanced_accuracy(probability[kept], truth[kept], exclusive=True) == pytest.approx(expected)


def test_decisions_of_independent_labels_equal_scikit_learn_label_by_label():
    pairs = [columns()[kind] for kind in ("random", "informed", "ties")]
    probability, truth = (np.stack(parts, 1) for parts in zip(*pairs, strict=True))
    decided = probability > 0.5
    scores = {"accuracy": sk.accuracy_score, "balanced_accuracy": sk.balanced_accuracy_score}
    ours = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
    for name, score in scores.items():
        expected = np.mean([score(t, d) for t, d in zip(truth.T, decided.T, strict=True)])
        assert ours[name](probability, truth, exclusive=False) == pytest.approx(expected)
    expected = np.mean([sk.brier_score_loss(t, p) for t, p in zip(truth.T, probability.T, strict=True)])
    assert brier(probability, truth, exclusive=False) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["random", "informed", "constant", "perfect", "inverted", "one positive"])
def test_calibration_error_of_a_label_equals_torchmetrics(kind):
    probability, truth = columns()[kind]
    expected = binary_calibration_error(torch.from_numpy(probability), torch.from_numpy(truth).long(), n_bins=15)
    found = calibration_error(probability[:, None], truth[:, None], exclusive=False)
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_calibration_error_of_exclusive_labels_equals_torchmetrics():
    probability, truth = exclusive_case()
    expected = multiclass_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(truth.argmax(1)), num_classes=4, n_bins=15
    )
    assert calibration_error(probability, truth, exclusive=True) == pytest.approx(float(expected), abs=1e-6)


def test_the_mean_area_is_over_scored_labels_that_have_one():
    probability = RNG.random((50, 4))
    truth = (RNG.random((50, 4)) < 0.4).astype(float)
    truth[:, 1] = 0  # no case has it
    truth[:5, 2] = np.nan
    scores = label_scores(probability, truth, ("a", "b", "c", "d"), [0, 1, 2], exclusive=False)
    known = ~np.isnan(truth[:, 2])
    areas = [sk.roc_auc_score(truth[:, 0], probability[:, 0]), sk.roc_auc_score(truth[known, 2], probability[known, 2])]
    assert scores["auc"] == pytest.approx(np.mean(areas))
    assert {name for name in scores if name.startswith("auc_")} == {"auc_a", "auc_c"}
    judged = [
        sk.accuracy_score(truth[k, i], probability[k, i] > 0.5) for i in range(3) for k in [~np.isnan(truth[:, i])]
    ]
    sizes = [50, 50, 45]
    assert scores["accuracy"] == pytest.approx(np.average(judged, weights=sizes))


def test_decisions_between_exclusive_labels_are_between_all_whichever_are_scored():
    probability, truth = exclusive_case()
    some = label_scores(probability, truth, tuple("abcd"), [0, 1], exclusive=True)
    whole = label_scores(probability, truth, tuple("abcd"), [0, 1, 2, 3], exclusive=True)
    for name in ("accuracy", "balanced_accuracy", "ece", "brier"):
        assert some[name] == whole[name]
    assert some["auc"] != whole["auc"]


def test_what_no_case_allows_is_left_out():
    nothing = np.full((3, 2), np.nan)
    assert label_scores(np.full((3, 2), 0.5), nothing, ("a", "b"), [0, 1], exclusive=False) == {}
