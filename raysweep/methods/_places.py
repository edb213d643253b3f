"""Where the cells of a view's feature map lie in its slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def cell_centres(place: Tensor, rows: int, columns: int) -> Tensor:
    """Return where the cells of a view's feature map lie in the slice, (B, rows, columns, 2): y and x in pixels.

    Args:
        place: (B, 2, 3), an affine map from a point of the view, (y, x, 1) with y and x from 0 to 1, to the slice.
        rows: of the feature map.
        columns: of the feature map.
    """
    y = (torch.arange(rows, device=place.device) + 0.5) / rows
    x = (torch.arange(columns, device=place.device) + 0.5) / columns
    grid = torch.meshgrid(y, x, indexing="ij")
    points = torch.stack((*grid, torch.ones_like(grid[0])), -1)
    return torch.einsum("bij,rcj->brci", place, points)
