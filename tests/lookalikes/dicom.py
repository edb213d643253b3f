"""DICOM files: CT series in reverse order without endings, a table of labels by patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._dicom_files import CT, dataset_of, save_dicom, uid
from tests.lookalikes._drawing import blobs, picture, save_table


def write_lookalike(
    folder: Path, *, subjects: int = 6, size: int = 24, slices: int = 3, seed: int = 0
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    for number in range(1, subjects + 1):
        for place in range(slices):
            tags = {
                "SOPClassUID": CT,
                "SOPInstanceUID": uid(4, number, place + 1),
                "PatientID": f"P{number:03d}",
                "StudyInstanceUID": uid(2, number),
                "SeriesInstanceUID": uid(3, number),
                "InstanceNumber": slices - place,
                "ImagePositionPatient": [-100, -100, 2.5 * place],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.75, 0.5],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
            }
            pixels = picture(rng, blobs(rng, size, size, 1), 1900, np.uint16)
            save_dicom(folder / f"PAT{number:03d}" / f"IM{slices - place:05d}", dataset_of(pixels, bits=12, **tags))
    save_table(folder / "labels.csv", "PatientID,nodule", [[f"P{n:03d}", n % 2] for n in range(1, subjects)])
    return {"table": "labels.csv"}
