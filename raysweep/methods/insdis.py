"""InsDis: instance discrimination, each slice a class of its own, with a bank of all slices' features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods import _recipes
from raysweep.methods._bank import bank_cross_entropy
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import mlp, unit
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class InsDisSettings(MethodSettings):
    """Settings of instance discrimination. Numbers are those of arXiv:1805.01978 unless a comment says otherwise."""

    # 0.03 at 256 images a step, by the linear rule at the 128 slices that a study's batch has by default.
    optimisation: Optimisation = Optimisation(optimiser="sgd", lr=0.015, weight_decay=1e-4)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.MOCO_V1
    """Random transformations of the view."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the similarities."""
    bank_momentum: float = Field(0.5, ge=0, lt=1)
    """Share of a bank entry that stays when its slice is seen."""
    num_negatives: int | None = Field(65536, ge=1)
    """Entries drawn as negatives where the bank has more; null for always all."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the one view."""
        return (View(augmentation=self.augmentation),)


class InsDis(Method):
    """Softmax over all slices, whose weights are the bank.

    Medical packs are small enough for the softmax itself, which the paper estimates by noise-contrastive estimation
    with 4096 negatives and a proximal term.

    Source: Wu et al. 2018, arXiv:1805.01978, equation 2.
    """

    Settings = InsDisSettings
    name: ClassVar[str] = "insdis"
    family: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Wu et al. 2018, arXiv:1805.01978"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 1.0
    settings: InsDisSettings

    def __init__(self, settings: InsDisSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import SliceBank

        self.nets["projector"] = mlp([self.num_features, settings.output_features])
        self.nets["bank"] = SliceBank(run.num_slices, settings.output_features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``, and renew the entries of the batch."""
        query = unit(self.nets["projector"](self._encode(batch.views[0])))
        bank, settings = self.nets["bank"], self.settings
        with full_precision(query):
            loss = bank_cross_entropy(
                query,
                bank.vectors,
                batch.ids,
                settings.temperature,
                settings.num_negatives,
            )
        bank.blend(batch.ids, query, settings.bank_momentum)
        return {"loss": loss, "projection_std": feature_std(query)}


METHOD = InsDis
