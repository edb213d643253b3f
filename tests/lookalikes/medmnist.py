"""MedMNIST: one npz file with images and labels of three splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raysweep.datasets import medmnist


def write_lookalike(
    folder: Path, *, subjects: int = 12, size: int = 28, seed: int = 0, member: str = "bloodmnist"
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    num_labels = len(medmnist._MEMBERS[member])
    channels = (3,) if member in ("pathmnist", "dermamnist", "retinamnist", "bloodmnist") else ()
    arrays = {}
    for split, number in (("train", subjects), ("val", subjects // 2), ("test", subjects // 2)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (number, size, size, *channels), np.uint8)
        shape, highest = ((number, num_labels), 2) if member == "chestmnist" else ((number, 1), num_labels)
        arrays[f"{split}_labels"] = rng.integers(0, highest, shape, np.uint8)
    suffix = "" if size == 28 else f"_{size}"
    np.savez_compressed(folder / f"{member}{suffix}.npz", **arrays)
    return {}
