"""VICRegL: VICReg on whole views, and on cells matched by place and by likeness."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import dense_mlp, mlp
from raysweep.methods._method import Method, full_precision
from raysweep.methods._places import cell_centres
from raysweep.methods._regularisation import vicreg_loss
from raysweep.methods.vicreg import VICRegSettings

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class VICRegLSettings(VICRegSettings):
    """Settings of VICRegL. Numbers are those of arXiv:2210.01571, section 4 and appendix, or of VICReg."""

    local_weight: float = Field(0.25, ge=0, le=1)
    """Weight of the cells, beside that of the whole views (1 - alpha)."""
    num_matches: int = Field(20, ge=1)
    """Best matches that count in each slice (gamma), at most its cells."""
    local_features: int = Field(512, gt=0)
    """Width of the local projector."""


class VICRegL(Method):
    """VICReg of pooled projections, and of each cell's with the nearest cell's of the other view.

    Variance and covariance of cells are taken over the batch for each rank of match, as in the paper's code.

    Source: Bardes et al. 2022, arXiv:2210.01571, equations 1 to 4.
    """

    Settings = VICRegLSettings
    name: ClassVar[str] = "vicregl"
    family: ClassVar[str] = "redundancy reduction"
    paper: ClassVar[str] = "Bardes et al. 2022, arXiv:2210.01571"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 2.0
    settings: VICRegLSettings

    def __init__(self, settings: VICRegLSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        hidden, local = settings.hidden_features, settings.local_features
        self.nets["projector"] = mlp([self.num_features, hidden, hidden, settings.output_features])
        self.nets["local_projector"] = dense_mlp([self.num_features, local, local, local])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``local_loss`` part and ``projection_std``."""
        maps = [self._encode_map(view) for view in batch.views]
        whole = [self.nets["projector"](m.mean((2, 3))).float() for m in maps]
        cells = [self.nets["local_projector"](m).float().flatten(2).transpose(1, 2) for m in maps]
        settings = self.settings
        weights = settings.invariance_weight, settings.variance_weight, settings.covariance_weight
        with full_precision(whole[0]), torch.no_grad():
            grids = [tuple(m.shape[2:]) for m in maps]
            where = [cell_centres(p.float(), *grid).flatten(1, 2) for p, grid in zip(batch.places, grids, strict=True)]
            apart_in_place = torch.cdist(where[0], where[1])
            apart_in_kind = torch.cdist(cells[0], cells[1])
        with full_precision(whole[0]):
            losses = []
            for apart in (apart_in_place, apart_in_kind):
                for one, other, distances in ((0, 1, apart), (1, 0, apart.transpose(1, 2))):
                    pairs = best_matches(cells[one], cells[other], distances, settings.num_matches)
                    ranks = zip(pairs[0].unbind(1), pairs[1].unbind(1), strict=True)
                    losses.append(torch.stack([vicreg_loss(a, b, *weights) for a, b in ranks]).mean())
            local_loss = (losses[0] + losses[1]) / 2 + (losses[2] + losses[3]) / 2
            global_loss = vicreg_loss(whole[0], whole[1], *weights)
            loss = (1 - settings.local_weight) * global_loss + settings.local_weight * local_loss
        return {"loss": loss, "local_loss": local_loss.detach(), "projection_std": feature_std(whole[0])}


def best_matches(cells: Tensor, others: Tensor, distances: Tensor, num_matches: int) -> tuple[Tensor, Tensor]:
    """Return the cells (B, M, D) nearest to any of the other view's, and these others, best match first.

    Args:
        cells: (B, N, D) of one view.
        others: (B, N', D) of the other.
        distances: (B, N, N').
        num_matches: M, or N where that is less.
    """
    nearest, which = distances.min(2)
    best = nearest.argsort(1)[:, :num_matches, None]
    chosen = cells.gather(1, best.expand(-1, -1, cells.shape[2]))
    partners = which.gather(1, best[..., 0])[..., None]
    return chosen, others.gather(1, partners.expand(-1, -1, others.shape[2]))


METHOD = VICRegL
