"""PCL-v1: momentum contrast, and contrast with clusters of all slices that are found anew each epoch."""

from __future__ import annotations

from typing import ClassVar

from raysweep.methods._prototype_contrast import PCLSettings, PrototypeContrast


class PCLv1(PrototypeContrast):
    """Prototypical contrast behind a linear projector.

    Source: Li et al. 2020, arXiv:2005.04966, equation 11.
    """

    Settings = PCLSettings
    name: ClassVar[str] = "pcl-v1"
    recipe: ClassVar[int] = 1


METHOD = PCLv1
