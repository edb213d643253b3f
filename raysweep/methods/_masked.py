"""What methods that reconstruct hidden parts of a slice share."""

from __future__ import annotations

from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import Augmentation, Optimisation

WHOLE_CROP = Augmentation(crop_scale=(0.2, 1.0), jitter_p=0.0, blur_p=0.0)
"""Crop and flip alone. Source: He et al. 2021, arXiv:2111.06377, section 4.1, "Data augmentation"."""


class MaskedSettings(MethodSettings):
    """Settings of masked modelling: one view, cropped and flipped."""

    # 1.5e-4 at 256 images a step for 800 epochs of ImageNet in the paper of MAE; packs give far fewer steps.
    optimisation: Optimisation = Optimisation(
        optimiser="adamw", lr=5e-4, weight_decay=0.05, beta2=0.95, warmup_epochs=1
    )
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = WHOLE_CROP
    """Random transformations of the view."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the one view."""
        return (View(augmentation=self.augmentation),)
