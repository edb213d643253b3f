"""Positional contrast: slices at about the same height of their volumes attract each other, whoever they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import Method, full_precision
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class PositionalContrastSettings(_recipes.TwoViewSettings):
    """Settings of positional contrast. Numbers are those of arXiv:2106.09157 unless a comment says otherwise."""

    # AdamW at 1e-3, as for the other contrastive methods here; the authors train with SGD.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-4, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    # The paper translates, rotates and scales; the crop stays large, for a slice's height must be seen in it.
    augmentation: Augmentation = _recipes.MOCO_V2.model_copy(
        update={"crop_scale": (0.4, 1.0), "rotation_deg": 10.0, "blur_p": 0.0}
    )
    """Random transformations of both views."""
    max_distance: float = Field(0.35, gt=0, le=1)
    """Distance of heights, each from 0 to 1, below which slices are positives; what fits depends on the anatomy."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""


class PositionalContrast(Method):
    """Cross-entropy of telling the slices near a slice's height from all others, averaged over the near ones.

    Source: Zeng et al. 2021, arXiv:2106.09157, equations 1 and 2.
    """

    Settings = PositionalContrastSettings
    name: ClassVar[str] = "positional-contrast"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Zeng et al. 2021, arXiv:2106.09157"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0
    settings: PositionalContrastSettings

    def __init__(self, settings: PositionalContrastSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        self.nets["projector"] = mlp([self.num_features, self.num_features, settings.output_features], norm=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, ``positive_share`` of all pairs, and ``projection_std``."""
        projections = unit(self.nets["projector"](self._encode(torch.cat(list(batch.views)))))
        heights = batch.positions.float().repeat(len(batch.views))
        itself = torch.eye(len(heights), dtype=torch.bool, device=heights.device)
        # A slice's own other view is at distance 0.
        near = ((heights[:, None] - heights[None]).abs() < self.settings.max_distance) & ~itself
        with full_precision(projections):
            logits = (projections @ projections.T / self.settings.temperature).masked_fill(itself, float("-inf"))
            surprise = (logits.logsumexp(1, keepdim=True) - logits).masked_fill(itself, 0)
            loss = ((surprise * near).sum(1) / near.sum(1)).mean()
        share = near.float().sum() / (len(heights) * (len(heights) - 1))
        return {"loss": loss, "positive_share": share, "projection_std": feature_std(projections)}


METHOD = PositionalContrast
