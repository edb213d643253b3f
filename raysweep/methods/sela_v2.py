"""SeLa-v2: learnt prototypes, to which all slices are assigned in equal shares before each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn
from raysweep.methods._assignment import AssignmentSettings, ClusterAssignment
from raysweep.methods._clustering import sinkhorn
from raysweep.methods._heads import normalise_prototypes

if TYPE_CHECKING:
    from torch import Tensor


class SeLaV2Settings(AssignmentSettings):
    """Settings of SeLa-v2. Numbers are those of arXiv:2006.09882, appendix."""

    epsilon: float = Field(0.05, gt=0)
    """Smoothness of the balanced assignment."""
    sinkhorn_rounds: int = Field(20, ge=1)
    """Rounds of Sinkhorn-Knopp over the whole data set."""


class SeLaV2(ClusterAssignment):
    """Cross-entropy over learnt prototypes, with balanced labels of the whole data set.

    Source: Asano et al. 2019, arXiv:1911.05371, equation 6; Caron et al. 2020, arXiv:2006.09882, appendix, "SeLa-v2".
    """

    Settings = SeLaV2Settings
    name: ClassVar[str] = "sela-v2"
    recipe: ClassVar[int] = 1
    settings: SeLaV2Settings

    def _assign(self, vectors: Tensor, prototypes: nn.Linear) -> Tensor:
        scores = vectors @ prototypes.weight.T
        return sinkhorn(scores, self.settings.epsilon, self.settings.sinkhorn_rounds).argmax(1)

    def after_step(self, step: int) -> None:
        """Bring the prototypes back to unit length."""
        for prototypes in self.nets["prototypes"]:
            normalise_prototypes(prototypes)


METHOD = SeLaV2
