"""Whether features have collapsed: how spread they are, and over how many dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysweep.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def feature_std(features: Tensor) -> Tensor:
    """Return how spread (B, D) features are on the unit sphere: 1 for uniform, 0 for a single point.

    Source: Chen & He 2021, arXiv:2011.10566, section 4.1, times the square root of D.
    """
    with torch.no_grad():
        unit = F.normalize(features.detach().float(), dim=1)
        spread: Tensor = unit.std(0, correction=0).mean() * features.shape[1] ** 0.5
        return spread


def effective_rank(features: Tensor) -> Tensor:
    """Return the exponential of the entropy of the singular values of (B, D) features, from 1 to min(B, D).

    Source: Garrido et al. 2023, arXiv:2210.02885, equation 1.
    """
    with torch.no_grad():
        singular = torch.linalg.svdvals(features.detach().float())
        share = singular / singular.sum().clamp(min=torch.finfo(torch.float32).tiny)
        rank: Tensor = torch.special.entr(share).sum().exp()
        return rank


def collapse_metrics(features: Tensor) -> dict[str, Tensor]:
    """Return ``feature_std`` and ``effective_rank`` of (B, D) features.

    It takes a singular value decomposition: for once an epoch, not for every step.
    """
    return {"feature_std": feature_std(features), "effective_rank": effective_rank(features)}
