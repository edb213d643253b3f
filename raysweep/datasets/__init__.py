"""One file per data set: its files on disk -> a pack; ``_packing`` has what they share."""

from raysweep.datasets._packing import build_pack
from raysweep.datasets._study_packs import open_study_pack

__all__ = ["build_pack", "open_study_pack"]
