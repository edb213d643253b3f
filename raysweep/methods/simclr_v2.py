"""SimCLR-v2: SimCLR with a projector of three layers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raysweep.methods.simclr import SimCLR, SimCLRSettings


class SimCLRv2Settings(SimCLRSettings):
    """Settings of SimCLR-v2. Numbers are those of arXiv:2006.10029, section 3 and appendix B, or of SimCLR."""

    head_layers: int = Field(3, ge=1)
    """Layers of the projector."""


class SimCLRv2(SimCLR):
    """Cross-entropy of SimCLR behind a deeper projector.

    The paper also widens the encoder, which is the study's choice of backbone; fine-tunes from the projector's first
    layer, where here every method hands on the encoder alone; and reports a queue of negatives that gains little.

    Source: Chen et al. 2020, arXiv:2006.10029, section 2.1.
    """

    Settings = SimCLRv2Settings
    name: ClassVar[str] = "simclr-v2"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2006.10029"
    recipe: ClassVar[int] = 1


METHOD = SimCLRv2
