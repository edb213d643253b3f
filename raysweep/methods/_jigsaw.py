"""Jigsaw: nine patches of a slice in random order, embedded together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raysweep.lazy import nn, torch
from raysweep.methods._heads import mlp

if TYPE_CHECKING:
    from torch import Tensor

GRID = 3
_PATCH_SHARE, _CELL_SHARE = 64 / 224, 85 / 64
_STRIDE = 32


def patch_px(image_size: int) -> int:
    """Return the side of a patch: 64 pixels for an image size of 224, and a multiple of 32."""
    return max(_STRIDE, round(image_size * _PATCH_SHARE / _STRIDE) * _STRIDE)


def jigsaw_view_px(image_size: int) -> int:
    """Return the side of the view that patches are cut from: 255 pixels for patches of 64."""
    return GRID * round(patch_px(image_size) * _CELL_SHARE)


def build_jigsaw_head(num_features: int, output_features: int) -> nn.ModuleDict:
    """Return the layers on nine patches: one on each, and one on all of them side by side."""
    return nn.ModuleDict(
        {"patch": mlp([num_features, output_features]), "all": mlp([GRID**2 * output_features, output_features])}
    )


def cut_patches(view: Tensor, side: int) -> Tensor:
    """Return (9 * B, C, side, side): a random crop of each of nine cells, the slices one after another.

    One draw of torch's global generator places the crops of the whole batch.
    """
    B, C, size, _ = view.shape
    cell = size // GRID
    offsets = torch.randint(cell - side + 1, (GRID**2, 2)).tolist()
    patches = []
    for index, (dy, dx) in enumerate(offsets):
        y0, x0 = index // GRID * cell + dy, index % GRID * cell + dx
        patches.append(view[:, :, y0 : y0 + side, x0 : x0 + side])
    return torch.stack(patches, 1).reshape(B * GRID**2, C, side, side)


def embed_jigsaw(encode: Callable[[Tensor], Tensor], head: nn.ModuleDict, view: Tensor, side: int) -> Tensor:
    """Return (B, D): patches encoded, put in an order drawn for each slice, and joined.

    Source: Misra & van der Maaten 2019, arXiv:1912.01991, section 3.3.
    """
    embedded = head["patch"](encode(cut_patches(view, side)))
    embedded = embedded.reshape(len(view), GRID**2, -1)
    orders = torch.rand(len(view), GRID**2).argsort(1).to(view.device)
    shuffled = embedded.gather(1, orders[..., None].expand_as(embedded))
    joined: Tensor = head["all"](shuffled.flatten(1))
    return joined
