"""Variance and covariance terms that keep embeddings from collapsing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-4


def variance_hinge(z: Tensor) -> Tensor:
    """Return how far standard deviations of (B, D) fall short of 1, averaged over dimensions.

    Source: Bardes et al. 2021, arXiv:2105.04906, equations 1 and 2.
    """
    return torch.relu(1 - (z.var(0) + _EPSILON).sqrt()).mean()


def covariance_penalty(z: Tensor) -> Tensor:
    """Return the squared covariances of pairs of dimensions of (B, D), summed over pairs, over D.

    Source: Bardes et al. 2021, arXiv:2105.04906, equations 3 and 4.
    """
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def vicreg_loss(first: Tensor, second: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """Return the VICReg loss of two (B, D) batches of projections, as the paper's code averages it.

    The code, and the paper's listing, average the variance term over the two views and sum the covariance term.

    Source: Bardes et al. 2021, arXiv:2105.04906, equation 6 and algorithm 1.
    """
    distance = (first - second).square().mean()
    spread = (variance_hinge(first) + variance_hinge(second)) / 2
    redundancy = covariance_penalty(first) + covariance_penalty(second)
    return invariance * distance + variance * spread + covariance * redundancy
