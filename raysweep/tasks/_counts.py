"""True and false positives and negatives of segmentations; ``metrics.overlap`` makes scores of them."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion_counts(prediction: Tensor, truth: Tensor, num_classes: int, valid: Tensor | None = None) -> Tensor:
    """Count, for each case and class, the pixels on which prediction and truth agree and differ.

    Args:
        prediction: (B, H, W) int64, labels in [0, num_classes).
        truth: (B, H, W) int64, labels in [0, num_classes).
        num_classes: K, with background.
        valid: (B, H, W) bool, the pixels that count; None for all.

    Returns:
        (B, K, 4) int64: true positives, false positives, false negatives, true negatives.

    Raises:
        ValueError: if shapes differ or a counted label is out of range.
    """
    _check(prediction, truth, valid)
    B = len(truth)
    # A bin for each (case, true label, predicted label), then one for pixels left out, one for wrong.
    case = torch.arange(B, device=truth.device).view(-1, 1, 1)
    bins = (case * num_classes + truth) * num_classes + prediction
    wrong = _out_of_range(prediction, num_classes) | _out_of_range(truth, num_classes)
    num_bins = B * num_classes**2
    left_out = torch.zeros_like(wrong) if valid is None else ~valid
    bins = torch.where(left_out, num_bins, torch.where(wrong, num_bins + 1, bins))
    counted = torch.bincount(bins.flatten(), minlength=num_bins + 2)
    if int(counted[num_bins + 1]):
        raise ValueError(
            f"{int(counted[num_bins + 1])} pixels have a label outside [0, {num_classes}): truth has "
            f"{int(truth.min())} to {int(truth.max())}, prediction {int(prediction.min())} to "
            f"{int(prediction.max())}; mark pixels without a label as not valid"
        )
    matrix = counted[:num_bins].view(B, num_classes, num_classes)
    tp = matrix.diagonal(dim1=1, dim2=2)
    fp, fn = matrix.sum(1) - tp, matrix.sum(2) - tp
    tn = matrix.sum((1, 2))[:, None] - tp - fp - fn
    return torch.stack((tp, fp, fn, tn), 2)


def structure_counts(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Count, for each case and structure, the pixels on which prediction and truth agree and differ.

    Args:
        prediction: (B, K, H, W) bool, structures that may overlap.
        truth: (B, K, H, W) bool.
        valid: (B, H, W) bool, the pixels that count; None for all.

    Returns:
        (B, K, 4) int64: true positives, false positives, false negatives, true negatives.
    """
    counted = torch.ones_like(truth[:, :1]) if valid is None else valid[:, None]
    kinds = (prediction & truth, prediction & ~truth, ~prediction & truth, ~prediction & ~truth)
    return torch.stack([(kind & counted).sum((2, 3)) for kind in kinds], 2)


def _out_of_range(labels: Tensor, num_classes: int) -> Tensor:
    return (labels < 0) | (labels >= num_classes)


def _check(prediction: Tensor, truth: Tensor, valid: Tensor | None) -> None:
    shapes = [tuple(t.shape) for t in (prediction, truth, valid) if t is not None]
    if len(set(shapes)) != 1 or len(shapes[0]) != 3:
        given = ", ".join(map(str, shapes))
        raise ValueError(f"prediction, truth and valid must be (B, H, W) of one shape; they are {given}")
