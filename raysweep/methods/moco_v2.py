"""MoCo-v2: MoCo with a projector of two layers, blur, stronger jitter and a cosine schedule."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raysweep.methods import _recipes
from raysweep.methods._moco import MoCo, MoCoSettings
from raysweep.settings import Augmentation


class MoCov2Settings(MoCoSettings):
    """Settings of MoCo-v2. Numbers are those of arXiv:2003.04297, section 3, or of MoCo-v1."""

    augmentation: Augmentation = _recipes.MOCO_V2
    """Random transformations of query and key."""
    temperature: float = Field(0.2, gt=0)
    """Temperature of the similarities."""


class MoCov2(MoCo):
    """Momentum contrast behind a projector of two layers.

    Source: Chen et al. 2020, arXiv:2003.04297, section 3.
    """

    Settings = MoCov2Settings
    name: ClassVar[str] = "moco-v2"
    paper: ClassVar[str] = "Chen et al. 2020, arXiv:2003.04297"
    recipe: ClassVar[int] = 1
    hidden_layer: ClassVar[bool] = True


METHOD = MoCov2
