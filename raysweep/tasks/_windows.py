"""Predicting whole slices: padded to what the network takes, or window by window where they are large.

Shapes: B batch, C channels, K channels of the output, H, W of a slice.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from raysweep.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.tasks._task import Predict

_SIGMA = 1 / 8
_MIN_WEIGHT = 1e-3


def padded(slices: Tensor, stride: int, at_least: int = 0) -> Tensor:
    """Pad (B, C, H, W) bottom-right with zeros to a multiple of ``stride``, and to ``at_least`` pixels a side."""
    height, width = (-(-max(side, at_least) // stride) * stride for side in slices.shape[-2:])
    return F.pad(slices, (0, width - slices.shape[-1], 0, height - slices.shape[-2]))


def predict_windows(predict: Predict, slices: Tensor, window_px: int, overlap: float) -> Tensor:
    """Return the blend (B, K, H, W) of predictions of square windows, each at least as heavy in its centre.

    Windows start at the top left; the last of a row or column is moved back to end at the border. Slices are at least
    as large as a window.

    Source: Isensee et al. 2021, nnU-Net, Nature Methods 18, "Inference": Gaussian weights of a standard deviation of an
    eighth of the window.
    """
    step = max(1, int(window_px * (1 - overlap)))
    weight = _weights(window_px)
    total: Tensor | None = None
    height, width = slices.shape[-2:]
    weights = torch.zeros(height, width)
    for top, left in itertools.product(_starts(height, window_px, step), _starts(width, window_px, step)):
        place = (..., slice(top, top + window_px), slice(left, left + window_px))
        prediction = predict(slices[place]).cpu()
        if total is None:
            total = torch.zeros(*prediction.shape[:2], height, width)
        total[place] += prediction * weight
        weights[place] += weight
    assert total is not None  # there is at least one window
    return total / weights


def _starts(length: int, window: int, step: int) -> list[int]:
    last = length - window
    return [*range(0, last, step), last]


def _weights(size: int) -> Tensor:
    """Return (size, size) Gaussian weights around the centre, nowhere below 0.001 of the largest."""
    offset = torch.arange(size) - (size - 1) / 2
    along = torch.exp(-0.5 * (offset / (_SIGMA * size)) ** 2)
    return (along[:, None] * along[None]).clamp_min(_MIN_WEIGHT)
