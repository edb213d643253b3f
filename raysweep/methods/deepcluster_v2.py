"""DeepCluster-v2: k-means of all slices before each epoch, whose centres are the classes of the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raysweep.lazy import nn, torch
from raysweep.methods._assignment import AssignmentSettings, ClusterAssignment
from raysweep.methods._batch import Run
from raysweep.methods._clustering import spherical_kmeans

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class DeepClusterV2(ClusterAssignment):
    """Cross-entropy over fixed prototypes, the centres of spherical k-means.

    Source: Caron et al. 2020, arXiv:2006.09882, appendix, "DeepCluster-v2"; Caron et al. 2018, arXiv:1807.05520.
    """

    Settings = AssignmentSettings
    name: ClassVar[str] = "deepcluster-v2"
    recipe: ClassVar[int] = 1

    def __init__(self, settings: AssignmentSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        self.nets["prototypes"].requires_grad_(False)

    def _assign(self, vectors: Tensor, prototypes: nn.Linear) -> Tensor:
        centres, clusters = spherical_kmeans(vectors, prototypes.out_features)
        with torch.no_grad():
            prototypes.weight.copy_(centres)
        return clusters


METHOD = DeepClusterV2
