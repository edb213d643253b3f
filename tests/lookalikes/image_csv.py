"""Images and a table: several images a subject, uncertain and unknown labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image, save_table


def write_lookalike(folder: Path, *, subjects: int = 8, size: int = 24, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(2 * subjects):
        name = f"images/{number:03d}.png"
        save_image(folder / name, picture(rng, blobs(rng, size, size, 1), 255))
        rows.append([name, f"p{number // 2}", number % 2, ("", "1", "0", "-1")[number % 4]])
    save_table(folder / "labels.csv", "image,subject,nodule,scar", rows)
    return {}
