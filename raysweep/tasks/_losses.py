"""Losses of segmentation by name, over pixels that have a label; sums and one-hot masks, whose gradients repeat.

Shapes: B batch, K channels of the network's output, H, W of a crop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raysweep.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["jaccard", "dice", "dice_cross_entropy", "cross_entropy", "focal", "bce", "tversky"]
_EPSILON = 1e-7


@dataclass(frozen=True)
class Pixels:
    """A batch as a loss sees it."""

    logits: Tensor
    """(B, K, H, W) float32."""
    truth: Tensor
    """(B, K, H, W) float32, ones and zeros."""
    valid: Tensor | None
    """(B, 1, H, W) float32, 0 where a pixel is to be left out; None where none is."""
    exclusive: bool
    """Whether a pixel is of exactly one class (softmax), or of any number of structures (a sigmoid each)."""

    def probabilities(self) -> Tensor:
        """Return (B, K, H, W) probabilities."""
        return self.logits.softmax(1) if self.exclusive else self.logits.sigmoid()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of (B, 1, H, W) or (B, K, H, W) over the pixels that count; 0 if none does."""
        if self.valid is None:
            return values.mean()
        return (values * self.valid).sum() / (self.valid.sum() * values.shape[1]).clamp_min(1)


def soft_overlap(pixels: Pixels, false_positives: float, false_negatives: float) -> Tensor:
    """Return one minus the soft Tversky index of the whole batch, averaged over all channels.

    The index is tp / (tp + false_positives * fp + false_negatives * fn): Dice with a half each, Jaccard with one each.
    A class absent from the batch has no gradient worth following, so it counts as 0, and the mean stays over all
    classes, as in segmentation-models-pytorch.

    Source: Milletari et al. 2016, arXiv:1606.04797, equation 1 without squares; Salehi et al. 2017, arXiv:1706.05721,
    equation 2.
    """
    p, y = pixels.probabilities(), pixels.truth
    if pixels.valid is not None:
        p, y = p * pixels.valid, y * pixels.valid
    both, of_p, of_y = (p * y).sum((0, 2, 3)), p.sum((0, 2, 3)), y.sum((0, 2, 3))
    weighed = both + false_positives * (of_p - both) + false_negatives * (of_y - both)
    lost = 1 - both / weighed.clamp_min(_EPSILON)
    return (lost * (of_y > 0).to(lost.dtype)).mean()


def cross_entropy(pixels: Pixels) -> Tensor:
    """Return the cross-entropy of the class, or the binary one averaged over structures."""
    return pixels.mean(_entropies(pixels))


def focal(pixels: Pixels, gamma: float) -> Tensor:
    """Return the cross-entropy in which a pixel weighs (1 - p) ** gamma, p being the probability of what is true.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 4.
    """
    entropies = _entropies(pixels)
    # The gradient of (1 - p) ** gamma is infinite at p = 1 for gamma below 1.
    return pixels.mean((1 - (-entropies).exp()).clamp_min(_EPSILON) ** gamma * entropies)


@dataclass(frozen=True)
class LossSettings:
    """The numbers that losses take."""

    focal_gamma: float
    tversky_weights: tuple[float, float]


LOSSES: Mapping[LossName, Callable[[Pixels, LossSettings], Tensor]] = {
    "jaccard": lambda pixels, _: soft_overlap(pixels, 1.0, 1.0),
    "dice": lambda pixels, _: soft_overlap(pixels, 0.5, 0.5),
    "dice_cross_entropy": lambda pixels, _: soft_overlap(pixels, 0.5, 0.5) + cross_entropy(pixels),
    "cross_entropy": lambda pixels, _: cross_entropy(pixels),
    "focal": lambda pixels, settings: focal(pixels, settings.focal_gamma),
    "bce": lambda pixels, _: cross_entropy(pixels),
    "tversky": lambda pixels, settings: soft_overlap(pixels, *settings.tversky_weights),
}
"""Losses by name."""


def _entropies(pixels: Pixels) -> Tensor:
    """Return minus the log probability of what is true: (B, 1, H, W) of classes, (B, K, H, W) of structures."""
    if pixels.exclusive:
        return -(pixels.logits.log_softmax(1) * pixels.truth).sum(1, keepdim=True)
    return F.binary_cross_entropy_with_logits(pixels.logits, pixels.truth, reduction="none")


def pixels_of(logits: Tensor, masks: Tensor, *, exclusive: bool, overlapping: bool, ignore_label: int | None) -> Pixels:
    """Return what a loss takes, from logits (B, K, H, W) and a pack's masks (B, H, W) int64.

    Args:
        logits: one channel a class with background, or one a structure without.
        masks: class indices, or bits.
        exclusive: whether channels are classes.
        overlapping: whether masks are bits.
        ignore_label: value of pixels to leave out.
    """
    valid = None if ignore_label is None else (masks != ignore_label)[:, None]
    known = masks if valid is None else torch.where(valid[:, 0], masks, 0)
    truth = truth_maps(known, logits.shape[1], exclusive=exclusive, overlapping=overlapping)
    as_float = None if valid is None else valid.to(logits.dtype)
    return Pixels(logits, truth.to(logits.dtype), as_float, exclusive)


def truth_maps(masks: Tensor, num_channels: int, *, exclusive: bool, overlapping: bool) -> Tensor:
    """Return (B, K, H, W) bool: where each channel's class or structure is, of masks (B, H, W), none ignored."""
    if overlapping:
        bits = torch.arange(num_channels, device=masks.device).view(1, -1, 1, 1)
        return ((masks[:, None] >> bits) & 1).bool()
    first = 0 if exclusive else 1
    classes = torch.arange(first, first + num_channels, device=masks.device).view(1, -1, 1, 1)
    return masks[:, None] == classes
