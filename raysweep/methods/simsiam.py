"""SimSiam: each view's prediction resembles the other view's projection, through which no gradient flows."""

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


class SimSiamSettings(_recipes.TwoViewSettings):
    """Settings of SimSiam. Numbers are those of arXiv:2011.10566, section 3, unless a comment says otherwise."""

    # lr 0.05 at 256 images a step, by the linear rule at the 128 slices that a study's batch has by default.
    optimisation: Optimisation = Optimisation(optimiser="sgd", lr=0.025, weight_decay=1e-4)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.MOCO_V2
    """Random transformations of both views."""
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector."""
    bottleneck_features: int = Field(512, gt=0)
    """Width of the predictor's hidden layer."""


class SimSiam(Method):
    """Negative cosine similarity of predictions and projections of the other view, from -1 to 1.

    The predictor's learning rate decays with the rest, where the paper's code keeps it constant.

    Source: Chen & He 2020, arXiv:2011.10566, equations 1 to 4.
    """

    Settings = SimSiamSettings
    name: ClassVar[str] = "simsiam"
    family: ClassVar[str] = "distillation"
    paper: ClassVar[str] = "Chen & He 2020, arXiv:2011.10566"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0

    def __init__(self, settings: SimSiamSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        width = settings.hidden_features
        self.nets["projector"] = mlp([self.num_features, width, width, width], last="plain norm")
        self.nets["predictor"] = mlp([width, settings.bottleneck_features, width])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``."""
        projections = [self.nets["projector"](self._encode(view)) for view in batch.views]
        predictions = [unit(self.nets["predictor"](z)) for z in projections]
        targets = [unit(z.detach()) for z in projections]
        with full_precision(targets[0]):
            pairs = zip(predictions, reversed(targets), strict=True)
            loss = -torch.stack([(p * t).sum(1).mean() for p, t in pairs]).mean()
        return {"loss": loss, "projection_std": feature_std(projections[0])}


METHOD = SimSiam
