"""Reading NIfTI images as slices.

NIfTI arrays are (x, y, z[, t]); a slice is ``array[:, :, z].T``: rows along y, columns along x, as stored.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from raysweep.data.pack_format import IMAGE_DTYPES, Bucket
from raysweep.errors import PackError

Array = npt.NDArray[Any]

_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, ImageFileError)


@dataclass(frozen=True)
class NiftiHeader:
    """Shape (x, y, z[, t]), pixel type as packed, and in-plane spacing of a NIfTI file."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    spacing_mm: tuple[float, float]
    """Distance of rows (along y) and of columns (along x); NaN if the file does not say."""

    @property
    def bucket(self) -> Bucket:
        """The bucket of this file's slices."""
        return Bucket(1, self.shape[1], self.shape[0], self.dtype)


def read_header(path: Path, num_dimensions: int) -> NiftiHeader:
    """Read a file's header, no pixels.

    Raises:
        PackError: if it cannot be read, has another number of dimensions, or pixels that a pack cannot hold.
    """
    image = load(path)
    shape = tuple(int(size) for size in image.shape)
    if len(shape) != num_dimensions or min(shape) < 1:
        raise PackError(f"{path} has the shape {shape}; allowed are {num_dimensions} dimensions of at least 1")
    dtype = image.header.get_data_dtype().newbyteorder("=").name if is_unscaled(image) else "float32"
    if dtype not in IMAGE_DTYPES:
        raise PackError(f"{path} has pixels of type {dtype}; allowed are {', '.join(IMAGE_DTYPES)}")
    column_mm, row_mm = (float(size) if size > 0 else float("nan") for size in image.header.get_zooms()[:2])
    return NiftiHeader(path, shape, dtype, (row_mm, column_mm))


def read_pixels(path: Path) -> Array:
    """Read a whole file, (x, y, z[, t]), in its own type; float32 where its header scales intensities.

    Raises:
        PackError: if it is truncated or corrupt, or holds NaN or infinite values.
    """
    array = read_part(path, load(path), ...)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = [*np.argwhere(~np.isfinite(array))[0].tolist(), 0, 0]
        frame = f", frame {where[3] + 1}" if array.ndim == 4 else ""
        raise PackError(
            f"{path} has {array[tuple(where[: array.ndim])]} at row {where[1]}, column {where[0]} of slice {where[2]}"
            f"{frame} (slices counted from 0); pixels must be finite. Repair the file or remove it."
        )
    return array


def read_part(path: Path, image: Any, place: Any) -> Array:
    """Return a part of an open file's voxels in its own type; float32 where its header scales intensities.

    Raises:
        PackError: if it is truncated or corrupt.
    """
    try:
        if place is ...:
            array = image.dataobj.get_unscaled() if is_unscaled(image) else np.asarray(image.dataobj, np.float32)
        else:
            array = image.dataobj[place]
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    kind = image.header.get_data_dtype() if is_unscaled(image) else np.dtype(np.float32)
    return np.asarray(array, kind.newbyteorder("="))


def check_finite(path: Path, plane: Array, number: int) -> None:
    """Check one slice, (rows, columns), for NaN and infinite values.

    Raises:
        PackError: naming the first.
    """
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        row, column = np.argwhere(~np.isfinite(plane))[0]
        raise PackError(
            f"{path} has {plane[row, column]} at row {row}, column {column} of slice {number} (slices counted from 0); "
            "pixels must be finite. Repair the file or remove it."
        )


def slice_of(array: Array, z: int, frame: int | None = None) -> Array:
    """Return one slice, (rows along y, columns along x), of an (x, y, z) or (x, y, z, t) array."""
    plane: Array = array[:, :, z] if frame is None else array[:, :, z, frame]
    return np.ascontiguousarray(plane.T)


def is_unscaled(image: Any) -> bool:
    """Return whether the header leaves the stored values as they are."""
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return bool(slope == 1 and intercept == 0)


def load(path: Path) -> Any:
    """Open a file.

    Raises:
        PackError: if it is not NIfTI.
    """
    try:
        return nibabel.load(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> PackError:
    return PackError(f"{path} cannot be read as NIfTI: {error}. It is truncated or corrupt: download or copy it again.")
