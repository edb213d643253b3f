"""RSNA pulmonary embolism: CT series of unordered instance names, labels of slices and of examinations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._dicom_files import CT, dataset_of, save_dicom, uid
from tests.lookalikes._drawing import blobs, picture, save_table

HEADER = (
    "StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,pe_present_on_image,negative_exam_for_pe,qa_motion,qa_contrast,"
    "flow_artifact,rv_lv_ratio_gte_1,rv_lv_ratio_lt_1,leftsided_pe,chronic_pe,true_filling_defect_not_pe,"
    "rightsided_pe,acute_and_chronic_pe,central_pe,indeterminate"
)


def write_lookalike(
    folder: Path, *, subjects: int = 6, size: int = 32, slices: int = 3, seed: int = 0
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(1, subjects + 1):
        ill = number % 2
        study, series = f"study{number:08x}", f"series{number:08x}"
        names = [f"{value:012x}" for value in rng.choice(1 << 40, slices, replace=False)]
        for place, name in enumerate(names):
            stored = picture(rng, blobs(rng, size, size, 2), 1900, np.int16)
            tags = {
                "SOPClassUID": CT,
                "SOPInstanceUID": uid(4, number, place),
                "PatientID": f"{number:08x}",
                "StudyInstanceUID": study,
                "SeriesInstanceUID": series,
                "InstanceNumber": slices - place,
                "ImagePositionPatient": [-160.0, -160.0, -300.0 + 1.25 * place],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.703125, 0.703125],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
            }
            save_dicom(folder / "train" / study / series / f"{name}.dcm", dataset_of(stored, bits=16, **tags))
            left, ratio = ill, int(ill and number % 4 == 1)
            slice_label = int(ill and place == 1)
            cells = [slice_label, 1 - ill, 0, 0, 0, ratio, ill - ratio, left, 0, 0, 0, 0, 0, 0]
            rows.append([study, series, name, *cells])
    save_table(folder / "train.csv", HEADER, rows)
    return {}
