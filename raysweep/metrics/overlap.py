"""Overlap of masks from counts of pixels: true and false positives and negatives.

Counts are kept, not only scores, so that any rule for empty classes is a query over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]

TP, FP, FN, TN = range(4)
"""Positions in the last dimension of counts."""


def dice(counts: Counts) -> Array:
    """Return 2 tp / (2 tp + fp + fn) of (..., 4) counts, float64; NaN where the class is in neither mask."""
    return _ratio(2 * counts[..., TP], 2 * counts[..., TP] + counts[..., FP] + counts[..., FN])


def iou(counts: Counts) -> Array:
    """Return tp / (tp + fp + fn) of (..., 4) counts, float64; NaN where the class is in neither mask."""
    return _ratio(counts[..., TP], counts[..., TP] + counts[..., FP] + counts[..., FN])


def size_error(counts: Counts) -> Array:
    """Return (fp - fn) / (tp + fn) of (..., 4) counts, how much too large a prediction is; NaN without a truth."""
    return _ratio(counts[..., FP] - counts[..., FN], counts[..., TP] + counts[..., FN])


def absent(counts: Counts) -> npt.NDArray[np.bool_]:
    """Return where a class is in neither mask, of (..., 4) counts."""
    nowhere: npt.NDArray[np.bool_] = counts[..., [TP, FP, FN]].sum(-1) == 0
    return nowhere


def _ratio(numerator: Counts, denominator: Counts) -> Array:
    ratio: Array = np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
    return ratio
