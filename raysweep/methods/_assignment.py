"""Cluster assignment: slices are put into clusters before each epoch, and their crops learn to be found there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._clustering import default_num_clusters
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import build_prototypes, mlp, unit
from raysweep.methods._method import Method, full_precision
from raysweep.methods._settings import MethodSettings, View
from raysweep.settings import Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class AssignmentSettings(MethodSettings):
    """Settings of cluster assignment. Numbers are those of arXiv:2006.09882, appendix, unless a comment says else."""

    # The paper trains 4096 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-6, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = _recipes.SIMCLR.model_copy(update={"crop_scale": (0.14, 1.0)})
    """Random transformations of the two large crops."""
    small_crop_scale: tuple[float, float] = (0.05, 0.14)
    """Share of the slice's area that a small crop covers."""
    num_small_crops: int = Field(6, ge=0)
    """Small crops of each slice."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the similarities to prototypes."""
    num_clusters: int | None = Field(None, ge=2)
    """Clusters of each head; null for the paper's 3000, at most a quarter of the slices."""
    num_heads: int = Field(3, ge=1)
    """Independent clusterings."""
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector's hidden layer."""
    output_features: int = Field(128, gt=0)
    """Dimension of the projections."""

    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the two large crops, then the small ones."""
        large = View(augmentation=self.augmentation)
        small = Augmentation(**(self.augmentation.model_dump() | {"crop_scale": self.small_crop_scale}))
        few = View(augmentation=small, size_px=_recipes.small_size(image_size))
        return (large, large, *[few] * self.num_small_crops)


class ClusterAssignment(Method):
    """Cross-entropy of finding each slice's clusters from its crops.

    A bank keeps what the last epoch projected the large crops to, so that clustering costs no passes of its own but one
    before the first epoch.
    """

    family: ClassVar[str] = "clustering"
    paper: ClassVar[str] = "Caron et al. 2020, arXiv:2006.09882"
    cost: ClassVar[float] = 2 + 6 * (96 / 224) ** 2
    settings: AssignmentSettings

    def __init__(self, settings: AssignmentSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        output, num_slices = settings.output_features, run.num_slices
        num_clusters = settings.num_clusters or default_num_clusters(3000, num_slices)
        self.nets["projector"] = mlp([self.num_features, settings.hidden_features, output])
        self.nets["prototypes"] = nn.ModuleList(
            build_prototypes(num_clusters, output) for _ in range(settings.num_heads)
        )
        memory = nn.Module()
        memory.register_buffer("vectors", torch.zeros(2, num_slices, output))
        memory.register_buffer("clusters", torch.zeros(settings.num_heads, num_slices, dtype=torch.int64))
        self.nets["memory"] = memory

    def before_epoch(self, epoch: int, slices: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Assign every slice to a cluster of each head."""
        memory = self.nets["memory"]
        with torch.no_grad():
            if epoch == 0:
                self._fill_memory(slices)
            heads = self.nets["prototypes"]
            memory.clusters = torch.stack([self._assign(memory.vectors[i % 2], head) for i, head in enumerate(heads)])

    def _fill_memory(self, slices: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Project whole slices, with the statistics of evaluation."""
        memory, branch = self.nets["memory"], [self.nets["encoder"].eval(), self.nets["projector"].eval()]
        for ids, whole in slices:
            vectors = unit(branch[1](branch[0](whole)))
            memory.vectors = memory.vectors.index_copy(1, ids, vectors.expand(2, -1, -1))
        for net in branch:
            net.train()

    @abstractmethod
    def _assign(self, vectors: Tensor, prototypes: nn.Linear) -> Tensor:
        """Return the cluster of each slice, (N,) int64, from its vector (N, D)."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``, and keep the large crops' projections."""
        large = torch.cat(list(batch.views[:2]))
        features = self.nets["encoder"](large)
        parts = [features]
        if len(batch.views) > 2:
            parts.append(self.nets["encoder"](torch.cat(list(batch.views[2:]))))
        self.features = features.detach().float()
        projections = unit(self.nets["projector"](torch.cat(parts)))
        with full_precision(projections):
            loss = self._cross_entropy(projections, batch.ids)
        memory = self.nets["memory"]
        kept = projections[: len(large)].detach().reshape(2, len(batch.ids), -1)
        memory.vectors = memory.vectors.index_copy(1, batch.ids, kept)
        return {"loss": loss, "projection_std": feature_std(projections[: len(batch.ids)])}

    def _cross_entropy(self, projections: Tensor, ids: Tensor) -> Tensor:
        num_views = len(projections) // len(ids)
        total = torch.zeros((), device=projections.device)
        for head, clusters in zip(self.nets["prototypes"], self.nets["memory"].clusters, strict=True):
            logits = projections @ head.weight.float().T / self.settings.temperature
            own = logits.gather(1, clusters[ids].repeat(num_views)[:, None])[:, 0]
            total = total + (logits.logsumexp(1) - own).mean()
        return total / self.settings.num_heads
