"""SwAV: each crop predicts the balanced cluster assignment of another crop of its slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods._assignment import AssignmentSettings
from raysweep.methods._batch import Batch, Run
from raysweep.methods._clustering import default_num_clusters, sinkhorn
from raysweep.methods._collapse import feature_std
from raysweep.methods._contrastive import default_queue_size
from raysweep.methods._heads import build_prototypes, mlp, normalise_prototypes, unit
from raysweep.methods._method import Method, full_precision

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class SwAVSettings(AssignmentSettings):
    """Settings of SwAV. Numbers are those of arXiv:2006.09882, appendix, unless a comment says otherwise."""

    num_heads: int = Field(1, ge=1, le=1)
    """Clusterings; SwAV has one."""
    epsilon: float = Field(0.05, gt=0)
    """Smoothness of the balanced assignment."""
    sinkhorn_rounds: int = Field(3, ge=1)
    """Rounds of Sinkhorn-Knopp over the batch."""
    queue_size: int | None = Field(None, ge=0)
    """Earlier projections that join the batch in assignments; null for the paper's 3840, at most half the slices."""
    # Epoch 15 of 200 in the paper's settings for batches of 256.
    queue_from: float = Field(0.075, ge=0, le=1)
    """Share of the schedule from which the queue is used."""
    frozen_prototypes: float = Field(0.005, ge=0, le=1)
    """Share of the schedule in which prototypes stay as they are: one epoch of 200."""


class SwAV(Method):
    """Cross-entropy between assignments and predictions, swapped between the crops of a slice.

    Source: Caron et al. 2020, arXiv:2006.09882, equations 2 and 6.
    """

    Settings = SwAVSettings
    name: ClassVar[str] = "swav"
    family: ClassVar[str] = "clustering"
    paper: ClassVar[str] = "Caron et al. 2020, arXiv:2006.09882"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2 + 6 * (96 / 224) ** 2
    settings: SwAVSettings

    def __init__(self, settings: SwAVSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import Queue

        output, num_slices = settings.output_features, run.num_slices
        self.nets["projector"] = mlp([self.num_features, settings.hidden_features, output])
        num_clusters = settings.num_clusters or default_num_clusters(3000, num_slices)
        self.nets["prototypes"] = build_prototypes(num_clusters, output)
        given = settings.queue_size
        self.queue_size = default_queue_size(3840, num_slices) if given is None else given
        if self.queue_size:
            self.nets["queues"] = torch.nn.ModuleList(Queue(self.queue_size, output) for _ in range(2))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``projection_std``."""
        B, views = len(batch.ids), batch.views
        parts = [self._encode(torch.cat(list(views[:2])))]
        if len(views) > 2:
            parts.append(self.nets["encoder"](torch.cat(list(views[2:]))))
        projections = unit(self.nets["projector"](torch.cat(parts)))
        weight: Tensor = self.nets["prototypes"].weight
        if batch.step < self.settings.frozen_prototypes * self.run.total_steps:
            weight = weight.detach()
        with full_precision(projections):
            scores = (projections @ weight.float().T).chunk(len(views))
            total = torch.zeros((), device=projections.device)
            for index in range(2):
                assigned = self._assign(scores[index].detach(), index, batch.step)
                others = [score for other, score in enumerate(scores) if other != index]
                total = total + _mean_cross_entropy(assigned, others, self.settings.temperature)
        if self.queue_size:
            for queue, kept in zip(self.nets["queues"], projections.detach()[: 2 * B].chunk(2), strict=True):
                queue.push(kept)
        return {"loss": total / 2, "projection_std": feature_std(projections[:B])}

    def _assign(self, scores: Tensor, index: int, step: int) -> Tensor:
        """Return the balanced assignment (B, K) of a large crop, beside those in its queue once that is used."""
        B = len(scores)
        if self.queue_size and step >= max(self.settings.queue_from * self.run.total_steps, self.queue_size / B):
            keys: Tensor = self.nets["queues"][index].keys
            weight: Tensor = self.nets["prototypes"].weight
            scores = torch.cat((scores, keys @ weight.detach().float().T))
        return sinkhorn(scores, self.settings.epsilon, self.settings.sinkhorn_rounds)[:B]

    def after_step(self, step: int) -> None:
        """Bring the prototypes back to unit length."""
        normalise_prototypes(self.nets["prototypes"])


def _mean_cross_entropy(assigned: Tensor, scores: list[Tensor], temperature: float) -> Tensor:
    losses = [-(assigned * (score / temperature).log_softmax(1)).sum(1).mean() for score in scores]
    return torch.stack(losses).mean()


METHOD = SwAV
