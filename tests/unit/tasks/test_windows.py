from __future__ import annotations

import pytest
import torch
from monai.inferers import sliding_window_inference

from raysweep.tasks._windows import padded, predict_windows


def edges(slices: torch.Tensor) -> torch.Tensor:
    """A prediction that depends on where in its window a pixel lies."""
    rows = torch.arange(slices.shape[2]).view(1, 1, -1, 1)
    return torch.cat([slices * rows, slices.flip(3)], 1)


@pytest.mark.parametrize("shape", [(96, 70), (64, 64), (65, 200)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_blended_windows_equal_monai(shape, overlap):
    slices = torch.rand(2, 1, *shape)
    expected = sliding_window_inference(slices, 64, 4, edges, overlap=overlap, mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(predict_windows(edges, slices, 64, overlap), expected, atol=1e-4, rtol=1e-4)


def test_windows_of_a_pointwise_prediction_change_nothing():
    slices = torch.rand(1, 1, 130, 77)
    torch.testing.assert_close(predict_windows(lambda x: 3 * x, slices, 32, 0.5), 3 * slices)


@pytest.mark.parametrize(("shape", "at_least", "expected"), [
    ((216, 256), 0, (224, 256)), ((64, 32), 0, (64, 32)), ((154, 208), 224, (224, 224)), ((225, 10), 224, (256, 224)),
])  # fmt: skip
def test_padding_is_zero_at_the_bottom_and_right(shape, at_least, expected):
    slices = torch.rand(2, 3, *shape) + 1
    found = padded(slices, 32, at_least)
    assert found.shape == (2, 3, *expected)
    assert torch.equal(found[..., : shape[0], : shape[1]], slices)
    assert float(found.sum()) == pytest.approx(float(slices.sum()), rel=1e-5)
