"""What a running stage tells whoever runs it; executors read this, so there is no torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a stage reports after an epoch."""

    epoch: int
    snapshots: tuple[int, ...] = ()
    """Epochs whose snapshots are published and were not reported before."""
