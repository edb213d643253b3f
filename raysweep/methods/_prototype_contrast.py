"""Prototypical contrast: momentum contrast, and contrast of slices with the clusters they fall into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._clustering import default_num_clusters, spherical_kmeans
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import unit
from raysweep.methods._method import full_precision
from raysweep.methods._moco import MoCo, MoCoSettings
from raysweep.settings import Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class PCLSettings(MoCoSettings):
    """Settings of prototypical contrast. Numbers are those of arXiv:2005.04966, section 4 and appendix."""

    # 0.03 at 256 images a step, by the linear rule at the 128 slices that a study's batch has by default.
    optimisation: Optimisation = Optimisation(optimiser="sgd", lr=0.015, weight_decay=1e-4)
    """Optimiser and learning-rate schedule."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities, and mean concentration of the clusters."""
    # 25000, 50000 and 100000 for the 1.28 million images of ImageNet, in the same proportion.
    slices_per_cluster: tuple[int, ...] = Field((50, 25, 12), min_length=1)
    """Mean size of a cluster, one clustering for each; at most a quarter of the slices become clusters."""
    warmup_share: float = Field(0.1, ge=0, le=1)
    """Share of the epochs at the beginning that learn without clusters: 20 of 200 in the paper."""
    concentration_smoothing: float = Field(10.0, gt=0)
    """What keeps the concentration of small clusters from being extreme (alpha)."""


class PrototypeContrast(MoCo):
    """Cross-entropy against the queue, and against all prototypes of several clusterings.

    Before each epoch the momentum encoder's projections of all slices are clustered anew. Every other prototype is a
    negative; the paper draws 16000 of up to 100000.

    Source: Li et al. 2020, arXiv:2005.04966, equations 11 and 12.
    """

    paper: ClassVar[str] = "Li et al. 2020, arXiv:2005.04966"
    cost: ClassVar[float] = 5 / 3
    settings: PCLSettings

    def __init__(self, settings: PCLSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        clusterings = nn.ModuleList()
        for size in settings.slices_per_cluster:
            num_clusters = default_num_clusters(max(1, run.num_slices // size), run.num_slices)
            clustering = nn.Module()
            clustering.register_buffer("centres", torch.zeros(num_clusters, settings.output_features))
            clustering.register_buffer("concentration", torch.ones(num_clusters))
            clustering.register_buffer("clusters", torch.zeros(run.num_slices, dtype=torch.int64))
            clusterings.append(clustering)
        self.nets["clusterings"] = clusterings

    @property
    def warmup_epochs(self) -> int:
        """Epochs at the beginning without clusters."""
        return round(self.settings.warmup_share * self.run.total_steps / self.run.steps_per_epoch)

    def before_epoch(self, epoch: int, slices: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Cluster all slices, once the warm-up is over."""
        if epoch < self.warmup_epochs:
            return
        vectors = self._project_all(slices)
        for clustering in self.nets["clusterings"]:
            centres, clusters = spherical_kmeans(vectors, len(clustering.centres))
            smoothing = self.settings.concentration_smoothing
            clustering.centres, clustering.clusters = centres, clusters
            clustering.concentration = concentration(vectors, centres, clusters, smoothing, self.settings.temperature)

    def _project_all(self, slices: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the momentum projections (N, D) of all slices, with the statistics of evaluation."""
        branch = [self.nets["momentum_encoder"].eval(), self.nets["momentum_projector"].eval()]
        vectors: Tensor = self.nets["queue"].keys.new_zeros(self.run.num_slices, self.settings.output_features)
        with torch.no_grad():
            for ids, whole in slices:
                vectors = vectors.index_copy(0, ids, unit(branch[1](branch[0](whole))))
        for net in branch:
            net.train()
        return vectors

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``prototype_loss`` part after the warm-up, and ``projection_std``."""
        query, key = self._query(batch.views[0]), self._key(batch.views[1])
        loss = self._against_queue(query, key)
        metrics = {"prototype_loss": torch.zeros_like(loss.detach()), "projection_std": feature_std(query)}
        if batch.step >= self.warmup_epochs * self.run.steps_per_epoch:
            prototype_loss = self._against_prototypes(query, batch.ids)
            metrics["prototype_loss"] = prototype_loss.detach()
            loss = loss + prototype_loss
        self.nets["queue"].push(key)
        return {"loss": loss, **metrics}

    def _against_prototypes(self, query: Tensor, ids: Tensor) -> Tensor:
        clusterings = self.nets["clusterings"]
        total = torch.zeros((), device=query.device)
        with full_precision(query):
            for clustering in clusterings:
                logits = query @ clustering.centres.T / clustering.concentration
                own = logits.gather(1, clustering.clusters[ids][:, None])[:, 0]
                total = total + (logits.logsumexp(1) - own).mean()
        return total / len(clusterings)


def concentration(vectors: Tensor, centres: Tensor, clusters: Tensor, smoothing: float, mean: float) -> Tensor:
    """Return how wide each of K clusters is, (K,), scaled to a given mean.

    A cluster of one slice or none is as wide as the widest; a tenth at either end is clipped, as in the paper's code.

    Source: Li et al. 2020, arXiv:2005.04966, equation 12.
    """
    members = torch.nn.functional.one_hot(clusters, len(centres)).to(vectors.dtype)
    distances = (vectors - centres[clusters]).norm(dim=1)
    sizes = members.sum(0)
    width = (members.T @ distances) / (sizes.clamp(min=1) * torch.log(sizes + smoothing))
    width = torch.where(sizes > 1, width, width.max())
    low, high = torch.quantile(width, torch.tensor([0.1, 0.9], device=width.device))
    width = width.clamp(low, high)
    return mean * width / width.mean().clamp(min=torch.finfo(width.dtype).tiny)
