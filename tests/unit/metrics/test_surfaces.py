import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from raysweep.metrics.surfaces import outline_distances

SPACINGS = [(1.0, 1.0), (0.4, 2.7), (3.0, 1.25)]


def mask_of(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = shape
    mask = np.zeros(shape, bool)
    if kind == "noise":
        mask[:] = rng.random(shape) > 0.6
    elif kind == "one pixel":
        mask[rng.integers(height), rng.integers(width)] = True
    elif kind == "corner":
        mask[0, 0] = True
    elif kind == "whole":
        mask[:] = True
    elif kind == "border":
        mask[0], mask[:, -1] = True, True
    elif kind == "ring":
        y, x = np.mgrid[:height, :width]
        radius = np.hypot(y - height / 2, x - width / 3)
        mask[:] = (radius > 2) & (radius < 5)
    elif kind == "disc":
        y, x = np.mgrid[:height, :width]
        mask[:] = np.hypot(y - rng.integers(height), x - rng.integers(width)) < rng.integers(2, 9)
    return mask


KINDS = ["noise", "one pixel", "corner", "whole", "border", "ring", "disc"]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_equal_monai_over_awkward_masks(spacing):
    rng = np.random.default_rng(1)
    for first in KINDS:
        for second in KINDS:
            shape = tuple(rng.integers(12, 24, 2).tolist())
            prediction, truth = mask_of(first, shape, rng), mask_of(second, shape, rng)
            found = outline_distances(prediction, truth, spacing)
            assert found is not None
            tensors = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
            for quantile in (0.95, 1.0):
                expected = compute_hausdorff_distance(
                    *tensors, include_background=True, percentile=100 * quantile, spacing=spacing
                )
                assert found.hausdorff(quantile) == pytest.approx(float(expected), abs=1e-4)
            for tolerance in (0.0, 1.3, 4.0):
                expected = compute_surface_dice(*tensors, [tolerance], include_background=True, spacing=spacing)
                assert found.surface_dice(tolerance) == pytest.approx(float(expected), abs=1e-6)


def test_a_mask_one_row_high_has_an_outline():
    mask = np.ones((1, 5), bool)
    found = outline_distances(mask, mask, (1, 1))
    assert (found.hausdorff(), found.surface_dice(0)) == (0, 1)
    assert len(found.to_truth) == 5


def test_there_is_no_distance_to_nothing():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    for pair in ((empty, full), (full, empty), (empty, empty)):
        assert outline_distances(*pair, (1, 1)) is None


def test_distance_is_in_millimetres_of_rows_and_columns():
    first, second = np.zeros((2, 10, 10), bool)
    first[2, 2], second[5, 2] = True, True
    assert outline_distances(first, second, (0.5, 9)).hausdorff() == 1.5
    second[5, 2], second[2, 5] = False, True
    assert outline_distances(first, second, (0.5, 9)).hausdorff() == 27
