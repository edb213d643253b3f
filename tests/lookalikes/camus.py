"""CAMUS: two views a patient, 2D NIfTI files, half sequences, settings, and lists of the subgroups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_nifti

FRAMES = 4


def write_lookalike(
    folder: Path, *, subjects: int = 6, size: int = 32, seed: int = 0, lists: bool = True
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    groups: dict[str, list[str]] = {"training": [], "validation": [], "testing": []}
    for number in range(1, subjects + 1):
        name = f"patient{number:04d}"
        groups[("training", "training", "validation", "testing")[number % 4]].append(name)
        root = folder / "database_nifti" / name
        for view in ("2CH", "4CH"):
            masks = blobs(rng, size, size + 4, 3)
            truth = np.tensordot([1, 2, 3], masks, axes=1).astype(np.uint8).T
            sequence = np.stack([picture(rng, masks, 255).T for _ in range(FRAMES)], axis=-1)
            spacing = (0.308, 0.154, 1.0)
            for phase, frame in (("ED", 0), ("ES", FRAMES - 1)):
                save_nifti(root / f"{name}_{view}_{phase}.nii.gz", sequence[..., frame], spacing)
                save_nifti(root / f"{name}_{view}_{phase}_gt.nii.gz", truth, spacing)
            save_nifti(root / f"{name}_{view}_half_sequence.nii.gz", sequence, spacing)
            if number % 2:
                masks_gt = np.repeat(truth[..., None], FRAMES, axis=-1)
                save_nifti(root / f"{name}_{view}_half_sequence_gt.nii.gz", masks_gt, spacing)
            quality = ("Good", "Medium", "Poor")[number % 3]
            text = f"ED: 1\nES: {FRAMES}\nNbFrame: {FRAMES}\nSex: F\nAge: 56\nImageQuality: {quality}\nEF: 44\n"
            (root / f"Info_{view}.cfg").write_text(text)
    for group, names in groups.items() if lists else ():
        path = folder / "database_split" / f"subgroup_{group}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(names) + "\n")
    return {}
