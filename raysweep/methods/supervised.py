"""Supervised: the labels or the masks of a pack, the encoder learning by a head that is not handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysweep.lazy import F, nn
from raysweep.methods._batch import Batch, Run
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import MethodSettings, Target, View
from raysweep.settings import Augmentation, LabelRange, Optimisation, Uncertain, Unknown, later

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder

_FINEST_STRIDE = 4


class SupervisedSettings(MethodSettings):
    """Settings of supervised pretraining. Numbers follow Hosseinzadeh Taher et al. 2021 unless a comment says else."""

    # Adam 2e-4 at batches of 32 in the paper, with a plateau schedule; AdamW at 1e-3 suits a study's larger ones.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-4, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    # Random resized crop, flip and rotation by 7 degrees.
    augmentation: Augmentation = Augmentation(crop_scale=(0.2, 1.0), rotation_deg=7.0, jitter_p=0.0, blur_p=0.0)
    """Random transformations; masks follow the geometric ones."""
    learn: Literal["labels", "masks"] = "labels"
    """What is learnt: labels of whole slices, or masks."""
    exclusive: bool = False
    """Whether exactly one label applies to a slice: softmax rather than one sigmoid a label."""
    uncertain: Uncertain = later("ignore")
    """What becomes of uncertain labels: ones, zeros, lsr-ones, lsr-zeros (a random number near 1 or 0), or ignore."""
    unknown: Unknown = later("ignore")
    """What becomes of labels that are not known: ignore, or zeros."""
    smoothing: LabelRange | None = later(None)
    """Range of the random numbers that lsr-ones and lsr-zeros draw; null for 0.55 to 0.85 and 0 to 0.3."""
    decoder_features: int = Field(64, gt=0)
    """Width of the decoder of masks."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the one view."""
        return (View(augmentation=self.augmentation),)

    def target(self) -> Target:
        """Return what is learnt."""
        return self.learn

    def learnt_labels(self, labels: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """Return labels without uncertain values; smoothed ones are drawn once, by the seed."""
        from raysweep.data.label_policies import resolve_labels

        return resolve_labels(labels, self.uncertain, self.unknown, seed, self.smoothing)


class Supervised(Method):
    """Cross-entropy of labels, unknown ones left out; or of masks, with soft Dice.

    Source: the supervised sources of Hosseinzadeh Taher et al. 2021, arXiv:2108.05930, section 3.
    """

    Settings = SupervisedSettings
    name: ClassVar[str] = "supervised"
    family: ClassVar[str] = "supervised"
    paper: ClassVar[str] = "Hosseinzadeh Taher et al. 2021, arXiv:2108.05930"
    recipe: ClassVar[int] = 2
    cost: ClassVar[float] = 1.0
    divided_nets: ClassVar[tuple[str, ...]] = ("encoder", "head")
    settings: SupervisedSettings

    def __init__(self, settings: SupervisedSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        if settings.learn == "labels":
            self.nets["head"] = nn.Linear(self.num_features, run.num_labels)
            return
        from raysweep.methods._map_decoder import MapDecoder

        fine_enough = [stride >= _FINEST_STRIDE for stride in encoder.reduction]
        self.first_map = fine_enough.index(True)
        channels = encoder.channels[self.first_map :]
        self.nets["head"] = MapDecoder(channels, settings.decoder_features, run.num_classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and, for labels, the share of known ones that are ``right``; for masks, of pixels."""
        return self._of_labels(batch) if self.settings.learn == "labels" else self._of_masks(batch)

    def _of_labels(self, batch: Batch) -> dict[str, Tensor]:
        if batch.labels is None:
            raise ValueError("supervised learns from labels, but the batch has none")
        logits = self.nets["head"](self._encode(batch.views[0])).float()
        known = ~batch.labels.isnan()
        labels = batch.labels.nan_to_num(0.0).to(logits)
        with full_precision(logits):
            if self.settings.exclusive:
                loss = -(labels * logits.log_softmax(1)).sum() / known.all(1).sum().clamp(min=1)
                right = (logits.argmax(1) == labels.argmax(1)).float().mean()
            else:
                losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
                loss = (losses * known).sum() / known.sum().clamp(min=1)
                right = (((logits > 0) == (labels > 0.5)) & known).sum() / known.sum().clamp(min=1)
        return {"loss": loss, "right": right.detach()}

    def _of_masks(self, batch: Batch) -> dict[str, Tensor]:
        if not batch.masks:
            raise ValueError("supervised learns from masks, but the batch has none")
        maps = self.nets["encoder"].feature_maps(batch.views[0])
        self.features = maps[-1].detach().float().mean((2, 3))
        logits = self.nets["head"](maps[self.first_map :])
        logits = F.interpolate(logits.float(), size=batch.views[0].shape[2:], mode="nearest")
        truth = F.one_hot(batch.masks[0], logits.shape[1]).movedim(-1, 1).to(logits)
        with full_precision(logits):
            entropy = -(truth * logits.log_softmax(1)).sum(1).mean()
            shares = logits.softmax(1)
            overlap, total = (shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3))
            present = truth.sum((0, 2, 3)) > 0
            dice = ((1 - 2 * overlap / total.clamp(min=1e-7)) * present).sum() / present.sum()
            right = (logits.argmax(1) == batch.masks[0]).float().mean()
        return {"loss": entropy + dice, "right": right.detach()}


METHOD = Supervised
