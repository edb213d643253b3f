"""What a method is given: the sizes of its run, and the views of a batch with what is known of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Run:
    """What a method knows of the run it trains in."""

    num_slices: int
    """Slices trained on; ids are below it."""
    batch_size: int
    """Slices of a batch."""
    steps_per_epoch: int
    """Optimiser steps of an epoch."""
    total_steps: int
    """Optimiser steps of the whole schedule."""
    image_size: int
    """Side of a full view in pixels."""
    num_classes: int = 0
    """Classes of the pack's masks, background included."""
    num_labels: int = 0
    """Labels of a slice."""


@dataclass(frozen=True)
class Batch:
    """The views of B slices, and what is known of these slices."""

    views: Sequence[Tensor]
    """One (B, C, H, W) float32 tensor for each view of the method."""
    ids: Tensor
    """(B,) int64, the position of each slice in the data set."""
    step: int = 0
    """Optimiser steps taken before this one."""
    places: Sequence[Tensor] = ()
    """For each view (B, 2, 3) float32, where it lies in its slice; see ``_places.cell_centres``."""
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    """(B,) float32, how far along its volume each slice lies, from 0 to 1."""
    labels: Tensor | None = None
    """(B, L) float32, NaN where unknown; there if the settings' target is labels."""
    masks: Sequence[Tensor] = ()
    """For each view (B, H, W) int64 classes; there if the settings' target is masks."""
