"""A small transformer that predicts the tokens at some positions from those at others."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from raysweep.methods._masks import grid_positions


class TokenDecoder(nn.Module):
    """Blocks over known tokens and mask tokens, each at its position.

    Source: He et al. 2021, arXiv:2111.06377, section 3, "MAE decoder"; as predictor Assran et al. 2023,
    arXiv:2301.08243, section 3.
    """

    def __init__(self, num_features: int, width: int, depth: int, num_heads: int, num_outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.blocks = nn.ModuleList(Block(width, num_heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, num_outputs)

    def forward(self, known: Tensor, known_at: Tensor, asked_at: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return predictions (B, M, F).

        Args:
            known: (B, K, D) tokens.
            known_at: (B, K) int64, their patches.
            asked_at: (B, M) int64, the patches to predict.
            grid: rows and columns of patches.
        """
        positions = grid_positions(*grid, self.embed.out_features).to(known.device)
        tokens = self.embed(known) + positions[known_at]
        asked = self.mask_token + positions[asked_at]
        sequence = torch.cat((tokens, asked.to(tokens.dtype)), 1)
        for block in self.blocks:
            sequence = block(sequence)
        predictions: Tensor = self.predict(self.norm(sequence[:, tokens.shape[1] :]))
        return predictions
