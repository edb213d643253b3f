"""What a study file may say of a method; it validates without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from raysweep.settings import Augmentation, Optimisation, OwnDefaults, Settings

Target = Literal["labels", "masks"] | None


class View(Settings):
    """One of the views that a method takes of each slice."""

    augmentation: Augmentation = Augmentation()
    """Random transformations of the view."""
    size_px: int | None = None
    """Side of the square view in pixels; null for the study's image size."""


class MethodSettings(OwnDefaults, ABC):
    """Settings that every method has; a method adds its own and overrides the defaults."""

    optimisation: Optimisation = Optimisation()
    """Optimiser and learning-rate schedule."""

    @model_validator(mode="after")
    def _schedule_needs_no_validation(self) -> MethodSettings:
        if self.optimisation.schedule == "plateau":
            raise ValueError("pretraining validates nothing that plateau could watch; take cosine, polynomial or step")
        return self

    @abstractmethod
    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the views that the method takes of each slice, in the order that its loss expects.

        Args:
            image_size: the study's image size in pixels, which the size of small views follows.
        """

    def target(self) -> Target:
        """Return what the loss learns from beside the slices: nothing, labels of slices, or masks."""
        return None

    def learnt_labels(self, labels: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """Return labels (N, L) of slices as the loss learns them, NaN where one is left out."""
        return labels
