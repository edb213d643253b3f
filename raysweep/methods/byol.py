"""BYOL: an online network predicts the momentum network's projection of the other view, without negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.settings import Optimisation, later

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class BYOLSettings(_recipes.ByolViewSettings, MomentumSettings):
    """Settings of BYOL. Numbers are those of arXiv:2006.07733 unless a comment says otherwise."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1.5e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    tau_start: float = Field(0.99, ge=0, le=1)
    """Momentum at the first step, rising to 1: 0.99 is the paper's for 300 epochs, 0.996 for 1000."""
    hidden_features: int = Field(4096, gt=0)
    """Width of the hidden layers of projector and predictor."""
    predictor_features: int | None = later(None, gt=0)
    """Width of the predictor's hidden layer, where it is another; null for that of the projector."""
    output_features: int = Field(256, gt=0)
    """Dimension of projections and predictions."""
    # The paper keeps the online encoder; Kalapos & Gyires-Toth 2022 the momentum one.
    hand_on: Literal["online", "momentum"] = "momentum"
    """The encoder that is handed on."""


class BYOL(MomentumMethod):
    """Squared distance of normalised predictions to momentum projections, over both pairings of two views.

    Source: Grill et al. 2020, arXiv:2006.07733, equation 2.
    """

    Settings = BYOLSettings
    name: ClassVar[str] = "byol"
    family: ClassVar[str] = "distillation"
    paper: ClassVar[str] = "Grill et al. 2020, arXiv:2006.07733"
    recipe: ClassVar[int] = 2
    cost: ClassVar[float] = 8 / 3

    def __init__(self, settings: BYOLSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        hidden, output = settings.hidden_features, settings.output_features
        self.nets["projector"] = mlp([self.num_features, hidden, output])
        self.nets["predictor"] = mlp([output, settings.predictor_features or hidden, output])
        self.follow("encoder", "projector")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, from 0 to 8, and ``projection_std``.

        Each view passes alone, so that it has its own batch statistics, as in the paper.
        """
        nets = self.nets
        projections = [nets["projector"](self._encode(view)) for view in batch.views]
        predictions = [unit(nets["predictor"](projection)) for projection in projections]
        with torch.no_grad():
            targets = [unit(nets["momentum_projector"](nets["momentum_encoder"](view))) for view in batch.views]
        with full_precision(targets[0]):
            # || p - t ||^2 = 2 - 2 cos(p, t) for vectors of unit length
            pairs = zip(predictions, reversed(targets), strict=True)
            loss = sum((2 - 2 * (p * t).sum(1).mean() for p, t in pairs), torch.zeros((), device=targets[0].device))
            return {"loss": loss, "projection_std": feature_std(projections[0])}


METHOD = BYOL
