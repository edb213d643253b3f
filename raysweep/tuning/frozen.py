"""A probe: the encoder stays as it is, statistics included, and the rest of the network learns."""

from __future__ import annotations

from raysweep.tuning._tuning import Tuning, freeze


class Frozen(Tuning):
    """Trains all but the encoder: a linear probe under a linear head, a decoder probe under a decoder."""

    def prepare(self) -> None:
        """Freeze the encoder."""
        self.encoder.requires_grad_(False)

    def begin_epoch(self, epoch: int) -> None:
        """Keep the encoder's statistics still."""
        self.network.train()
        freeze(self.encoder)


TUNING = Frozen
