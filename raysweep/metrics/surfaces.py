"""How far apart the outlines of two masks are, in millimetres.

The outline of a mask is its pixels with a neighbour outside, up, down, left or right; what lies beyond the image counts
as outside.

Shapes: H, W of a slice; P and T pixels on the outlines of prediction and truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OutlineDistances:
    """Distances in mm between two outlines, both of at least one pixel."""

    to_truth: Array
    """(P,) from each pixel of the predicted outline to the nearest one of the true outline."""
    to_prediction: Array
    """(T,) the other way round."""

    def hausdorff(self, quantile: float = 0.95) -> float:
        """Return the larger of the two directed distances at a quantile, which linear interpolation finds.

        Source: Huttenlocher et al. 1993, IEEE TPAMI 15(9), with a quantile for the maximum.
        """
        return float(max(np.quantile(self.to_truth, quantile), np.quantile(self.to_prediction, quantile)))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Return the share of both outlines' pixels that lie within a tolerance of the other outline.

        Source: Nikolov et al. 2018, arXiv:1809.04430, normalised surface Dice, with pixels for surface elements.
        """
        near = (self.to_truth <= tolerance_mm).sum() + (self.to_prediction <= tolerance_mm).sum()
        return float(near / (len(self.to_truth) + len(self.to_prediction)))


def outline_distances(prediction: Mask, truth: Mask, spacing_mm: tuple[float, float]) -> OutlineDistances | None:
    """Return the distances between the outlines of two masks (H, W); None where one of them is empty.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        spacing_mm: distance of rows and of columns.
    """
    either = prediction | truth
    if not prediction.any() or not truth.any():
        return None
    rows, columns = (np.flatnonzero(either.any(axis)) for axis in (1, 0))
    # Both outlines lie in this box; a frame of one pixel makes the image's border a border of the mask.
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    outlines = [_outline(np.pad(mask[box], 1)) for mask in (prediction, truth)]
    to_other = [distance_transform_edt(~outline, sampling=spacing_mm) for outline in outlines]
    return OutlineDistances(to_other[1][outlines[0]], to_other[0][outlines[1]])


def _outline(mask: Mask) -> Mask:
    inside: Mask = binary_erosion(mask)
    return mask & ~inside
