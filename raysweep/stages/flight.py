"""The epoch in flight: how far it is, as part of the training state, so that it is continued at the next step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Flight:
    """An epoch that has begun: the order of its samples, the steps taken, and the sums of what they measured."""

    order: Tensor
    """(N,) int64: positions of all its samples, batch after batch."""
    steps: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def batches(self, batch_size: int, num_steps: int) -> Iterator[Tensor]:
        """Yield the positions (B,) of each batch that remains; a batch counts once the next one is asked for."""
        while self.steps < num_steps:
            first = self.steps * batch_size
            yield self.order[first : first + batch_size]
            self.steps += 1

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add what a step measured, scalars by name."""
        for name, value in values.items():
            so_far = self.sums.get(name, torch.zeros((), device=value.device))
            self.sums[name] = so_far + value.detach().float()

    def means(self) -> dict[str, float]:
        """Return the mean of each measurement over the steps taken."""
        return {name: float(value) / self.steps for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Return the flight as tensors and plain values."""
        return {"order": self.order, "steps": self.steps, "sums": self.sums}

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> Flight:
        """Rebuild a flight, its sums on a device."""
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        return cls(state["order"], state["steps"], sums)
