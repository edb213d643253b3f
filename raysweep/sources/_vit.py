"""The tokens of timm's plain vision transformers: any input size, patches hidden or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils import _pytree as pytree

PlainTransformer: TypeAlias = VisionTransformer | Eva
"""Blocks of attention over patch tokens: ViT, DeiT III, DINOv2; with rotary positions, EVA-02 and DINOv3."""


@dataclass(frozen=True)
class Tokens:
    """What a vision transformer makes of a batch: P prefix tokens and N patch tokens of D features."""

    prefix: Tensor
    """(B, P, D): class and register tokens, the class token first; P is 0 for a network without."""
    patches: Tensor
    """(B, N, D), row by row; only those kept, where patches were left out."""


pytree.register_dataclass(Tokens)  # what maps over tensors in structures finds them in this one too


def patch_size(vit: PlainTransformer) -> int:
    """Return the side of a patch in pixels."""
    side: int = vit.patch_embed.patch_size[0]
    return side


def vit_tokens(
    vit: PlainTransformer,
    x: Tensor,
    *,
    hidden: Tensor | None = None,
    mask_token: Tensor | None = None,
    kept: Tensor | None = None,
    blocks: tuple[int, ...] | None = None,
) -> list[Tokens]:
    """Return the tokens after each of ``blocks`` (by default the last one), normalised as the network ends.

    Args:
        vit: the network.
        x: (B, C, H, W).
        hidden: (B, N) bool, patches whose embedding is replaced by ``mask_token`` before positions are added.
        mask_token: (D,).
        kept: (B, K) int64, patches that enter the blocks at all.
        blocks: indices of blocks.
    """
    embedded, grid = _embed_patches(vit, x)
    if hidden is not None:
        if mask_token is None:
            raise ValueError("hidden patches need a mask_token")
        embedded = torch.where(hidden[..., None], mask_token.to(embedded.dtype), embedded)
    prefix, patches = _add_positions(vit, embedded, grid)
    if kept is not None:
        patches = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
    rotations = _rotations(vit, grid, kept)
    tokens = vit.norm_pre(vit.pos_drop(torch.cat((prefix, patches), 1)))
    wanted = (len(vit.blocks) - 1,) if blocks is None else blocks
    found = []
    for index, block in enumerate(vit.blocks):
        tokens = block(tokens) if rotations is None else block(tokens, rope=rotations[index])
        if index in wanted:
            normed = vit.norm(tokens)
            found.append(Tokens(normed[:, : prefix.shape[1]], normed[:, prefix.shape[1] :]))
    return found


def _embed_patches(vit: PlainTransformer, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    side = patch_size(vit)
    if x.shape[2] % side or x.shape[3] % side:
        raise ValueError(f"slices of {x.shape[2]} x {x.shape[3]} pixels do not divide into patches of {side}")
    embedded = vit.patch_embed.proj(x)
    tokens = vit.patch_embed.norm(embedded.flatten(2).transpose(1, 2))
    return tokens, (embedded.shape[2], embedded.shape[3])


def _add_positions(vit: PlainTransformer, patches: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the prefix tokens (B, P, D) and the patches, each with its position added."""
    B = len(patches)
    parts = [token.expand(B, -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    prefix = torch.cat(parts, 1) if parts else patches.new_zeros(B, 0, patches.shape[2])
    if vit.pos_embed is None:
        return prefix, patches
    num_placed = 0 if vit.no_embed_class else vit.num_prefix_tokens
    of_prefix, of_patches = vit.pos_embed[:, :num_placed], vit.pos_embed[:, num_placed:]
    if num_placed:
        prefix = prefix + of_prefix
    return prefix, patches + resize_positions(of_patches, vit.patch_embed.grid_size, grid)


def _rotations(vit: PlainTransformer, grid: tuple[int, int], kept: Tensor | None) -> Sequence[Tensor] | None:
    """Return what turns the queries and keys of patches in each block; None for a network without rotary positions."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    table: Tensor = rope.get_embed(shape=list(grid))  # (N, F), or of learnt frequencies (blocks, heads, N, F)
    if kept is not None:  # (B, 1, K, F), or (blocks, B, heads, K, F)
        table = table[..., kept, :]
        table = table.transpose(1, 2) if vit.rope_mixed else table[:, None]
    return table.unbind() if vit.rope_mixed else [table] * len(vit.blocks)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample (1, H * W, D) position embeddings to another grid, antialiased and bicubic.

    Two matrix products: torch's own interpolation has no deterministic gradient on a GPU.
    """
    if tuple(old) == tuple(new):
        return positions
    rows, columns = (_bicubic(n_old, n_new).to(positions.device) for n_old, n_new in zip(old, new, strict=True))
    grid = positions.float().reshape(old[0], old[1], -1)
    resized = torch.einsum("ih,jw,hwd->ijd", rows, columns, grid)
    return resized.reshape(1, new[0] * new[1], -1).to(positions.dtype)


def _bicubic(num_in: int, num_out: int) -> Tensor:
    """Return the (num_out, num_in) matrix of antialiased bicubic resampling along one axis."""
    identity = torch.eye(num_in)[None, None]
    matrix: Tensor = F.interpolate(identity, size=(num_out, num_in), mode="bicubic", antialias=True)[0, 0]
    return matrix
