import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.tasks._counts import confusion_counts


@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_counts_equal_numpy(B, H, W, num_classes, seed, with_valid):
    random = np.random.default_rng(seed)
    prediction, truth = random.integers(0, num_classes, (2, B, H, W))
    valid = random.random((B, H, W)) < 0.7 if with_valid else np.ones((B, H, W), bool)
    counts = confusion_counts(
        torch.from_numpy(prediction),
        torch.from_numpy(truth),
        num_classes,
        torch.from_numpy(valid) if with_valid else None,
    ).numpy()
    for k in range(num_classes):
        p, t = prediction == k, truth == k
        for position, hits in enumerate((p & t, p & ~t, ~p & t, ~p & ~t)):
            np.testing.assert_array_equal(counts[:, k, position], (hits & valid).sum((1, 2)))
