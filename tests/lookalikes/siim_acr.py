"""SIIM-ACR: JPEG-compressed DICOM in study and series folders; run lengths with the blank before the column's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._dicom_files import as_jpeg, dataset_of, save_dicom, uid
from tests.lookalikes._drawing import blobs, picture, save_table


def run_lengths(mask: np.ndarray) -> str:
    """Encode a mask, (H, W), as the challenge does: starts count from the end of the run before, down each column."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{gap} {end - start}" for gap, start, end in zip(gaps, starts, ends, strict=True))


def write_lookalike(
    folder: Path, *, subjects: int = 8, size: int = 32, seed: int = 0, unlabelled: bool = False
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(1, subjects + 1):
        masks = blobs(rng, size, size, 2)
        instance = uid(4, number)
        tags = {
            "SOPInstanceUID": instance,
            "PatientID": f"patient-{number:03d}",
            "StudyInstanceUID": uid(2, number),
            "SeriesInstanceUID": uid(3, number),
            "PixelSpacing": [0.168, 0.168],
            "ViewPosition": "PA",
        }
        dataset = as_jpeg(dataset_of(picture(rng, masks, 255), **tags))
        part = "test" if unlabelled and number == subjects else "train"
        save_dicom(folder / f"dicom-images-{part}" / uid(2, number) / uid(3, number) / f"{instance}.dcm", dataset)
        if part == "train":
            rows += [[instance, f" {run_lengths(mask)}"] for mask in masks[: number % 3]] or [[instance, " -1"]]
    save_table(folder / "train-rle.csv", "ImageId, EncodedPixels", rows)
    return {}
