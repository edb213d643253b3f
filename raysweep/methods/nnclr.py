"""NNCLR: a view's nearest neighbour among earlier slices is the positive of the other view."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._contrastive import batch_nce, default_queue_size
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import Method, full_precision
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class NNCLRSettings(_recipes.TwoViewSettings):
    """Settings of NNCLR. Numbers are those of arXiv:2104.14548, section 4.1, unless a comment says otherwise."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.SIMCLR
    """Random transformations of both views."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities."""
    queue_size: int | None = Field(None, ge=2)
    """Size of the support set; null for the paper's 98304, at most half the slices of the pack."""
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector's hidden layers."""
    predictor_features: int = Field(4096, gt=0)
    """Width of the predictor's hidden layer."""
    output_features: int = Field(256, gt=0)
    """Dimension of projections and predictions."""


class NNCLR(Method):
    """Cross-entropy of telling a prediction's neighbour from those of the batch, both ways.

    Source: Dwibedi et al. 2021, arXiv:2104.14548, equations 3 and 4.
    """

    Settings = NNCLRSettings
    name: ClassVar[str] = "nnclr"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Dwibedi et al. 2021, arXiv:2104.14548"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0
    settings: NNCLRSettings

    def __init__(self, settings: NNCLRSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import Queue

        hidden, output = settings.hidden_features, settings.output_features
        self.nets["projector"] = mlp([self.num_features, hidden, hidden, output], last="norm")
        self.nets["predictor"] = mlp([output, settings.predictor_features, output])
        size = settings.queue_size or default_queue_size(98304, run.num_slices)
        self.nets["support"] = Queue(size, output)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``, and add the first view's projections to the support set."""
        projections = [self.nets["projector"](self._encode(view)) for view in batch.views]
        predictions = [unit(self.nets["predictor"](z)) for z in projections]
        with full_precision(predictions[0]):
            neighbours = [self._nearest(unit(z.detach())) for z in projections]
            temperature = self.settings.temperature
            forth = batch_nce(neighbours[0], predictions[1], temperature)
            back = batch_nce(neighbours[1], predictions[0], temperature)
        self.nets["support"].push(unit(projections[0]))
        return {"loss": (forth + back) / 2, "projection_std": feature_std(projections[0])}

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Return the most similar vector of the support set to each of (B, D)."""
        keys: Tensor = self.nets["support"].keys
        with torch.no_grad():
            return keys[(vectors @ keys.T).argmax(1)]


METHOD = NNCLR
