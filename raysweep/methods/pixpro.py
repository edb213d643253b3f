"""PixPro: cells of two views that lie close together in the slice agree, one of them smoothed by its likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._heads import dense_mlp, unit
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.methods._places import cell_centres
from raysweep.settings import Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class PixProSettings(_recipes.ByolViewSettings, MomentumSettings):
    """Settings of PixPro. Numbers are those of arXiv:2011.10043, section 4.1, unless a comment says otherwise."""

    # The paper trains 1024 images a step with LARS; AdamW at 1e-3 suits batches of some hundred slices.
    optimisation: Optimisation = Optimisation(optimiser="adamw", lr=1e-3, weight_decay=1e-5, warmup_epochs=1)
    """Optimiser and learning-rate schedule."""
    tau_start: float = Field(0.99, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    max_distance: float = Field(0.7, gt=0)
    """Distance below which cells agree, in diagonals of a cell of the view with the larger cells."""
    sharpness: float = Field(2.0, gt=0)
    """Exponent of the similarity by which cells are smoothed (gamma)."""
    hidden_features: int = Field(2048, gt=0)
    """Width of the projector's hidden layer."""
    output_features: int = Field(256, gt=0)
    """Dimension of the projections."""


class PixPro(MomentumMethod):
    """Negative cosine similarity of propagated cells with the momentum cells that lie near them, both ways.

    Source: Xie et al. 2020, arXiv:2011.10043, equations 2, 4 and 5.
    """

    Settings = PixProSettings
    name: ClassVar[str] = "pixpro"
    family: ClassVar[str] = "dense distillation"
    paper: ClassVar[str] = "Xie et al. 2020, arXiv:2011.10043"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3
    settings: PixProSettings

    def __init__(self, settings: PixProSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        output = settings.output_features
        self.nets["projector"] = dense_mlp([self.num_features, settings.hidden_features, output])
        self.nets["transform"] = nn.Conv2d(output, output, 1)
        self.follow("encoder", "projector")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, from -2 to 2, ``matched_share`` of pairs of cells, and ``projection_std``."""
        nets = self.nets
        maps = [nets["projector"](self._encode_map(view)) for view in batch.views]
        propagated = [unit(self._propagate(m)).flatten(2) for m in maps]
        with torch.no_grad():
            targets = [
                unit(nets["momentum_projector"](nets["momentum_encoder"].feature_maps(view)[-1])).flatten(2)
                for view in batch.views
            ]
            near = self._near(batch, maps[0].shape[2:], maps[1].shape[2:])
        with full_precision(targets[0]):
            forth = _agreement(propagated[0], targets[1], near)
            back = _agreement(propagated[1], targets[0], near.transpose(1, 2))
        return {
            "loss": -(forth + back),
            "matched_share": near.float().mean(),
            "projection_std": feature_std(maps[0].mean((2, 3))),
        }

    def _propagate(self, x: Tensor) -> Tensor:
        """Return cells (B, D, h, w) summed by their similarity to each cell.

        Source: arXiv:2011.10043, equations 3 and 4.
        """
        cells = unit(x).flatten(2)
        similarity = (cells.transpose(1, 2) @ cells).clamp(min=0) ** self.settings.sharpness
        transformed = self.nets["transform"](x).float().flatten(2)
        propagated: Tensor = (transformed @ similarity.transpose(1, 2)).reshape(x.shape)
        return propagated

    def _near(self, batch: Batch, first: tuple[int, int], second: tuple[int, int]) -> Tensor:
        """Return which cells of the views lie close together, (B, h * w of the first, h * w of the second) bool."""
        places = [place.float() for place in batch.places]
        centres = [cell_centres(p, *grid).flatten(1, 2) for p, grid in zip(places, (first, second), strict=True)]
        distances: Tensor = torch.linalg.vector_norm(centres[0][:, :, None] - centres[1][:, None], dim=-1)
        diagonals = [_diagonal(p, *grid) for p, grid in zip(places, (first, second), strict=True)]
        near: Tensor = distances < self.settings.max_distance * torch.maximum(*diagonals)[:, None, None]
        return near


def _diagonal(place: Tensor, rows: int, columns: int) -> Tensor:
    """Return the diagonal (B,) of a cell in pixels of the slice."""
    sides = torch.linalg.vector_norm(place[:, :, :2], dim=1) / torch.tensor([rows, columns], device=place.device)
    diagonal: Tensor = torch.linalg.vector_norm(sides, dim=1)
    return diagonal


def _agreement(cells: Tensor, targets: Tensor, near: Tensor) -> Tensor:
    """Return the mean cosine similarity over the near pairs of each slice, then over the slices that have any."""
    similarity = (cells.transpose(1, 2) @ targets) * near
    counts = near.sum((1, 2))
    means = similarity.sum((1, 2)) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


METHOD = PixPro
