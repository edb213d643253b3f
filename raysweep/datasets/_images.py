"""Data sets of 2D image files: from a list of images to readings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import Bucket
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.datasets import _rasters
from raysweep.datasets._survey import FileName, Reading, Scan, intensity_range
from raysweep.errors import PackError

Mask = npt.NDArray[np.uint8]
ReadMask = Callable[..., Mask]
"""``read_mask(*arguments)`` returns the class indices of one image, (H, W); a module's own function."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One 2D image: where it is, whose, in which split, and what is known of it."""

    path: Path
    subject: str
    split: str
    volume: str
    labels: tuple[float, ...] = ()
    read_mask: ReadMask | None = None
    mask_arguments: tuple[Any, ...] = ()
    spacing_mm: tuple[float, float] = (math.nan, math.nan)
    frame: int = -1

    @property
    def is_annotated(self) -> bool:
        """Whether there is a mask or a known label."""
        return self.read_mask is not None or any(not math.isnan(value) for value in self.labels)


def image_readings(images: Sequence[ImageFile], scan: Scan, *, as_grey: bool = False) -> list[Reading]:
    """Return a reading for each image, in their order, from the headers of the files.

    Args:
        images: The images.
        scan: What looks at the headers.
        as_grey: Whether files with colour channels, palette or transparency hold grey images nevertheless.

    Raises:
        PackError: if a file cannot be read without loss, or some are grey and some are colour images.
    """
    buckets: list[Bucket] = scan(_rasters.read_header, [(one.path, as_grey) for one in images])
    _check_channels(images, buckets)
    shared = {bucket: bucket for bucket in buckets}
    return [
        Reading(
            _read,
            (FileName(one.path), as_grey, one.read_mask, tuple(map(_lean, one.mask_arguments))),
            (
                SliceHeader(
                    bucket=shared[bucket],
                    subject=one.subject,
                    volume=one.volume,
                    split=one.split,
                    has_mask=one.read_mask is not None,
                    annotated=one.is_annotated,
                    frame=one.frame,
                    spacing_mm=one.spacing_mm,
                    labels=one.labels,
                ),
            ),
        )
        for one, bucket in zip(images, buckets, strict=True)
    ]


def files_below(folder: Path, suffixes: Sequence[str] = _rasters.SUFFIXES) -> dict[str, Path]:
    """Return name -> path of every file with one of the endings below a folder, sorted by path.

    Raises:
        PackError: if two have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes:
            if path.name in found:
                raise PackError(f"{path} and {found[path.name]} have the same name: remove one")
            found[path.name] = path
    return found


def _check_channels(images: Sequence[ImageFile], buckets: Sequence[Bucket]) -> None:
    first: dict[int, Path] = {}
    for one, bucket in zip(images, buckets, strict=True):
        first.setdefault(bucket.channels, one.path)
    if len(first) > 1:
        named = " and ".join(f"{path} has {count} channel{'s' * (count > 1)}" for count, path in sorted(first.items()))
        raise PackError(f"{named}: all images of a pack must be grey, or all RGB. Convert one kind.")


def _lean(value: Any) -> Any:
    return FileName(value) if isinstance(value, Path) else value


def _read(
    name: FileName, as_grey: bool, read_mask: ReadMask | None, lean_arguments: tuple[Any, ...]
) -> Iterator[SlicePixels]:
    path = Path(name)
    mask_arguments = [Path(one) if isinstance(one, FileName) else one for one in lean_arguments]
    pixels = _rasters.read_pixels(path, as_grey)
    low, high = intensity_range(pixels)
    mask = None if read_mask is None else read_mask(*mask_arguments)
    if mask is not None and mask.shape != pixels.shape[1:]:
        named = next((str(one) for one in mask_arguments if isinstance(one, Path)), "its mask")
        raise PackError(
            f"{named} has {mask.shape[0]} x {mask.shape[1]} pixels, its image {path.name} "
            f"{pixels.shape[1]} x {pixels.shape[2]}"
        )
    yield SlicePixels(pixels, mask, low, high)
