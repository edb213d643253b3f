"""First a probe on the frozen encoder, then the whole network, so that a random head does not distort the encoder."""

from __future__ import annotations

import math

from pydantic import Field

from raysweep.tuning._tuning import Tuning, TuningSettings, freeze


class ProbeThenFullSettings(TuningSettings):
    """Settings of probe-then-full."""

    probe_share: float = Field(0.2, gt=0, lt=1)
    """Share of the epochs with a frozen encoder, rounded up; the schedule of the learning rate spans both parts."""


class ProbeThenFull(Tuning):
    """Trains the head for the first epochs, then everything.

    Source: Kumar et al. 2022, arXiv:2202.10054 (LP-FT); here one schedule and one optimiser span both parts.
    """

    Settings = ProbeThenFullSettings
    settings: ProbeThenFullSettings

    def prepare(self) -> None:
        """Let everything learn, for the optimiser must know it all."""
        self.network.requires_grad_(True)

    def begin_epoch(self, epoch: int) -> None:
        """Freeze the encoder during the probe, release it after."""
        self.network.train()
        if epoch <= math.ceil(self.settings.probe_share * self.epochs):
            freeze(self.encoder)
        else:
            self.encoder.requires_grad_(True)


TUNING = ProbeThenFull
