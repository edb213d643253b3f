"""Montgomery: images, one mask for each lung, clinical readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image


def write_lookalike(folder: Path, *, subjects: int = 8, size: int = 32, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    root = folder / "MontgomerySet"
    (root / "ClinicalReadings").mkdir(parents=True)
    for number in range(1, subjects + 1):
        name = f"MCUCXR_{number:04d}_{int(number > subjects // 2)}"
        masks = blobs(rng, size, size + number % 2, 2)
        save_image(root / "CXR_png" / f"{name}.png", picture(rng, masks, 255))
        for side, mask in zip(("rightMask", "leftMask"), masks, strict=True):
            save_image(root / "ManualMask" / side / f"{name}.png", mask)
        (root / "ClinicalReadings" / f"{name}.txt").write_text("Patient's Sex: F\nPatient's Age: 030Y\nnormal\n")
    return {}
