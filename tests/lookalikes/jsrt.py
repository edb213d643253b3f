"""JSRT + SCR: raw big-endian images, GIF masks of half their size in two folds, clavicles over lungs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image

PARTS = ("right lung", "left lung", "heart", "left clavicle", "right clavicle")


def write_lookalike(folder: Path, *, subjects: int = 8, size: int = 32, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    for number in range(1, subjects + 1):
        name = f"JPC{'LN' if number > subjects // 2 else 'NN'}{number:03d}"
        lungs = blobs(rng, size // 2, size // 2, 2)
        heart = blobs(rng, size // 2, size // 2, 1)[0] & ~lungs.any(axis=0)
        clavicles = np.roll(lungs, -size // 8, axis=1)
        masks = np.concatenate([lungs, heart[None], clavicles])
        large = masks.repeat(2, 1).repeat(2, 2)
        path = folder / "All247images" / f"{name}.IMG"
        path.parent.mkdir(parents=True, exist_ok=True)
        (4095 - picture(rng, large, 4095, np.uint16)).astype(">u2").tofile(path)
        for part, mask in zip(PARTS, masks, strict=True):
            save_image(
                folder / "scratch" / f"fold{1 + number % 2}" / "masks" / part / f"{name}.gif",
                mask.astype(np.uint8) * 255,
            )
    return {}
