"""Barlow Twins: the cross-correlation of two views' projections becomes the identity."""

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


class BarlowTwinsSettings(_recipes.ByolViewSettings):
    """Settings of Barlow Twins. Numbers are those of arXiv:2103.03230, section 2.2, unless a comment says otherwise."""

    # The paper trains 2048 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1.5e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    redundancy_weight: float = Field(0.005, gt=0)
    """Weight of the terms off the diagonal (lambda)."""
    # 8192 in the paper, for ImageNet; packs and batches are smaller.
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector's two hidden layers."""
    output_features: int = Field(2048, gt=0)
    """Dimension of the projections."""


class BarlowTwins(Method):
    """Squared distance of the cross-correlation matrix from the identity.

    Source: Zbontar et al. 2021, arXiv:2103.03230, equation 1.
    """

    Settings = BarlowTwinsSettings
    name: ClassVar[str] = "barlow-twins"
    family: ClassVar[str] = "redundancy reduction"
    paper: ClassVar[str] = "Zbontar et al. 2021, arXiv:2103.03230"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0

    def __init__(self, settings: BarlowTwinsSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from lightly.loss import BarlowTwinsLoss

        hidden = settings.hidden_features
        self.nets["projector"] = mlp([self.num_features, hidden, hidden, settings.output_features])
        self._criterion = BarlowTwinsLoss(lambda_param=settings.redundancy_weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``."""
        first, second = (self.nets["projector"](self._encode(view)).float() for view in batch.views)
        with full_precision(first):
            return {"loss": self._criterion(first, second), "projection_std": feature_std(first)}


METHOD = BarlowTwins
