"""MMCR: the views of a slice shrink to a point while these points spread over as many dimensions as they can."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class MMCRSettings(MethodSettings):
    """Settings of MMCR. Numbers are those of arXiv:2303.03307 unless a comment says otherwise."""

    # The paper trains 2048 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.BYOL_FIRST.model_copy(update={"blur_p": 0.5, "solarise_p": 0.1})
    """Random transformations of every view: BYOL's, between its two."""
    num_views: int = Field(4, ge=2)
    """Views of each slice."""
    local_weight: float = Field(0.0, ge=0)
    """Weight of the extent of each slice's own views (lambda), which the paper leaves out on ImageNet."""
    hidden_features: int = Field(4096, gt=0)
    """Width of the projector's hidden layer."""
    output_features: int = Field(512, gt=0)
    """Dimension of the projections."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return views of equal augmentation."""
        return (View(augmentation=self.augmentation),) * self.num_views


class MMCR(Method):
    """Negative nuclear norm of the matrix of slices' mean projections.

    Without the momentum encoder that the authors' code adds on ImageNet.

    Source: Yerxa et al. 2023, arXiv:2303.03307, equation 2.
    """

    Settings = MMCRSettings
    name: ClassVar[str] = "mmcr"
    family: ClassVar[str] = "redundancy reduction"
    paper: ClassVar[str] = "Yerxa et al. 2023, arXiv:2303.03307"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 4.0
    settings: MMCRSettings

    def __init__(self, settings: MMCRSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        self.nets["projector"] = mlp([self.num_features, settings.hidden_features, settings.output_features])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, at least -sqrt(B min(B, D)), and ``projection_std``."""
        projections = unit(self.nets["projector"](self._encode(torch.cat(list(batch.views)))))
        with full_precision(projections):
            manifolds = projections.reshape(len(batch.views), len(batch.ids), -1)
            loss = -torch.linalg.svdvals(manifolds.mean(0)).sum()
            if self.settings.local_weight:
                own = torch.linalg.svdvals(manifolds.transpose(0, 1)).sum(1).mean()
                loss = loss + self.settings.local_weight * own
        return {"loss": loss, "projection_std": feature_std(manifolds[0])}


METHOD = MMCR
