"""M&Ms: cines with masks at two frames, patients without masks, the table with its nameless first column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_nifti, save_table

HEADER = ",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"
PLACES = ("Training/Labeled", "Training/Labeled", "Training/Unlabeled", "Validation", "Testing")
ED, ES = 0, 2


def write_lookalike(folder: Path, *, subjects: int = 5, size: int = 32, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(subjects):
        place, code = PLACES[number % len(PLACES)], f"{'ABC'[number % 3]}{number}S9V{number % 7}"
        masks = blobs(rng, size, size + number % 2, 3)
        classes = np.tensordot([1, 2, 3], masks, axes=1).astype(np.uint8).T
        cine = np.stack(
            [np.stack([picture(rng, masks, 900, np.int16).T for _ in range(2)], axis=-1) for _ in range(4)], axis=-1
        )
        truth = np.zeros(cine.shape, np.uint8)
        for frame in (ED, ES):
            truth[..., frame] = classes[..., None]
        root = folder / "OpenDataset" / place / code
        save_nifti(root / f"{code}_sa.nii.gz", cine, (1.25, 1.25, 9.6))
        if place != "Training/Unlabeled":
            save_nifti(root / f"{code}_sa_gt.nii.gz", truth, (1.25, 1.25, 9.6))
        pathology = ("NOR", "HCM", "DCM")[number % 3]
        rows.append([number, code, "Siemens", "A", 1, ED, ES, 50, pathology, "M", 170, 80])
    save_table(folder / "OpenDataset" / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv", HEADER, rows)
    return {}
