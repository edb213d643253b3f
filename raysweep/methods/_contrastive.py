"""Contrastive learning: cross-entropy against negatives, and batch statistics that give nothing away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of telling each key from the negatives.

    Args:
        query: (B, D) of unit length.
        key: (B, D) of unit length, the positive of each query.
        negatives: (N, D) of unit length.
        temperature: of the similarities.

    Source: van den Oord et al. 2018, arXiv:1807.03748, as in He et al. 2019, arXiv:1911.05722, equation 1.
    """
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat((positive, query @ negatives.T), 1) / temperature
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def batch_nce(query: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of telling (B, D) each query's key from the keys of the rest of the batch."""
    logits = query @ keys.T / temperature
    return (logits.logsumexp(1) - logits.diagonal()).mean()


def default_queue_size(wanted: int, num_slices: int) -> int:
    """Return the length of a queue: that of the paper, at most half the slices of the pack.

    A longer one would hold many keys of the very slices in the batch, as negatives.
    """
    return max(2, min(wanted, num_slices // 2))


def in_groups(net: Callable[[Tensor], Tensor], x: Tensor, slices_per_group: int, *, shuffled: bool = False) -> Tensor:
    """Apply a net to parts of a batch, so that each part has its own batch statistics.

    Shuffled, the parts of keys differ from those of queries, whose common statistics would otherwise give the match
    away. A batch below two parts' size stays whole.

    Source: He et al. 2019, arXiv:1911.05722, section 3.3, where a part is what one GPU holds.
    """
    num_groups = max(1, len(x) // slices_per_group)
    if num_groups == 1:
        return net(x)
    order = (
        torch.randperm(len(x)).to(x.device, non_blocking=True) if shuffled else torch.arange(len(x), device=x.device)
    )
    parts = torch.cat([net(part) for part in x[order].chunk(num_groups)])
    return parts[order.argsort()]
