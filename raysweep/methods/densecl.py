"""DenseCL: MoCo-v2, and the same for every cell of the feature map with its most similar cell of the other view."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._contrastive import default_queue_size, in_groups, info_nce
from raysweep.methods._heads import dense_mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._moco import MoCo
from raysweep.methods.moco_v2 import MoCov2Settings

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class DenseCLSettings(MoCov2Settings):
    """Settings of DenseCL. Numbers are those of arXiv:2011.09157, section 3 and 4.1, or of MoCo-v2."""

    dense_weight: float = Field(0.5, ge=0, le=1)
    """Weight of the cells, beside that of the whole views (lambda)."""


class DenseCL(MoCo):
    """Cross-entropy of whole views and of matched cells, each against a queue of its own.

    Source: Wang et al. 2020, arXiv:2011.09157, equations 1 to 4.
    """

    Settings = DenseCLSettings
    name: ClassVar[str] = "densecl"
    family: ClassVar[str] = "dense contrastive"
    paper: ClassVar[str] = "Wang et al. 2020, arXiv:2011.09157"
    recipe: ClassVar[int] = 1
    hidden_layer: ClassVar[bool] = True
    settings: DenseCLSettings

    def __init__(self, settings: DenseCLSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._memory import Queue

        hidden = settings.hidden_features or self.num_features
        self.nets["dense_projector"] = dense_mlp([self.num_features, hidden, settings.output_features], norm=False)
        self.follow("dense_projector")
        size = settings.queue_size or default_queue_size(65536, run.num_slices)
        self.nets["dense_queue"] = Queue(size, settings.output_features)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``dense_loss`` part and ``projection_std``, and add keys to both queues."""
        nets, group = self.nets, self.settings.slices_per_group
        online = in_groups(self._encode_map, batch.views[0], group)
        self.features = online.detach().float().mean((2, 3))
        query = unit(nets["projector"](online.mean((2, 3))))
        cells = unit(nets["dense_projector"](online)).flatten(2)
        with torch.no_grad():
            maps = in_groups(
                lambda x: nets["momentum_encoder"].feature_maps(x)[-1], batch.views[1], group, shuffled=True
            )
            key = unit(nets["momentum_projector"](maps.mean((2, 3))))
            dense = unit(nets["momentum_dense_projector"](maps)).flatten(2)
            nearest = (unit(online).flatten(2).transpose(1, 2) @ unit(maps).flatten(2)).argmax(2)
            matched = dense.gather(2, nearest[:, None].expand(-1, dense.shape[1], -1))
        with full_precision(query):
            whole_loss = self._against_queue(query, key)
            queries, keys = (x.transpose(1, 2).flatten(0, 1) for x in (cells, matched))
            negatives: Tensor = nets["dense_queue"].keys
            dense_loss = info_nce(queries, keys, negatives, self.settings.temperature)
            weight = self.settings.dense_weight
            loss = (1 - weight) * whole_loss + weight * dense_loss
        nets["queue"].push(key)
        nets["dense_queue"].push(unit(dense.mean(2)))
        return {"loss": loss, "dense_loss": dense_loss.detach(), "projection_std": feature_std(query)}


METHOD = DenseCL
