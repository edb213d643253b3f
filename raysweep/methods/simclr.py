"""SimCLR: two views of a slice attract each other and repel the views of all other slices in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from raysweep.lazy import torch
from raysweep.methods._method import Method, MethodSettings, View, feature_std, full_precision
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class SimCLRSettings(MethodSettings):
    """Settings of SimCLR. Numbers are those of arXiv:2002.05709 unless a comment says otherwise."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    # Appendix A, without what needs colour (saturation, hue, conversion to grey).
    augmentation: Augmentation = Augmentation(
        crop_scale=(0.08, 1.0),
        jitter_p=0.8,
        brightness=0.8,
        contrast=0.8,
        blur_p=0.5,
        blur_sigma_px=(0.1, 2.0),
    )
    """Random transformations of both views, at jitter strength 1."""
    jitter_strength: float = Field(1.0, ge=0)
    """Factor on brightness and contrast: the strength s of the paper's colour distortion."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities; 0.1 is the paper's best on ImageNet."""
    hidden_features: int | None = Field(None, gt=0)
    """Width of the projector's hidden layer; null for as wide as the encoder's features."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""

    @model_validator(mode="after")
    def _strength_stays_in_range(self) -> Self:
        self.views()
        return self

    def views(self) -> tuple[View, ...]:
        """Return two views of equal augmentation."""
        scaled = self.augmentation.model_dump() | {
            "brightness": self.augmentation.brightness * self.jitter_strength,
            "contrast": self.augmentation.contrast * self.jitter_strength,
        }
        view = View(augmentation=Augmentation(**scaled))
        return view, view


class SimCLR(Method):
    """Normalised temperature-scaled cross-entropy between two views.

    Source: Chen et al. 2020, arXiv:2002.05709, equation 1.
    """

    Settings = SimCLRSettings
    name: ClassVar[str] = "simclr"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    recipe: ClassVar[int] = 1

    def __init__(self, settings: SimCLRSettings, encoder: Encoder, *, num_slices: int, total_steps: int) -> None:
        super().__init__(settings, encoder, num_slices=num_slices, total_steps=total_steps)
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        self.settings = settings
        hidden = settings.hidden_features or self.num_features
        self.nets["projector"] = SimCLRProjectionHead(self.num_features, hidden, settings.output_features)
        self._criterion = NTXentLoss(settings.temperature)

    def views(self) -> tuple[View, ...]:
        """Return two views of equal augmentation."""
        return self.settings.views()

    def loss(self, views: Sequence[Tensor], ids: Tensor) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``. Both views pass in one batch, as in the paper."""
        projections = self.nets["projector"](self._encode(torch.cat(list(views))))
        with full_precision(projections):
            first, second = projections.float().chunk(2)
            return {"loss": self._criterion(first, second), "projection_std": feature_std(first)}


METHOD = SimCLR
