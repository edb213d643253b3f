"""A light decoder from an encoder's feature maps back to pixels or classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MapDecoder(nn.Module):
    """Adds up feature maps from coarse to fine, each after a convolution of one pixel.

    Nearest upsampling, whose gradient is deterministic on every device.

    Source: Lin et al. 2017, arXiv:1612.03144, section 3, "Top-down pathway".
    """

    def __init__(self, channels: Sequence[int], width: int, num_outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for _ in channels
        )
        self.head = nn.Conv2d(width, num_outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, num_outputs, h, w) on the grid of the first of ``maps``, which come finest first."""
        x = None
        for feature_map, lateral, smooth in zip(reversed(maps), self.lateral[::-1], self.smooth[::-1], strict=True):
            own = lateral(feature_map)
            if x is not None:
                own = own + F.interpolate(x, size=own.shape[2:], mode="nearest")
            x = smooth(own)
        output: Tensor = self.head(x)
        return output


class Densify(nn.Module):
    """Fills the masked cells of each feature map with a vector learnt for that map.

    Source: Tian et al. 2023, arXiv:2301.03580, section 3.2.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.fillings = nn.ParameterList(nn.Parameter(torch.zeros(c, 1, 1)) for c in channels)
        for filling in self.fillings:
            nn.init.trunc_normal_(filling, std=0.02)

    def forward(self, maps: Sequence[Tensor], visible: Sequence[Tensor]) -> list[Tensor]:
        """Return the filled maps; ``visible`` holds (B, h, w) bool for each."""
        return [
            torch.where(where[:, None], x, filling.to(x.dtype))
            for x, where, filling in zip(maps, visible, self.fillings, strict=True)
        ]
