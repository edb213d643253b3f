"""SimCLR: two views of a slice attract each other and repel the views of all other slices in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import View
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class SimCLRSettings(_recipes.TwoViewSettings):
    """Settings of SimCLR. Numbers are those of arXiv:2002.05709 unless a comment says otherwise."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.SIMCLR
    """Random transformations of both views, at jitter strength 1."""
    jitter_strength: float = Field(1.0, ge=0)
    """Factor on brightness, contrast and gamma: the strength s of the paper's colour distortion."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities; 0.1 is the paper's best on ImageNet."""
    head_layers: int = Field(2, ge=1)
    """Layers of the projector."""
    hidden_features: int | None = Field(None, gt=0)
    """Width of the projector's hidden layers; null for as wide as the encoder's features."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""

    @model_validator(mode="after")
    def _strength_stays_in_range(self) -> Self:
        self.views(0)
        return self

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return two views of equal augmentation."""
        factors = {
            name: getattr(self.augmentation, name) * self.jitter_strength
            for name in ("brightness", "contrast", "gamma")
        }
        view = View(augmentation=Augmentation(**(self.augmentation.model_dump() | factors)))
        return view, view


class SimCLR(Method):
    """Normalised temperature-scaled cross-entropy between two views.

    Source: Chen et al. 2020, arXiv:2002.05709, equation 1.
    """

    Settings = SimCLRSettings
    name: ClassVar[str] = "simclr"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    recipe: ClassVar[int] = 2
    cost: ClassVar[float] = 2.0
    settings: SimCLRSettings

    def __init__(self, settings: SimCLRSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from lightly.loss import NTXentLoss

        hidden = settings.hidden_features or self.num_features
        widths = [self.num_features, *[hidden] * (settings.head_layers - 1), settings.output_features]
        self.nets["projector"] = mlp(widths, last="norm")
        self._criterion = NTXentLoss(settings.temperature)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``. Both views pass in one batch, as in the paper."""
        projections = self.nets["projector"](self._encode(torch.cat(list(batch.views))))
        with full_precision(projections):
            first, second = projections.float().chunk(2)
            return {"loss": self._criterion(first, second), "projection_std": feature_std(first)}


METHOD = SimCLR
