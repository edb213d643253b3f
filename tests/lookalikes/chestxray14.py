"""ChestX-ray14: table and lists as released, images in numbered folders, one of them grey stored as RGBA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raysweep.datasets.chestxray14 import FINDINGS
from tests.lookalikes._drawing import blobs, picture, save_image, save_table

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def write_lookalike(folder: Path, *, subjects: int = 10, size: int = 32, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(1, subjects + 1):
        for visit in range(1 + patient % 2):
            name = f"{patient:08d}_{visit:03d}.png"
            found = [FINDINGS[code] for code in np.flatnonzero(rng.random(len(FINDINGS)) < 0.15)]
            age, sex, view = int(rng.integers(20, 80)), "MF"[patient % 2], "PA" if visit else "AP"
            rows.append(
                [name, "|".join(found) or "No Finding", visit, patient, age, sex, view, 2682, 2749, 0.143, 0.143, ""]
            )
            image = picture(rng, blobs(rng, size, size, 2), 255)
            mode = "RGBA" if patient == 2 else None
            save_image(folder / f"images_{1 + patient % 3:03d}" / "images" / name, image, mode)
            lists["test_list.txt" if patient % 5 == 0 else "train_val_list.txt"].append(name)
    save_table(folder / "Data_Entry_2017.csv", HEADER, rows)
    for name, images in lists.items():
        (folder / name).write_text("".join(f"{image}\n" for image in images))
    return {}
