"""DINOv2: iBOT with a head of its own for patches, balanced teachers, and class tokens kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods._clustering import sinkhorn
from raysweep.methods.ibot import IBOT, IBOTSettings

if TYPE_CHECKING:
    from torch import Tensor


class DINOv2Settings(IBOTSettings):
    """Settings of DINOv2. Numbers are those of arXiv:2304.07193, section 4 and appendix B, or of iBOT."""

    num_small_crops: int = Field(8, ge=0)
    """Small crops of each slice."""
    tau_start: float = Field(0.994, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    koleo_weight: float = Field(0.1, ge=0)
    """Weight of the distance of each class token to its nearest neighbour in the batch."""
    sinkhorn_rounds: int = Field(3, ge=1)
    """Rounds of Sinkhorn-Knopp that balance the teacher, in place of centring."""


class DINOv2(IBOT):
    """Cross-entropy of class tokens and hidden patches against balanced teachers, and the KoLeo regulariser.

    What the paper adds for scale (data curation, efficient attention, distillation, a final phase at high resolution)
    is left out.

    Source: Oquab et al. 2023, arXiv:2304.07193, section 4.
    """

    Settings = DINOv2Settings
    name: ClassVar[str] = "dinov2"
    paper: ClassVar[str] = "Oquab et al. 2023, arXiv:2304.07193"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3 + 8 * (96 / 224) ** 2
    separate_heads: ClassVar[bool] = True
    settings: DINOv2Settings

    def _build_targets(self) -> None:
        """Balanced teachers keep nothing between steps."""

    def _class_targets(self, outputs: Tensor, temperature: float) -> Tensor:
        return sinkhorn(outputs, temperature, self.settings.sinkhorn_rounds)

    def _patch_targets(self, outputs: Tensor, hidden: Tensor, temperature: float) -> Tensor:
        targets = outputs.float().new_zeros(outputs.shape)
        if bool(hidden.any()):
            targets[hidden] = sinkhorn(outputs[hidden], temperature, self.settings.sinkhorn_rounds)
        return targets

    def _spread(self, summary: Tensor) -> Tensor:
        from raysweep.methods._distillation import koleo

        first, second = summary.chunk(2)
        return self.settings.koleo_weight * (koleo(first) + koleo(second))


METHOD = DINOv2
