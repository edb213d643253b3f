"""Instance discrimination against a bank with an entry for every slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysweep.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def bank_cross_entropy(
    query: Tensor, bank: Tensor, ids: Tensor, temperature: float, num_negatives: int | None = None
) -> Tensor:
    """Return the mean cross-entropy of telling each query's own entry from the other entries of the bank.

    Args:
        query: (B, D) of unit length.
        bank: (N, D) of unit length.
        ids: (B,) int64, each query's own entry.
        temperature: of the similarities.
        num_negatives: entries drawn to stand for all others, where there are more; None for all.

    Source: Wu et al. 2018, arXiv:1805.01978, equation 2.
    """
    own = (query * bank[ids]).sum(1) / temperature
    if num_negatives is None or num_negatives >= len(bank) - 1:
        return ((query @ bank.T / temperature).logsumexp(1) - own).mean()
    drawn = torch.randint(len(bank) - 1, (num_negatives,)).to(query.device)
    # One draw serves the batch; where it hits a query's own entry, that negative is left out for that query.
    logits = (query @ bank[drawn].T / temperature).masked_fill(drawn[None] == ids[:, None], float("-inf"))
    return (torch.cat((own[:, None], logits), 1).logsumexp(1) - own).mean()
