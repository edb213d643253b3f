"""CheXpert: tables with paths that begin with the release's name, blank and uncertain cells, JPEG images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raysweep.datasets.chexpert import OBSERVATIONS
from tests.lookalikes._drawing import blobs, picture, save_image, save_table

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(OBSERVATIONS)
RELEASE = "CheXpert-v1.0-small"


def write_lookalike(
    folder: Path, *, subjects: int = 10, size: int = 32, seed: int = 0, test_set: bool = False
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    parts = ["train"] * (subjects - 2) + ["valid"] * 2 + ["test"] * 2 * test_set
    rows: dict[str, list[Any]] = {}
    for number, part in enumerate(parts, start=1):
        for view in ("view1_frontal", "view2_lateral")[: 1 + number % 2]:
            path = f"{part}/patient{number:05d}/study1/{view}.jpg"
            is_frontal = "frontal" in view
            choices = ["", "1.0", "0.0", "-1.0"] if part == "train" else ["1.0", "0.0"]
            cells = rng.choice(choices, len(OBSERVATIONS)).tolist()
            facts = ["Female", 60, "Frontal" if is_frontal else "Lateral", "AP" if is_frontal else ""]
            rows.setdefault(part, []).append([f"{RELEASE}/{path}", *facts, *cells])
            save_image(folder / RELEASE / path, picture(rng, blobs(rng, size, size + number % 3, 2), 255))
    for part, lines in rows.items():
        save_table(folder / RELEASE / f"{part}.csv", HEADER, lines)
    return {}
