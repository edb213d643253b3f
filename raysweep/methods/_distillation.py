"""Self-distillation with prototypes: the head, and cross-entropy against a sharpened, centred teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrototypeHead(nn.Module):
    """Three linear layers to a bottleneck of unit length, then its similarity to prototypes of unit length.

    Source: Caron et al. 2021, arXiv:2104.14294, appendix C, where weight normalisation keeps prototypes at length 1.
    """

    def __init__(self, num_features: int, hidden: int, bottleneck: int, num_prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, x: Tensor, *, frozen_prototypes: bool = False) -> Tensor:
        """Return similarities (..., K) of (..., D) features."""
        prototypes = self.prototypes.detach() if frozen_prototypes else self.prototypes
        similarities: Tensor = F.linear(F.normalize(self.layers(x), dim=-1), F.normalize(prototypes, dim=1))
        return similarities


class Centre(nn.Module):
    """Running mean of a teacher's outputs.

    Source: Caron et al. 2021, arXiv:2104.14294, equation 4.
    """

    mean: Tensor

    def __init__(self, num_prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_prototypes))

    @torch.no_grad()
    def targets(self, outputs: Tensor, temperature: float) -> Tensor:
        """Return the teacher's distributions over (N, K) outputs, centred and sharpened, and move the mean."""
        distributions = ((outputs.float() - self.mean) / temperature).softmax(-1)
        self.mean = self.momentum * self.mean + (1 - self.momentum) * outputs.float().mean(0)
        return distributions


def distillation_loss(targets: Tensor, outputs: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy (N,) of a student's (N, K) outputs against a teacher's distributions."""
    return -(targets * (outputs.float() / temperature).log_softmax(-1)).sum(-1)


def koleo(vectors: Tensor) -> Tensor:
    """Return the mean negative log distance of (B, D) vectors of unit length to their nearest neighbours.

    Source: Sablayrolles et al. 2018, arXiv:1806.03198, equation 2.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    similarity = (unit @ unit.T).detach().fill_diagonal_(-2)
    nearest = unit[similarity.argmax(1)]
    return -torch.log(F.pairwise_distance(unit, nearest, eps=1e-8) + 1e-8).mean()
