"""Which patches of a slice a method hides, drawn by torch's global generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raysweep.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def random_order(num_slices: int, num_patches: int) -> Tensor:
    """Return a random order of the patches of each slice, (B, N) int64 on the CPU."""
    return torch.rand(num_slices, num_patches).argsort(1)


def random_cells(num_slices: int, rows: int, columns: int, share: float) -> Tensor:
    """Return (B, rows, columns) bool with a share of the cells of each slice chosen, at least one and not all."""
    N = rows * columns
    count = min(max(1, round(share * N)), max(1, N - 1))
    ranks = random_order(num_slices, N).argsort(1)
    return (ranks < count).reshape(num_slices, rows, columns)


def enlarge(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Return (B, rows, columns) of (B, h, w) cells, each repeated over the patches it covers."""
    y, x = (torch.arange(new) * old // new for new, old in zip((rows, columns), cells.shape[1:], strict=True))
    return cells[:, y][:, :, x]


def random_blocks(shares: Tensor, rows: int, columns: int) -> Tensor:
    """Return (B, rows, columns) bool: rectangles added until the share of each slice is chosen, to the patch.

    Source: Bao et al. 2021, arXiv:2106.08254, algorithm 1.
    """
    chosen = torch.zeros(len(shares), rows, columns, dtype=torch.bool)
    for mask, share in zip(chosen, shares.tolist(), strict=True):
        wanted = round(share * rows * columns)
        while (missing := wanted - int(mask.sum())) > 0:
            u = torch.rand(4).tolist()
            area = missing * (0.3 + 0.7 * u[0])
            ratio = math.exp(math.log(0.3) * (1 - 2 * u[1]))
            h = min(rows, max(1, round(math.sqrt(area * ratio))))
            w = min(columns, max(1, round(math.sqrt(area / ratio))))
            y0, x0 = int(u[2] * (rows - h + 1)), int(u[3] * (columns - w + 1))
            new = ~mask[y0 : y0 + h, x0 : x0 + w]
            places = new.nonzero()[:missing] + torch.tensor([y0, x0])
            mask[places[:, 0], places[:, 1]] = True
    return chosen


def patchify(slices: Tensor, side: int) -> Tensor:
    """Return the pixels of the patches of (B, C, H, W) slices, (B, N, side * side * C), row by row."""
    B, C, H, W = slices.shape
    patches = slices.reshape(B, C, H // side, side, W // side, side)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(B, -1, side * side * C)


def normalised_patches(slices: Tensor, side: int) -> Tensor:
    """Return the same with mean 0 and variance 1 in every patch.

    Source: He et al. 2021, arXiv:2111.06377, section 3, "Reconstruction target".
    """
    patches = patchify(slices.float(), side)
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def grid_positions(rows: int, columns: int, num_features: int) -> Tensor:
    """Return fixed position embeddings (rows * columns, D), sines and cosines of both coordinates; D a multiple of 4.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, for two axes as in He et al. 2021.
    """
    frequencies = 10000 ** -(torch.arange(num_features // 4, dtype=torch.float64) / (num_features // 4))
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (x, y)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    return torch.cat(parts, 1).float()


def masked_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of (B, N) values where ``chosen`` is True, in a fixed order of summation."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def layer_norm(tokens: Tensor) -> Tensor:
    """Return tokens with mean 0 and variance 1 over their features."""
    return F.layer_norm(tokens.float(), tokens.shape[-1:])
