"""TiCo: views agree, and stay away from the directions along which embeddings covary."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.settings import Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class TiCoSettings(_recipes.ByolViewSettings, MomentumSettings):
    """Settings of TiCo, after arXiv:2206.10698.

    What the paper says of beta and rho could not be read again. Public implementations agree on a beta of 0.9 and, as
    the paper's, a rho of 20; lightly began with it too (its pull request 1016) and has 8 since it changed the loss to
    train on ImageNet (its pull request 1398).
    """

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1.5e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    tau_start: float = Field(0.99, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    covariance_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the covariance matrix that stays in a step (beta)."""
    covariance_weight: float = Field(20.0, ge=0)
    """Weight of the covariance contrast (rho)."""
    hidden_features: int = Field(4096, gt=0)
    """Width of the projector's hidden layer."""
    output_features: int = Field(256, gt=0)
    """Dimension of the projections."""


class TiCo(MomentumMethod):
    """Invariance to a momentum view, and contrast with a running covariance matrix.

    Source: Zhu et al. 2022, arXiv:2206.10698, equations 5 and 6, algorithm 1.
    """

    Settings = TiCoSettings
    name: ClassVar[str] = "tico"
    family: ClassVar[str] = "redundancy reduction"
    paper: ClassVar[str] = "Zhu et al. 2022, arXiv:2206.10698"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3
    settings: TiCoSettings

    def __init__(self, settings: TiCoSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        output = settings.output_features
        self.nets["projector"] = mlp([self.num_features, settings.hidden_features, output])
        self.nets["covariance"] = nn.Module()
        self.nets["covariance"].register_buffer("matrix", torch.zeros(output, output))
        self.follow("encoder", "projector")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, both ways, and ``projection_std``; the covariance matrix moves with each view."""
        projections = [unit(self.nets["projector"](self._encode(view))) for view in batch.views]
        with torch.no_grad():
            targets = [unit(self.nets["momentum_projector"](self.nets["momentum_encoder"](v))) for v in batch.views]
        with full_precision(targets[0]):
            pairs = zip(projections, reversed(targets), strict=True)
            loss = torch.stack([self._one_way(z, target) for z, target in pairs]).mean()
        return {"loss": loss, "projection_std": feature_std(projections[0])}

    def _one_way(self, projection: Tensor, target: Tensor) -> Tensor:
        state, beta = self.nets["covariance"], self.settings.covariance_momentum
        with torch.no_grad():
            own = projection.T @ projection / len(projection)
            state.matrix = beta * state.matrix + (1 - beta) * own
        invariance = 1 - (projection * target).sum(1).mean()
        contrast = (projection @ state.matrix * projection).sum(1).mean()
        loss: Tensor = invariance + self.settings.covariance_weight * contrast
        return loss


METHOD = TiCo
