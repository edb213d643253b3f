"""BYOL: an online network predicts the momentum network's projection of the other view, without negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods._method import Method, MethodSettings, View, feature_std, full_precision
from raysweep.methods._momentum import cosine_tau, momentum_copy, update_momentum
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder

# Table 6 of the paper, without what needs colour (saturation, hue, conversion to grey).
_FIRST = Augmentation(crop_scale=(0.08, 1.0), jitter_p=0.8, brightness=0.4, contrast=0.4, blur_p=1.0)
_SECOND = Augmentation(crop_scale=(0.08, 1.0), jitter_p=0.8, brightness=0.4, contrast=0.4, blur_p=0.1, solarise_p=0.2)


class BYOLSettings(MethodSettings):
    """Settings of BYOL. Numbers are those of arXiv:2006.07733 unless a comment says otherwise."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1.5e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    first: View = View(augmentation=_FIRST)
    """The view that is always blurred."""
    second: View = View(augmentation=_SECOND)
    """The view that is seldom blurred and sometimes solarised."""
    tau_start: float = Field(0.99, ge=0, le=1)
    """Momentum at the first step, rising to 1: 0.99 is the paper's for 300 epochs, 0.996 for 1000."""
    hidden_features: int = Field(4096, gt=0)
    """Width of the hidden layers of projector and predictor."""
    output_features: int = Field(256, gt=0)
    """Dimension of projections and predictions."""
    # The paper keeps the online encoder; Kalapos & Gyires-Toth 2022 the momentum one.
    hand_on: Literal["online", "momentum"] = "momentum"
    """The encoder that is handed on."""

    def views(self) -> tuple[View, ...]:
        """Return the first and the second view."""
        return self.first, self.second


class BYOL(Method):
    """Squared distance of normalised predictions to momentum projections, over both pairings of two views.

    Source: Grill et al. 2020, arXiv:2006.07733, equation 2.
    """

    Settings = BYOLSettings
    name: ClassVar[str] = "byol"
    family: ClassVar[str] = "distillation"
    paper: ClassVar[str] = "Grill et al. 2020, arXiv:2006.07733"
    recipe: ClassVar[int] = 1

    def __init__(self, settings: BYOLSettings, encoder: Encoder, *, num_slices: int, total_steps: int) -> None:
        super().__init__(settings, encoder, num_slices=num_slices, total_steps=total_steps)
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        self.settings = settings
        hidden, output = settings.hidden_features, settings.output_features
        self.nets["projector"] = BYOLProjectionHead(self.num_features, hidden, output)
        self.nets["predictor"] = BYOLPredictionHead(output, hidden, output)
        self.nets["momentum_encoder"] = momentum_copy(encoder)
        self.nets["momentum_projector"] = momentum_copy(self.nets["projector"])
        self._negative_cosine = NegativeCosineSimilarity()

    def views(self) -> tuple[View, ...]:
        """Return the first and the second view."""
        return self.settings.views()

    def loss(self, views: Sequence[Tensor], ids: Tensor) -> dict[str, Tensor]:
        """Return the loss, from 0 to 8, and ``projection_std``.

        Each view passes alone, so that it has its own batch statistics, as in the paper.
        """
        projections = [self.nets["projector"](self._encode(view)) for view in views]
        predictions = [self.nets["predictor"](projection).float() for projection in projections]
        with torch.no_grad():
            targets = [self.nets["momentum_projector"](self.nets["momentum_encoder"](view)).float() for view in views]
        with full_precision(targets[0]):
            # || p - t ||^2 = 2 - 2 cos(p, t) for vectors of unit length
            first = 2 + 2 * self._negative_cosine(predictions[0], targets[1])
            second = 2 + 2 * self._negative_cosine(predictions[1], targets[0])
            return {"loss": first + second, "projection_std": feature_std(projections[0])}

    def after_step(self, step: int) -> None:
        """Move the momentum encoder and projector."""
        tau = cosine_tau(self.settings.tau_start, step, self.total_steps)
        for name in ("encoder", "projector"):
            update_momentum(self.nets[name], self.nets[f"momentum_{name}"], tau)

    def encoder(self) -> Encoder:
        """Return the momentum or the online encoder, as the settings say."""
        name = "momentum_encoder" if self.settings.hand_on == "momentum" else "encoder"
        encoder: Encoder = self.nets[name]  # type: ignore[assignment]
        return encoder


METHOD = BYOL
