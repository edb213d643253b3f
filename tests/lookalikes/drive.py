"""DRIVE: colour TIFF images, GIF masks of vessels and of the field of view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.lookalikes._drawing import blobs, picture, save_image


def write_lookalike(folder: Path, *, subjects: int = 10, size: int = 32, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    view = np.hypot(y - size / 2, x - size / 2) < 0.45 * size
    for number in range(1, subjects + 1):
        part = "test" if number <= subjects // 2 else "training"
        vessels = blobs(rng, size, size, 3)
        image = np.stack([picture(rng, vessels, highest) * view for highest in (250, 160, 60)], axis=-1)
        path = folder / "DRIVE" / part / "images" / f"{number:02d}_{part}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, image.astype(np.uint8))
        for name, mask in (
            (f"1st_manual/{number:02d}_manual1", vessels.any(axis=0)),
            (f"mask/{number:02d}_{part}_mask", view),
        ):
            save_image(folder / "DRIVE" / part / f"{name}.gif", mask.astype(np.uint8) * 255)
    return {}
