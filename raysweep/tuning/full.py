"""The whole network learns, at one learning rate."""

from __future__ import annotations

from raysweep.tuning._tuning import Tuning


class Full(Tuning):
    """Trains every parameter."""

    def prepare(self) -> None:
        """Let everything learn."""
        self.network.requires_grad_(True)


TUNING = Full
