"""What methods remember between steps, as buffers: a queue of recent keys, a bank with an entry for every slice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The last N keys of unit length, first in, first out; random at first."""

    keys: Tensor
    """(N, D) float32."""
    next: Tensor
    """The place of the oldest key, int64."""

    def __init__(self, size: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, num_features), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Replace the oldest keys by (B, D) new ones."""
        size = len(self.keys)
        keys = keys[-size:].detach().float()
        places = (self.next + torch.arange(len(keys), device=keys.device)) % size
        # An index without repetition: copying is deterministic on every device.
        self.keys = self.keys.index_copy(0, places, keys)
        self.next = (self.next + len(keys)) % size


class SliceBank(nn.Module):
    """A vector for each slice of the data set, (N, D) float32 of unit length; random at first."""

    vectors: Tensor

    def __init__(self, num_slices: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(num_slices, num_features), dim=1))

    @torch.no_grad()
    def blend(self, ids: Tensor, vectors: Tensor, momentum: float) -> None:
        """Move the entries of (B,) different ids towards (B, D) vectors, and back to unit length."""
        mixed = momentum * self.vectors[ids] + (1 - momentum) * vectors.detach().float()
        self.vectors = self.vectors.index_copy(0, ids, F.normalize(mixed, dim=1))
