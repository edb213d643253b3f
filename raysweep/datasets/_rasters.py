"""Reading PNG, TIFF, JPEG and BMP files as (C, H, W) pixels without loss, their headers first."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from raysweep.data.pack_format import IMAGE_DTYPES, Bucket
from raysweep.errors import PackError

Array = npt.NDArray[Any]

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    IndexError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
    tifffile.TiffFileError,
)
_MODES = {
    "1": (1, "uint8"),
    "L": (1, "uint8"),
    "I;16": (1, "uint16"),
    "I;16B": (1, "uint16"),
    "I": (1, "int32"),
    "F": (1, "float32"),
    "RGB": (3, "uint8"),
}
"""Pillow mode -> channels and pixel type; other modes hold palettes, transparency or print colours."""

_GREY_IN_COLOUR = ("RGB", "RGBA", "LA", "P")
"""Modes that some releases store grey images in; their grey levels are taken if every pixel is grey and opaque."""


def read_header(path: Path, as_grey: bool = False) -> Bucket:
    """Return an image's size, channels (1 grey, 3 colour) and pixel type without reading its pixels.

    Args:
        path: The image.
        as_grey: Whether it is a grey image even where its file has colour channels, palette or transparency.

    Raises:
        PackError: if it cannot be read, or not without loss.
    """
    try:
        if _is_tiff(path):
            bucket = _tiff_header(path)
            return Bucket(1, bucket.height, bucket.width, bucket.dtype) if as_grey else bucket
        with _open(path) as image:
            channels, dtype = (1, "uint8") if as_grey and image.mode in _GREY_IN_COLOUR else _form(path, image)
            return Bucket(channels, image.height, image.width, dtype)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_pixels(path: Path, as_grey: bool = False) -> Array:
    """Return an image, (C, H, W), in its own pixel type; see :func:`read_header`.

    Raises:
        PackError: if it cannot be read, not without loss, or holds NaN or infinite values.
    """
    try:
        array = _grey_pixels(path) if as_grey else _stored_pixels(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array).all(axis=0))[0]
        raise PackError(f"{path} has a value that is not finite at row {row}, column {column}; repair or remove it")
    return array


def read_labels(path: Path) -> Array:
    """Return a mask's stored numbers, (H, W) integers; of a palette image its indices.

    Raises:
        PackError: if it cannot be read, or its channels differ.
    """
    try:
        if _is_tiff(path):
            array = _tiff_pixels(path)
        else:
            with _open(path) as image:
                array = np.asarray(image)[None] if image.mode == "P" else _pillow_pixels(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if (array != array[:1]).any():
        raise PackError(f"{path} is a colour image; a mask holds one number a pixel, the class. Convert its colours.")
    if array.dtype.kind == "f":
        raise PackError(f"{path} holds {array.dtype} pixels; a mask holds integers, the classes")
    labels: Array = array[0]
    return labels


def read_binary(path: Path) -> npt.NDArray[np.bool_]:
    """Return where a mask of black and white, in whatever mode it is stored, is white, (H, W).

    Raises:
        PackError: if it cannot be read, or holds other levels than black and one more.
    """
    grey = read_pixels(path, as_grey=True)[0]
    levels = np.unique(grey)
    if len(levels) > 2 or (len(levels) == 2 and levels[0] != 0):
        raise PackError(f"{path} holds the levels {levels[:8].tolist()}; a mask of one structure holds 0 and one more")
    inside: npt.NDArray[np.bool_] = grey > 0
    return inside


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _open(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # whole-slide sized images are legitimate
        return Image.open(path)


def _form(path: Path, image: Image.Image) -> tuple[int, str]:
    if path.suffix.lower() == ".png" and image.mode in ("RGB", "RGBA", "LA") and _png_bits(path) == 16:
        raise PackError(f"{path} is a PNG of 16 bits a channel, which would lose 8 of them; convert it to TIFF")
    if image.mode not in _MODES:
        raise PackError(
            f"{path} has the pixel mode {image.mode!r}; allowed are grey and RGB images without palette or "
            f"transparency ({', '.join(_MODES)}). Convert it, for example to RGB."
        )
    return _MODES[image.mode]


def _png_bits(path: Path) -> int:
    with path.open("rb") as stream:
        return stream.read(25)[24]  # IHDR, the first chunk, holds the bit depth there


def _pillow_pixels(path: Path) -> Array:
    with _open(path) as image:
        channels, dtype = _form(path, image)
        array = np.asarray(image).astype(dtype)
    return np.moveaxis(array, -1, 0) if channels == 3 else array[None]


def _stored_pixels(path: Path) -> Array:
    return _tiff_pixels(path) if _is_tiff(path) else _pillow_pixels(path)


def _grey_pixels(path: Path) -> Array:
    """Return the one channel of an image whose colours are all grey and opaque."""
    if _is_tiff(path):
        array = _tiff_pixels(path)
    else:
        with _open(path) as image:
            if image.mode not in _GREY_IN_COLOUR:
                return _pillow_pixels(path)
            if _png_bits(path) == 16 and path.suffix.lower() == ".png":
                _form(path, image)
            array = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
        if (array[3] != 255).any():
            raise PackError(f"{path} is transparent in places, so that its grey levels are not known; flatten it")
        array = array[:3]
    if (array != array[:1]).any():
        raise PackError(f"{path} has colours where a grey image is expected; convert it, or remove it")
    return array[:1]


def _tiff_header(path: Path) -> Bucket:
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise PackError(f"{path} has {len(file.pages)} pages; one image a file can be packed")
        page: Any = file.pages[0]
        shape, dtype = page.shape, np.dtype(page.dtype).newbyteorder("=").name
    if len(shape) == 3 and 3 in (shape[0], shape[-1]):
        height, width = shape[:2] if shape[-1] == 3 else shape[1:]
        bucket = Bucket(3, height, width, dtype)
    elif len(shape) == 2:
        bucket = Bucket(1, shape[0], shape[1], dtype)
    else:
        raise PackError(f"{path} has the shape {shape}; allowed are (H, W), (H, W, 3) and (3, H, W)")
    if dtype not in IMAGE_DTYPES:
        raise PackError(f"{path} has pixels of type {dtype}; allowed are {', '.join(IMAGE_DTYPES)}")
    return bucket


def _tiff_pixels(path: Path) -> Array:
    bucket = _tiff_header(path)
    try:
        array = tifffile.imread(path)
    except ValueError:  # a compression that tifffile leaves to others; Pillow reads the common ones
        return _pillow_pixels(path)
    array = np.asarray(array, array.dtype.newbyteorder("="))
    if bucket.channels == 3 and array.shape[-1] == 3:
        return np.moveaxis(array, -1, 0)
    return array.reshape(bucket.channels, bucket.height, bucket.width)


def _unreadable(path: Path, error: BaseException) -> PackError:
    return PackError(f"{path} cannot be read as an image: {error}. It is truncated, corrupt or not an image.")


def write_png(path: Path, array: Array) -> None:
    """Write an 8-bit image, (H, W) grey or (H, W, 3) RGB."""
    Image.fromarray(array).save(path)
