"""Reading DICOM images as physical values, without loss: header first, then frames.

Stored values are rescaled (CT: Hounsfield units), MONOCHROME1 is inverted within its range so that larger is brighter
as everywhere else, palettes and YBR become RGB. Display settings (VOI windows, overlays) are not applied. Compressed
transfer syntaxes: RLE, JPEG and JPEG lossless, JPEG-LS, JPEG 2000.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from raysweep.data.pack_format import Bucket
from raysweep.errors import PackError

Array = npt.NDArray[Any]

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    TypeError,
    InvalidDicomError,
)
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
_GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What a DICOM file says of itself before its pixels are decoded."""

    path: Path
    bucket: Bucket
    num_frames: int
    spacing_mm: tuple[float, float]
    """Distance of rows and of columns; NaN if the file does not say."""
    patient: str
    study: str
    series: str
    instance: str
    instance_number: int
    place_mm: float
    """Position along the normal of the slices; NaN if the file does not say."""
    has_time: bool
    """Whether several frames are time points (a cine), not slices (an enhanced multi-frame image)."""


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_header(path: Path) -> DicomHeader:
    """Read all but the pixels.

    Raises:
        PackError: if it is no DICOM image, or its pixels are of a kind that a pack cannot hold.
    """
    try:
        with _lenient():
            return _header_of(path, pydicom.dcmread(path, stop_before_pixels=True))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_frames(path: Path) -> Array:
    """Decode all frames, (frames, C, H, W), in the pixel type that :func:`read_header` announces.

    Raises:
        PackError: if it is truncated, corrupt, or compressed in a way that cannot be decoded.
    """
    try:
        with _lenient():
            return _frames_of(path, pydicom.dcmread(path))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


