"""MoCo-v3: symmetric contrast within the batch between predictions and momentum projections, without a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._contrastive import batch_nce
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.settings import TRANSFORMER, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class MoCov3Settings(_recipes.ByolViewSettings, MomentumSettings):
    """Settings of MoCo-v3. Numbers are those of arXiv:2104.02057, appendix A, unless a comment says otherwise."""

    # The paper's AdamW for transformers, 1.5e-4 at 256 images a step, suits batches of 4096; 1e-3 those of hundreds.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=0.1, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    temperature: float = Field(0.2, gt=0)
    """Temperature of the similarities."""
    tau_start: float = Field(0.99, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    hidden_features: int = Field(4096, gt=0)
    """Width of the hidden layers of projector and predictor."""
    output_features: int = Field(256, gt=0)
    """Dimension of projections and predictions."""
    freeze_patches: bool = True
    """Whether a transformer keeps its random patch projection, as the paper does for stability."""


class MoCov3(MomentumMethod):
    """Cross-entropy of telling a prediction's momentum projection from those of the batch, times 2 tau, both ways.

    Source: Chen et al. 2021, arXiv:2104.02057, equation 1 and algorithm 1.
    """

    Settings = MoCov3Settings
    name: ClassVar[str] = "moco-v3"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Chen et al. 2021, arXiv:2104.02057"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3
    settings: MoCov3Settings

    def __init__(self, settings: MoCov3Settings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        hidden, output = settings.hidden_features, settings.output_features
        layers = 3 if encoder.kind == TRANSFORMER else 2
        self.nets["projector"] = mlp([self.num_features, *[hidden] * (layers - 1), output], last="plain norm")
        self.nets["predictor"] = mlp([output, hidden, output], last="plain norm")
        if settings.freeze_patches and encoder.vit is not None:
            encoder.vit.patch_embed.requires_grad_(False)
        self.follow("encoder", "projector")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``."""
        nets, temperature = self.nets, self.settings.temperature
        queries = [unit(nets["predictor"](nets["projector"](self._encode(view)))) for view in batch.views]
        with torch.no_grad():
            keys = [unit(nets["momentum_projector"](nets["momentum_encoder"](view))) for view in batch.views]
        with full_precision(keys[0]):
            forth = batch_nce(queries[0], keys[1], temperature)
            back = batch_nce(queries[1], keys[0], temperature)
            return {"loss": 2 * temperature * (forth + back), "projection_std": feature_std(queries[0])}


METHOD = MoCov3
