"""DICOM files as archives hold them: real tags, real transfer syntaxes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

CHEST_XRAY, CT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2"


def uid(*numbers: int) -> str:
    """Return a unique identifier under the root that is open to everybody's use in examples."""
    return "1.2.826.0.1.3680043.8.498." + ".".join(map(str, numbers))


def dataset_of(pixels: np.ndarray, *, bits: int | None = None, **tags: Any) -> pydicom.Dataset:
    """Return a DICOM data set of (H, W), (frames, H, W) or (H, W, 3) pixels; ``tags`` are set by keyword."""
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = tags.pop("SOPClassUID", CHEST_XRAY)
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = tags.pop("SOPInstanceUID", uid(1))
    found.Rows, found.Columns = pixels.shape[:2] if is_colour else pixels.shape[-2:]
    found.SamplesPerPixel = 3 if is_colour else 1
    found.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        found.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        found.NumberOfFrames = len(pixels)
    found.BitsAllocated = 8 * pixels.dtype.itemsize
    found.BitsStored = bits or found.BitsAllocated
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    with disable_value_validation():  # challenges replace identifiers by others that DICOM does not allow
        identity = {"StudyInstanceUID": uid(2), "SeriesInstanceUID": uid(3), "PatientID": "patient"}
        for name, value in {**identity, **tags}.items():
            setattr(found, name, value)
    return found


def save_dicom(path: Path, dataset: pydicom.Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        dataset.save_as(path, enforce_file_format=True)
    return path


def as_jpeg(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Compress 8-bit grey pixels as baseline JPEG, as radiographs of challenges are."""
    buffer = io.BytesIO()
    Image.fromarray(dataset.pixel_array).save(buffer, "JPEG", quality=95)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.LossyImageCompression = "01"
    return dataset
