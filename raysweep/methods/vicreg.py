"""VICReg: views agree, while every dimension varies and no two dimensions covary."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp
from raysweep.methods._method import Method, full_precision
from raysweep.settings import Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class VICRegSettings(_recipes.ByolViewSettings):
    """Settings of VICReg. Numbers are those of arXiv:2105.04906, section 4, unless a comment says otherwise."""

    # The paper trains 2048 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    invariance_weight: float = Field(25.0, ge=0)
    """Weight of the distance of views (lambda)."""
    variance_weight: float = Field(25.0, ge=0)
    """Weight of the variance of each dimension (mu)."""
    covariance_weight: float = Field(1.0, ge=0)
    """Weight of the covariance of dimensions (nu)."""
    # 8192 in the paper, for ImageNet; packs and batches are smaller.
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector's two hidden layers."""
    output_features: int = Field(2048, gt=0)
    """Dimension of the projections."""


class VICReg(Method):
    """Mean squared distance, hinge on standard deviations, and squared covariances of two views' projections.

    Source: Bardes et al. 2021, arXiv:2105.04906, equation 6.
    """

    Settings = VICRegSettings
    name: ClassVar[str] = "vicreg"
    family: ClassVar[str] = "redundancy reduction"
    paper: ClassVar[str] = "Bardes et al. 2021, arXiv:2105.04906"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0
    settings: VICRegSettings

    def __init__(self, settings: VICRegSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        hidden = settings.hidden_features
        self.nets["projector"] = mlp([self.num_features, hidden, hidden, settings.output_features])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``."""
        from raysweep.methods._regularisation import vicreg_loss

        first, second = (self.nets["projector"](self._encode(view)).float() for view in batch.views)
        weights = self.settings.invariance_weight, self.settings.variance_weight, self.settings.covariance_weight
        with full_precision(first):
            return {"loss": vicreg_loss(first, second, *weights), "projection_std": feature_std(first)}


METHOD = VICReg
