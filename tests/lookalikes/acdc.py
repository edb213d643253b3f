"""ACDC: synthetic hearts, which lie in ACDC's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysweep.datasets import synthetic_cardiac


def write_lookalike(
    folder: Path, *, subjects: int = 4, slices: int = 2, frames: int = 3, size: int = 40, seed: int = 0
) -> dict[str, Any]:
    options = synthetic_cardiac.Options(
        patients=subjects, slices=slices, frames=frames, size_px=(size, size + 8), seed=seed
    )
    synthetic_cardiac.generate(folder, options)
    return {}
