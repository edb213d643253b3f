from __future__ import annotations

import numpy as np
import pytest

from raysweep.data.label_policies import resolve_labels

NAN = np.nan
LABELS = np.array([[1, 0, -1, NAN], [-1, -1, 0, 1]], np.float32)


@pytest.mark.parametrize(
    ("uncertain", "unknown", "expected"),
    [
        ("ones", "ignore", [[1, 0, 1, NAN], [1, 1, 0, 1]]),
        ("zeros", "zeros", [[1, 0, 0, 0], [0, 0, 0, 1]]),
        ("ignore", "ignore", [[1, 0, NAN, NAN], [NAN, NAN, 0, 1]]),
    ],
)
def test_uncertain_and_unknown_labels_become_what_the_study_says(uncertain, unknown, expected):
    np.testing.assert_array_equal(resolve_labels(LABELS, uncertain, unknown), np.float32(expected))


@pytest.mark.parametrize(("policy", "low", "high"), [("lsr-ones", 0.55, 0.85), ("lsr-zeros", 0.0, 0.3)])
def test_smoothed_labels_are_uniform_in_their_range_and_seeded(policy, low, high):
    labels = np.full((4000, 1), -1, np.float32)
    drawn = resolve_labels(labels, policy, seed=1)
    assert low <= drawn.min() < low + 0.01
    assert high - 0.01 < drawn.max() <= high
    assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.01)
    np.testing.assert_array_equal(drawn, resolve_labels(labels, policy, seed=1))
    assert (drawn != resolve_labels(labels, policy, seed=2)).any()


def test_certain_labels_stay():
    resolved = resolve_labels(LABELS, "lsr-ones")
    certain = (LABELS == 0) | (LABELS == 1)
    np.testing.assert_array_equal(resolved[certain], LABELS[certain])


def test_a_study_may_give_the_range_of_smoothed_labels():
    labels = np.full((4000, 1), -1, np.float32)
    drawn = resolve_labels(labels, "lsr-ones", smoothing=(0.4, 0.5))
    assert 0.4 <= drawn.min() < 0.401
    assert 0.499 < drawn.max() <= 0.5
