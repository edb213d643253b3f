"""InfoMin: momentum contrast of views that share as little as the task needs: strong augmentation and a jigsaw."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import unit
from raysweep.methods._jigsaw import build_jigsaw_head, embed_jigsaw, jigsaw_view_px, patch_px
from raysweep.methods._moco import MoCo
from raysweep.methods._settings import View
from raysweep.methods.moco_v2 import MoCov2Settings
from raysweep.settings import Augmentation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder

# Section 5 and appendix: crops, jitter, blur, and RandAugment, of which rotation and solarisation are kept here.
_STRONG = Augmentation(
    crop_scale=(0.2, 1.0),
    rotation_deg=30,
    jitter_p=0.8,
    brightness=0.8,
    contrast=0.8,
    gamma=0.8,
    blur_p=0.5,
    solarise_p=0.1,
)


class InfoMinSettings(MoCov2Settings):
    """Settings of InfoMin. Numbers are those of arXiv:2005.10243, section 5, or of MoCo-v2."""

    augmentation: Augmentation = _STRONG
    """Random transformations of all views."""
    temperature: float = Field(0.15, gt=0)
    """Temperature of the similarities."""
    jigsaw_weight: float = Field(0.5, ge=0, le=1)
    """Weight of the shuffled patches as a query, beside that of the whole view."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the query, the key, and the larger view that patches are cut from."""
        view = View(augmentation=self.augmentation)
        return view, view, View(augmentation=self.augmentation, size_px=jigsaw_view_px(image_size))


class InfoMin(MoCo):
    """MoCo-v2 under the InfoMin augmentation, with a second query from shuffled patches.

    Source: Tian et al. 2020, arXiv:2005.10243, section 5.
    """

    Settings = InfoMinSettings
    name: ClassVar[str] = "infomin"
    paper: ClassVar[str] = "Tian et al. 2020, arXiv:2005.10243"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.07
    hidden_layer: ClassVar[bool] = True
    settings: InfoMinSettings

    def __init__(self, settings: InfoMinSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        self.nets["jigsaw"] = build_jigsaw_head(self.num_features, settings.output_features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``jigsaw_loss`` part and ``projection_std``, and add the keys to the queue."""
        side, weight = patch_px(self.run.image_size), self.settings.jigsaw_weight
        shuffled = unit(embed_jigsaw(self.nets["encoder"], self.nets["jigsaw"], batch.views[2], side))
        query, key = self._query(batch.views[0]), self._key(batch.views[1])
        whole_loss, jigsaw_loss = (self._against_queue(q, key) for q in (query, shuffled))
        self.nets["queue"].push(key)
        loss = (1 - weight) * whole_loss + weight * jigsaw_loss
        return {"loss": loss, "jigsaw_loss": jigsaw_loss.detach(), "projection_std": feature_std(query)}


METHOD = InfoMin
