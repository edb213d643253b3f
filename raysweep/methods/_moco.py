"""Momentum contrast, in the form that its versions and the methods built on it share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._contrastive import default_queue_size, in_groups, info_nce
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class MoCoSettings(_recipes.TwoViewSettings, MomentumSettings):
    """Settings of momentum contrast. Numbers are those of arXiv:1911.05722 unless a comment says otherwise."""

    # 0.03 at 256 images a step, by the linear rule at the 128 slices that a study's batch has by default.
    optimisation: Optimisation = Optimisation(optimiser="sgd", lr=0.015, weight_decay=1e-4)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.MOCO_V1
    """Random transformations of query and key."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the similarities."""
    tau_start: float = Field(0.999, ge=0, le=1)
    """Momentum of the key encoder."""
    tau_end: float = Field(0.999, ge=0, le=1)
    """Momentum at the last step; equal to tau_start, it is constant."""
    queue_size: int | None = Field(None, ge=2)
    """Keys in the queue; null for the paper's 65536, at most half the slices of the pack."""
    hidden_features: int | None = Field(None, gt=0)
    """Width of the projector's hidden layer, for versions that have one; null for that of the encoder's features."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""
    slices_per_group: int = Field(32, ge=2)
    """Slices that share batch statistics: the paper's 32 a GPU. Keys are shuffled between groups."""


class MoCo(MomentumMethod):
    """Cross-entropy of telling a query's key, made by the momentum encoder, from the keys of a queue.

    Source: He et al. 2019, arXiv:1911.05722, equation 1, algorithm 1.
    """

    family: ClassVar[str] = "contrastive"
    cost: ClassVar[float] = 4 / 3
    hidden_layer: ClassVar[bool] = False
    """Whether the projector has a hidden layer."""
    settings: MoCoSettings

    def __init__(self, settings: MoCoSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import Queue

        hidden = [settings.hidden_features or self.num_features] if self.hidden_layer else []
        self.nets["projector"] = mlp([self.num_features, *hidden, settings.output_features], norm=False)
        self.follow("encoder", "projector")
        size = settings.queue_size or default_queue_size(65536, run.num_slices)
        self.nets["queue"] = Queue(size, settings.output_features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``, and add the keys to the queue."""
        query, key = self._query(batch.views[0]), self._key(batch.views[1])
        loss = self._against_queue(query, key)
        self.nets["queue"].push(key)
        return {"loss": loss, "projection_std": feature_std(query)}

    def _query(self, view: Tensor) -> Tensor:
        """Return the online projection of a view, (B, D) of unit length."""
        features = in_groups(self._encode, view, self.settings.slices_per_group)
        self.features = features.detach().float()
        return unit(self.nets["projector"](features))

    def _key(self, view: Tensor) -> Tensor:
        """Return the momentum projection of a view, (B, D) of unit length, without gradient."""
        with torch.no_grad():
            features = in_groups(self.nets["momentum_encoder"], view, self.settings.slices_per_group, shuffled=True)
            return unit(self.nets["momentum_projector"](features))

    def _against_queue(self, query: Tensor, key: Tensor) -> Tensor:
        with full_precision(query):
            return info_nce(query, key, self.nets["queue"].keys, self.settings.temperature)
