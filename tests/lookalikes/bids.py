"""BIDS: participants with sessions, two contrasts, segmentations in derivatives, a table with an unknown value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_nifti


def write_lookalike(folder: Path, *, subjects: int = 6, size: int = 24, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    lines = ["participant_id\tage\tgroup"]
    for number in range(1, subjects + 1):
        subject = f"sub-{number:02d}"
        group = "n/a" if number == subjects else ("control", "patient")[number % 2]
        lines.append(f"{subject}\t{40 + number}\t{group}")
        for session in ("ses-1", "ses-2")[: 1 + number % 2]:
            stem = f"{subject}_{session}"
            masks = blobs(rng, size, size + 4, 2)
            truth = np.tensordot([1, 2], masks, axes=1).astype(np.uint8)
            place = folder / subject / session / "anat"
            for suffix, highest in (("T1w", 800), ("FLAIR", 90)):
                image = picture(rng, masks, highest, np.int16)
                save_nifti(place / f"{stem}_{suffix}.nii.gz", np.stack([image.T, image.T], axis=-1), (0.8, 0.8, 2.0))
            if number != 1:
                path = folder / "derivatives" / "labels" / subject / session / "anat" / f"{stem}_dseg.nii.gz"
                save_nifti(path, np.stack([truth.T, truth.T], axis=-1), (0.8, 0.8, 2.0))
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    return {"suffixes": ["T1w", "FLAIR"], "label": "group"}
