"""PIRL: a slice and its shuffled patches both resemble the slice's entry in a bank, and no other entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods._bank import bank_cross_entropy
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._jigsaw import build_jigsaw_head, embed_jigsaw, jigsaw_view_px, patch_px
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import View
from raysweep.methods.insdis import InsDisSettings

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class PIRLSettings(InsDisSettings):
    """Settings of PIRL. Numbers are those of arXiv:1912.01991, section 3.4; the optimiser is that of InsDis."""

    jigsaw_weight: float = Field(0.5, ge=0, le=1)
    """Weight of the shuffled patches, beside that of the whole view."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the whole view and the larger one that patches are cut from."""
        whole = View(augmentation=self.augmentation)
        return whole, View(augmentation=self.augmentation, size_px=jigsaw_view_px(image_size))


class PIRL(Method):
    """Cross-entropy against the bank for the whole view and for its jigsaw.

    The softmax form of the paper's noise-contrastive estimation, as for InsDis.

    Source: Misra & van der Maaten 2019, arXiv:1912.01991, equation 5.
    """

    Settings = PIRLSettings
    name: ClassVar[str] = "pirl"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Misra & van der Maaten 2019, arXiv:1912.01991"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 1.73
    settings: PIRLSettings

    def __init__(self, settings: PIRLSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import SliceBank

        self.nets["projector"] = mlp([self.num_features, settings.output_features])
        self.nets["jigsaw"] = build_jigsaw_head(self.num_features, settings.output_features)
        self.nets["bank"] = SliceBank(run.num_slices, settings.output_features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``jigsaw_loss`` part and ``projection_std``, and renew the entries of the batch."""
        side = patch_px(self.run.image_size)
        shuffled = unit(embed_jigsaw(self.nets["encoder"], self.nets["jigsaw"], batch.views[1], side))
        whole = unit(self.nets["projector"](self._encode(batch.views[0])))
        bank, settings = self.nets["bank"], self.settings
        with full_precision(whole):
            parts = [
                bank_cross_entropy(
                    query,
                    bank.vectors,
                    batch.ids,
                    settings.temperature,
                    settings.num_negatives,
                )
                for query in (whole, shuffled)
            ]
            loss = (1 - settings.jigsaw_weight) * parts[0] + settings.jigsaw_weight * parts[1]
        bank.blend(batch.ids, whole, settings.bank_momentum)
        return {"loss": loss, "jigsaw_loss": parts[1].detach(), "projection_std": feature_std(whole)}


METHOD = PIRL
