"""DINO: crops of every size find the prototypes that a momentum teacher finds in the large crops."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._method import full_precision
from raysweep.methods._settings import View
from raysweep.methods._teacher import TeacherMethod, TeacherSettings
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class DINOSettings(TeacherSettings):
    """Settings of DINO. Numbers are those of arXiv:2104.14294, section 3.1 and appendix, unless a comment says else."""

    # lr 0.0005 at 256 images a step for hundreds of epochs; 5e-4 at a study's batches of 128, which train shorter.
    optimisation: Optimisation = Optimisation(
        optimiser="adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, warmup_epochs=1, clip_norm=3.0
    )
    """Optimiser and learning-rate schedule."""
    first: View = View(augmentation=_recipes.BYOL_FIRST.model_copy(update={"crop_scale": (0.4, 1.0)}))
    """The first large crop."""
    second: View = View(augmentation=_recipes.BYOL_SECOND.model_copy(update={"crop_scale": (0.4, 1.0)}))
    """The second large crop."""
    small: Augmentation = _recipes.BYOL_FIRST.model_copy(update={"crop_scale": (0.05, 0.4), "blur_p": 0.5})
    """Random transformations of small crops."""
    num_small_crops: int = Field(8, ge=0)
    """Small crops of each slice."""
    centre_momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the centre that stays in a step."""
    # 65536 in the paper, for ImageNet; packs and batches are smaller.
    num_prototypes: int = Field(4096, ge=2)
    """Prototypes."""
    hidden_features: int = Field(2048, gt=0)
    """Width of the head's hidden layers."""
    bottleneck_features: int = Field(256, gt=0)
    """Dimension of the prototypes."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the two large crops, then the small ones."""
        few = View(augmentation=self.small, size_px=_recipes.small_size(image_size))
        return (self.first, self.second, *[few] * self.num_small_crops)


class DINO(TeacherMethod):
    """Cross-entropy of a student's outputs against a centred and sharpened teacher's on another crop.

    Features are the mean of the last feature map for every type of encoder, since that is what is handed on; the paper
    takes a transformer's class token.

    Source: Caron et al. 2021, arXiv:2104.14294, equations 3 and 4.
    """

    Settings = DINOSettings
    name: ClassVar[str] = "dino"
    family: ClassVar[str] = "distillation"
    paper: ClassVar[str] = "Caron et al. 2021, arXiv:2104.14294"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3 + 8 * (96 / 224) ** 2
    settings: DINOSettings

    def __init__(self, settings: DINOSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._distillation import Centre, PrototypeHead

        self.nets["projector"] = PrototypeHead(
            self.num_features, settings.hidden_features, settings.bottleneck_features, settings.num_prototypes
        )
        self.follow("encoder", "projector")
        self.nets["centre"] = Centre(settings.num_prototypes, settings.centre_momentum)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, ``teacher_entropy`` (0 if it collapsed to one prototype) and ``feature_std`` of outputs."""
        B, views = len(batch.ids), batch.views
        features = [self._encode(torch.cat(list(views[:2])))]
        if len(views) > 2:
            features.append(self.nets["encoder"](torch.cat(list(views[2:]))))
        frozen = self.freezes_prototypes(batch.step)
        student = self.nets["projector"](torch.cat(features), frozen_prototypes=frozen).split(B)
        with torch.no_grad():
            teacher = self.nets["momentum_projector"](self.nets["momentum_encoder"](torch.cat(list(views[:2]))))
        with full_precision(teacher):
            targets = self.nets["centre"].targets(teacher, self.teacher_temperature(batch.step))
            loss = self.across_crops(targets.chunk(2), student)
            entropy = torch.special.entr(targets.mean(0)).sum()
        return {
            "loss": loss,
            "teacher_entropy": entropy,
            "projection_std": feature_std(student[0]),
        }


METHOD = DINO
