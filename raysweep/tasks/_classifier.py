"""The network of a classification task, and the views of a slice that it is tested on."""

from __future__ import annotations

import itertools
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from raysweep.sources.encoder import Encoder

Crops = Literal["whole", "centre", "ten"]


class Classifier(nn.Module):
    """A linear layer on the spatial mean of the encoder's last feature map.

    Shapes: B batch, C channels, H, W of a slice, L labels.
    """

    def __init__(self, encoder: Encoder, num_labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.num_features, num_labels)

    def forward(self, slices: Tensor) -> Tensor:
        """Return the logits (B, L) of (B, C, H, W) slices."""
        logits: Tensor = self.head(self.encoder(slices))
        return logits


def test_views(slices: Tensor, crops: Crops, resize_px: int, crop_px: int) -> list[Tensor]:
    """Return square views (B, C, crop_px, crop_px) of whole slices (B, C, H, W), whose predictions are averaged.

    whole: the slice resized to the square, whatever its proportions. centre: the centre of the slice resized so that
    its shorter side has ``resize_px`` pixels. ten: its four corners and its centre, and those of its mirror image.
    """
    if crops == "whole":
        return [_resized(slices, crop_px, crop_px)]
    height, width = slices.shape[-2:]
    shorter = min(height, width)
    large = _resized(slices, height * resize_px // shorter, width * resize_px // shorter)
    bottom, right = large.shape[-2] - crop_px, large.shape[-1] - crop_px
    # Half a pixel is rounded as torchvision rounds it, to even.
    centre = round(bottom / 2), round(right / 2)
    corners = [*itertools.product((0, bottom), (0, right)), centre]
    places = corners if crops == "ten" else [centre]
    sides = [large, large.flip(-1)] if crops == "ten" else [large]
    return [side[..., top : top + crop_px, left : left + crop_px] for side in sides for top, left in places]


def _resized(slices: Tensor, height: int, width: int) -> Tensor:
    if slices.shape[-2:] == (height, width):
        return slices
    return F.interpolate(slices, size=(height, width), mode="bilinear", antialias=True)
