"""MoCo-v1: contrast with a queue of keys from a momentum encoder."""

from __future__ import annotations

from typing import ClassVar

from raysweep.methods._moco import MoCo, MoCoSettings


class MoCov1(MoCo):
    """Momentum contrast behind a linear projector.

    Source: He et al. 2019, arXiv:1911.05722, equation 1.
    """

    Settings = MoCoSettings
    name: ClassVar[str] = "moco-v1"
    paper: ClassVar[str] = "He et al. 2019, arXiv:1911.05722"
    recipe: ClassVar[int] = 1


METHOD = MoCov1