@contextmanager
def _lenient() -> Iterator[None]:
    """Be silent about values that violate their type, which archives are full of."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _header_of(path: Path, dataset: Any) -> DicomHeader:
    low, high = _stored_range(dataset)
    grey = dataset.PhotometricInterpretation in _GREY
    dtype = _rescaled_dtype(dataset, low, high) if grey else _colour_dtype(dataset)
    return DicomHeader(
        path=path,
        bucket=Bucket(1 if grey else 3, int(dataset.Rows), int(dataset.Columns), dtype),
        num_frames=int(dataset.get("NumberOfFrames") or 1),
        spacing_mm=_spacing(dataset),
        patient=str(dataset.get("PatientID") or ""),
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        instance=str(dataset.get("SOPInstanceUID") or ""),
        instance_number=int(dataset.get("InstanceNumber") or 0),
        place_mm=_place(dataset),
        has_time="PerFrameFunctionalGroupsSequence" not in dataset,
    )


def _frames_of(path: Path, dataset: Any) -> Array:
    header = _header_of(path, dataset)
    # Bits above those in use are no pixel values where an overlay lies in them; elsewhere BitsStored is wrong.
    stored = pixel_array(dataset, correct_unused_bits=_has_embedded_overlay(dataset))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    bucket = header.bucket
    grey = bucket.channels == 1
    frames = stored.reshape(header.num_frames, bucket.height, bucket.width, *(() if grey else (bucket.channels,)))
    return _rescaled(dataset, frames, bucket.dtype)[:, None] if grey else _colours(frames, bucket.dtype)


def _has_embedded_overlay(dataset: Any) -> bool:
    return any(element.tag.group >> 8 == 0x60 and element.tag.elem == 0x0102 and element.value for element in dataset)


def _is_signed(dataset: Any) -> bool:
    return int(dataset.get("PixelRepresentation") or 0) == 1


def _stored_range(dataset: Any) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if _is_signed(dataset) else (0, (1 << bits) - 1)


def _rescale(dataset: Any) -> list[tuple[float, float]]:
    """Return slope and intercept, one pair for all frames or one for each."""
    if "ModalityLUTSequence" in dataset:
        raise ValueError("its values go through a modality lookup table; convert it to rescaled values")
    if "RescaleSlope" in dataset:
        return [(float(dataset.RescaleSlope), float(dataset.get("RescaleIntercept") or 0))]
    pairs = []
    for group in [
        *dataset.get("SharedFunctionalGroupsSequence", []),
        *dataset.get("PerFrameFunctionalGroupsSequence", []),
    ]:
        if "PixelValueTransformationSequence" in group:
            item = group.PixelValueTransformationSequence[0]
            pairs.append((float(item.RescaleSlope), float(item.RescaleIntercept)))
    return pairs or [(1.0, 0.0)]


def _rescaled_dtype(dataset: Any, low: int, high: int) -> str:
    """Return the smallest pixel type that holds every value the stored bits can stand for."""
    pairs = _rescale(dataset)
    if any(not value.is_integer() for pair in pairs for value in pair):
        return "float32"
    ends = [slope * end + intercept for slope, intercept in pairs for end in (low, high)]
    for name in _INTEGERS:
        limits = np.iinfo(name)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return name
    return "float64"


def _colour_dtype(dataset: Any) -> str:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return "uint8" if int(dataset.RedPaletteColorLookupTableDescriptor[2]) == 8 else "uint16"
    if int(dataset.SamplesPerPixel) != 3:
        raise ValueError(f"it has {dataset.SamplesPerPixel} samples a pixel as {dataset.PhotometricInterpretation}")
    return "uint8" if int(dataset.BitsAllocated) == 8 else f"uint{int(dataset.BitsAllocated)}"


def _rescaled(dataset: Any, stored: Array, dtype: str) -> Array:
    low, high = _stored_range(dataset)
    if stored.min() < low or stored.max() > high:
        raise ValueError(
            f"it holds values from {stored.min()} to {stored.max()}; its {dataset.BitsStored} bits hold {low} to {high}"
        )
    pairs = _rescale(dataset)
    if len(pairs) not in (1, len(stored)):
        raise ValueError(f"it has {len(pairs)} rescale pairs for {len(stored)} frames")
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        bits = int(dataset.BitsStored)
        stored = (-1 - stored) if _is_signed(dataset) else ((1 << bits) - 1 - stored.astype(np.int64))
    slope, intercept = np.array(pairs).T[:, :, None, None]
    is_identity = bool((slope == 1).all() and (intercept == 0).all())
    values = stored if is_identity else stored * slope + intercept
    return np.ascontiguousarray(values.astype(dtype))


def _colours(frames: Array, dtype: str) -> Array:
    if np.dtype(dtype) != frames.dtype:
        raise ValueError(f"its colours decode to {frames.dtype} where {dtype} is announced")
    return np.ascontiguousarray(np.moveaxis(frames, -1, 1))


def _spacing(dataset: Any) -> tuple[float, float]:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if dataset.get(name):
            row_mm, column_mm = (float(value) for value in dataset[name].value)
            return row_mm, column_mm
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(name, []):
            if "PixelMeasuresSequence" in group and "PixelSpacing" in group.PixelMeasuresSequence[0]:
                row_mm, column_mm = (float(value) for value in group.PixelMeasuresSequence[0].PixelSpacing)
                return row_mm, column_mm
    return math.nan, math.nan


def _place(dataset: Any) -> float:
    position, orientation = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if not position or not orientation:
        return math.nan
    axes = np.array([float(value) for value in orientation]).reshape(2, 3)
    return float(np.cross(axes[0], axes[1]) @ np.array([float(value) for value in position]))


def _unreadable(path: Path, error: BaseException) -> PackError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, InvalidDicomError):
        reason = "it does not begin as DICOM files do"
    return PackError(
        f"{path} cannot be read as a DICOM image: {reason}. It is truncated, corrupt, not an image, or compressed in a "
        "way that no installed decoder knows."
    )
