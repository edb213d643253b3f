"""3D NIfTI images as slices in a chosen anatomical plane, one or several channels, read a slice at a time.

Axes are permuted and flipped by the file's orientation, never resampled: an oblique image keeps its own planes, the
ones nearest to the anatomical ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from raysweep.data.pack_format import IMAGE_DTYPES, Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets._nifti import check_finite, is_unscaled, load, read_part
from raysweep.datasets._percentiles import streamed_range
from raysweep.datasets._survey import Reading
from raysweep.errors import PackError

Array = npt.NDArray[Any]
Plane = Literal["stored", "axial", "coronal", "sagittal"]
"""stored: rows along y and columns along x as the file has them. Others: as radiologists look at them."""

_AXES = {"axial": ("L", "P", "S"), "coronal": ("L", "I", "P"), "sagittal": ("P", "I", "L")}
"""Plane -> direction in which columns, rows and slices count up."""
_SAME_PLACE_MM = 1e-2


@dataclass(frozen=True)
class VolumeHeader:
    """A 3D file: how its (x, y, z) becomes (columns, rows, slices), and what results."""

    path: Path
    orientation: tuple[tuple[int, int], ...]
    """For each stored axis: which one it becomes (0 columns, 1 rows, 2 slices), and 1 or -1 where it is turned over."""
    shape: tuple[int, int, int]
    """Columns, rows, slices."""
    spacing_mm: tuple[float, float]
    """Distance of rows and of columns."""
    dtype: str
    affine: tuple[tuple[float, ...], ...]


def read_volume_header(path: Path, plane: Plane) -> VolumeHeader:
    """Read the header of a 3D file; a 2D one counts as one slice.

    Raises:
        PackError: if it cannot be read, has other dimensions, or pixels that a pack cannot hold.
    """
    image = load(path)
    stored = tuple(int(size) for size in image.shape)
    stored += (1,) * (3 - len(stored))
    if len(stored) > 3 and set(stored[3:]) == {1}:
        stored = stored[:3]
    if len(stored) != 3 or min(stored) < 1:
        raise PackError(f"{path} has the shape {image.shape}; allowed are 3 dimensions of at least 1")
    dtype = image.header.get_data_dtype().newbyteorder("=").name if is_unscaled(image) else "float32"
    if dtype not in IMAGE_DTYPES:
        raise PackError(f"{path} has pixels of type {dtype}; allowed are {', '.join(IMAGE_DTYPES)}")
    turned = _orientation(path, image.affine, plane)
    zooms = [float(size) if size > 0 else float("nan") for size in (*image.header.get_zooms()[:3], 0, 0)][:3]
    shape, spacing = [0, 0, 0], [0.0, 0.0, 0.0]
    for axis, (target, _) in enumerate(turned):
        shape[target], spacing[target] = stored[axis], zooms[axis]
    affine = tuple(tuple(float(value) for value in line) for line in image.affine)
    return VolumeHeader(path, turned, (shape[0], shape[1], shape[2]), (spacing[1], spacing[0]), dtype, affine)


def check_same_grid(first: VolumeHeader, other: VolumeHeader) -> None:
    """Check that two files cover the same voxels.

    Raises:
        PackError: if shape or place differ.
    """
    same = first.shape == other.shape and np.allclose(first.affine, other.affine, atol=_SAME_PLACE_MM)
    if not same:
        raise PackError(
            f"{other.path} covers other voxels than {first.path.name}: shape {other.shape} and {first.shape}, affines "
            f"{np.round(other.affine, 3).tolist()} and {np.round(first.affine, 3).tolist()}. Resample one."
        )


def volume_reading(
    channels: Sequence[VolumeHeader],
    mask: VolumeHeader | None,
    translate: Any,
    translate_arguments: tuple[Any, ...] = (),
    *,
    subject: str,
    volume: str,
    split: str,
    labels: tuple[float, ...] = (),
) -> Reading:
    """Return the reading of one volume; ``translate(path, stored, *arguments)`` gives the class indices of a slice.

    Channels are scaled one by one; pixel types that differ become the smallest type that holds all without loss.

    Raises:
        PackError: if channels or mask cover different voxels, or no pixel type holds the channels.
    """
    first = channels[0]
    for other in [*channels[1:], *([] if mask is None else [mask])]:
        check_same_grid(first, other)
    dtype = np.result_type(*(one.dtype for one in channels)).name
    if dtype not in IMAGE_DTYPES:
        raise PackError(f"no pixel type holds the channels of {first.path}: {[one.dtype for one in channels]}")
    columns, rows, num_slices = first.shape
    template = SliceHeader(
        bucket=Bucket(len(channels), rows, columns, dtype),
        subject=subject,
        volume=volume,
        split=split,
        has_mask=mask is not None,
        annotated=mask is not None or any(not math.isnan(value) for value in labels),
        spacing_mm=first.spacing_mm,
        labels=labels,
    )
    slices = tuple(replace(template, slice_number=number) for number in _slice_order(first, num_slices))
    arguments = (tuple(channels), mask, dtype, translate, translate_arguments)
    held = 0 if _is_streamed(first) else len(channels) * columns * rows * num_slices * 8
    return Reading(_read, arguments, slices, memory_bytes=held + 16 * columns * rows * len(channels))


def _orientation(path: Path, affine: Array, plane: Plane) -> tuple[tuple[int, int], ...]:
    if plane == "stored":
        return ((0, 1), (1, 1), (2, 1))
    try:
        turned = ornt_transform(io_orientation(affine), axcodes2ornt(_AXES[plane]))
    except (ValueError, np.linalg.LinAlgError) as error:
        raise PackError(f"{path} has no usable orientation ({error}); pack it with plane: stored") from error
    if np.isnan(turned).any():
        raise PackError(f"{path} has no usable orientation; pack it with plane: stored")
    return tuple((int(target), int(flip)) for target, flip in turned)


def _is_streamed(header: VolumeHeader) -> bool:
    """Return whether slices lie one behind the other in the file."""
    return header.orientation[2][0] == 2


def _slice_order(header: VolumeHeader, num_slices: int) -> range:
    """Return the slice numbers in the order in which slices are read: that of the file where it is streamed."""
    reverse = _is_streamed(header) and header.orientation[2][1] < 0
    return range(num_slices - 1, -1, -1) if reverse else range(num_slices)


def _read_slices(header: VolumeHeader) -> Iterator[Array]:
    """Yield slices, (rows, columns), in the order of ``_slice_order``."""
    image = nibabel.load(header.path, keep_file_open=True)
    if not _is_streamed(header):
        turned = apply_orientation(_voxels(header, image, ...), np.array(header.orientation))
        for number in range(header.shape[2]):
            yield np.ascontiguousarray(turned[:, :, number].T)
        return
    plane = np.array(header.orientation[:2])
    for number in range(header.shape[2]):
        place = (slice(None), slice(None), number) if len(image.shape) > 2 else ...
        stored = _voxels(header, image, place)
        yield np.ascontiguousarray(apply_orientation(stored.reshape(stored.shape[:2]), plane).T)


def _voxels(header: VolumeHeader, image: Any, place: Any) -> Array:
    voxels = read_part(header.path, image, place)
    return voxels.reshape(voxels.shape[:3]) if voxels.ndim > 3 else voxels


def _read(
    channels: tuple[VolumeHeader, ...],
    mask: VolumeHeader | None,
    dtype: str,
    translate: Any,
    translate_arguments: tuple[Any, ...],
) -> Iterator[SlicePixels]:
    low, high = zip(*(streamed_range(partial(_checked, one)) for one in channels), strict=True)
    masks = iter(()) if mask is None else _read_slices(mask)
    for planes in zip(*(_read_slices(one) for one in channels), strict=True):
        stored = next(masks, None)
        classes = None if mask is None else translate(mask.path, stored, *translate_arguments)
        yield SlicePixels(np.stack([plane.astype(dtype) for plane in planes]), classes, low, high)


def _checked(header: VolumeHeader) -> Iterator[Array]:
    for number, plane in zip(_slice_order(header, header.shape[2]), _read_slices(header), strict=True):
        check_finite(header.path, plane, number)
        yield plane
