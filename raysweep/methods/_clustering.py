"""Clustering on the unit sphere: k-means over a bank, and balanced assignments by Sinkhorn-Knopp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysweep.lazy import F, torch

if TYPE_CHECKING:
    from torch import Tensor


def default_num_clusters(wanted: int, num_slices: int) -> int:
    """Return a number of clusters: that of the paper, at most a quarter of the slices and at least 2."""
    return max(2, min(wanted, num_slices // 4))


def spherical_kmeans(vectors: Tensor, num_clusters: int, num_rounds: int = 10) -> tuple[Tensor, Tensor]:
    """Cluster unit vectors by cosine similarity, starting from vectors drawn by torch's global generator.

    A cluster that loses its members keeps its centre.

    Args:
        vectors: (N, D) float32 of unit length.
        num_clusters: K, at most N.
        num_rounds: of assignment and update.

    Returns:
        (K, D) centres of unit length, and (N,) int64 clusters, the most similar centre of each vector.
    """
    with torch.no_grad():
        centres = vectors[torch.randperm(len(vectors))[:num_clusters].to(vectors.device)]
        for _ in range(num_rounds):
            # One-hot sums by a matrix product: deterministic on every device, which scattered sums are not.
            members = F.one_hot((vectors @ centres.T).argmax(1), num_clusters).to(vectors.dtype)
            sums = members.T @ vectors
            filled = members.sum(0)[:, None] > 0
            centres = torch.where(filled, F.normalize(sums, dim=1), centres)
        return centres, (vectors @ centres.T).argmax(1)


def sinkhorn(scores: Tensor, epsilon: float, num_rounds: int) -> Tensor:
    """Return soft assignments (N, K) whose rows sum to 1 and whose columns are close to equal sums.

    Args:
        scores: (N, K) similarities of samples to prototypes.
        epsilon: smoothness; towards 0 assignments become hard.
        num_rounds: of scaling columns, then rows.

    Source: Caron et al. 2020, arXiv:2006.09882, equation 5 and listing in appendix A; Cuturi 2013, arXiv:1306.0895.
    """
    with torch.no_grad():
        log_q = scores.float() / epsilon
        for _ in range(num_rounds):
            log_q = log_q - log_q.logsumexp(0, keepdim=True)
            log_q = log_q - log_q.logsumexp(1, keepdim=True)
        return log_q.exp()
