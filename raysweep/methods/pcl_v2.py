"""PCL-v2: PCL with the projector and the augmentation of MoCo-v2."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raysweep.methods import _recipes
from raysweep.methods._prototype_contrast import PCLSettings, PrototypeContrast
from raysweep.settings import Augmentation


class PCLv2Settings(PCLSettings):
    """Settings of PCL-v2. Numbers are those of arXiv:2005.04966, section 4.1, or of PCL-v1."""

    augmentation: Augmentation = _recipes.MOCO_V2
    """Random transformations of query and key."""
    temperature: float = Field(0.2, gt=0)
    """Temperature of the similarities, and mean concentration of the clusters."""


class PCLv2(PrototypeContrast):
    """Prototypical contrast behind a projector of two layers.

    Source: Li et al. 2020, arXiv:2005.04966, equation 11.
    """

    Settings = PCLv2Settings
    name: ClassVar[str] = "pcl-v2"
    recipe: ClassVar[int] = 1
    hidden_layer: ClassVar[bool] = True


METHOD = PCLv2
