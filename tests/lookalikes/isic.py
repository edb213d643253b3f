"""ISIC 2018: task 1 with its three folders, task 3 with its table of lesions, both side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image, save_table

DIAGNOSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def write_lookalike(
    folder: Path, *, subjects: int = 8, size: int = 32, seed: int = 0, task: str = "segmentation"
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    parts = ("Training", "Training", "Validation", "Test")
    rows, lesions = [], []
    for number in range(subjects):
        masks = blobs(rng, size, size + 8 * (number % 2), 1)
        image = np.stack([picture(rng, masks, highest) for highest in (220, 170, 150)], axis=-1)
        name, part = f"ISIC_{number:07d}", parts[number % 4]
        save_image(folder / f"ISIC2018_Task1-2_{part}_Input" / f"{name}.jpg", image)
        save_image(
            folder / f"ISIC2018_Task1_{part}_GroundTruth" / f"{name}_segmentation.png", masks[0].astype(np.uint8) * 255
        )
        name = f"ISIC_{24306 + number:07d}"
        save_image(folder / "ISIC2018_Task3_Training_Input" / f"{name}.jpg", image)
        rows.append([name, *(float(code == number // 2 % len(DIAGNOSES)) for code in range(len(DIAGNOSES)))])
        lesions.append([name, f"HAM_{number // 2:07d}", "histopathology"])
    truth = folder / "ISIC2018_Task3_Training_GroundTruth"
    save_table(truth / "ISIC2018_Task3_Training_GroundTruth.csv", "image," + ",".join(DIAGNOSES), rows)
    header = "image,lesion_id,diagnosis_confirm_type"
    save_table(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", header, lesions)
    return {"task": task}
