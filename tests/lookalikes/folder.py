"""A folder of images and masks: two images a subject, some without masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image


def write_lookalike(folder: Path, *, subjects: int = 6, size: int = 20, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    for number in range(2 * subjects):
        masks = blobs(rng, size, size + 4 * (number % 2), 1)
        save_image(folder / "images" / f"s{number // 2}_{number}.png", picture(rng, masks, 255))
        if number < 2 * subjects - 2:
            save_image(folder / "masks" / f"s{number // 2}_{number}.png", masks[0].astype(np.uint8) * 255)
    return {"mask_values": {255: 1}, "subject": "(s[0-9]+)_", "classes": ["background", "square"]}
