"""Storing slices at their places in a pack file, and what is learnt of each on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.duplicates import content_of
from raysweep.data.moments import Moments
from raysweep.data.pack_format import IGNORE_LABEL, MAX_BITS, Bucket
from raysweep.data.pack_layout import Slots
from raysweep.data.pack_slices import SliceHeader, SlicePixels
from raysweep.errors import PackError

Array = npt.NDArray[Any]


_MOMENTS = ("count", "mean", "squared_deviations", "min", "max")
_STEP = 4096


def facts_dtype(num_channels: int) -> np.dtype[Any]:
    """Return the record of what is learnt of one slice while it is stored."""
    return np.dtype(
        [
            ("low", "<f4", (num_channels,)),
            ("high", "<f4", (num_channels,)),
            ("count", "<i8"),
            ("mean", "<f8"),
            ("squared_deviations", "<f8"),
            ("min", "<f8"),
            ("max", "<f8"),
            ("content", "<u8", (2,)),
            ("labels_seen", "u1", (32,)),
            ("is_stored", "u1"),
        ]
    )


def store_slices(
    path: Path, slices: Sequence[SliceHeader], slots: Slots, pixels: Iterable[SlicePixels], mask_encoding: str
) -> Array:
    """Write slices to their places in a pack file, one at a time, and return their facts; any process may.

    Raises:
        PackError: if a slice does not fit its header, or there are more or fewer.
    """
    facts = np.zeros(len(slices), facts_dtype(slices[0].bucket.channels))
    descriptor = os.open(path, os.O_WRONLY)
    try:
        number = -1
        for number, one in enumerate(pixels):
            if number < len(slices):
                image = _checked_image(slices[number], one)
                _write(descriptor, image, int(slots.image[number]))
                if one.mask is not None:
                    facts["labels_seen"][number] = _seen(slices[number], one.mask, mask_encoding)
                    _write(descriptor, one.mask, int(slots.mask[number]))
                _note(facts[number], image, one)
    finally:
        os.close(descriptor)
    if number + 1 != len(slices):
        raise PackError(
            f"{slices[0].volume}: {number + 1} of {len(slices)} slices were read: the file changed meanwhile"
        )
    return facts


def moments_of(facts: Array, chosen: npt.NDArray[np.bool_]) -> Moments:
    """Return the moments of the pixels of the chosen slices, merged in their order."""
    merged = Moments()
    rows = np.flatnonzero(chosen)
    for first in range(0, len(rows), _STEP):  # Python's numbers take many times the memory of the records
        for one in facts[rows[first : first + _STEP]][list(_MOMENTS)].tolist():
            merged = merged.merge(Moments(*one))
    return merged


def labels_seen(facts: Array) -> npt.NDArray[np.bool_]:
    """Return which of the 256 mask values occur."""
    return np.unpackbits(np.bitwise_or.reduce(facts["labels_seen"], axis=0)).astype(bool)


def _checked_image(header: SliceHeader, one: SlicePixels) -> Array:
    """Return the image as (C, H, W) if it is what its header announced."""
    image = one.image.reshape(-1, *one.image.shape[-2:])
    channels, height, width = image.shape
    found = Bucket(channels, height, width, image.dtype.name)
    if found != header.bucket or (one.mask is not None) != header.has_mask:
        raise PackError(
            f"{header.volume}, frame {header.frame}, slice {header.slice_number} was announced as "
            f"{header.bucket.name} and read as {found.name}: its file changed meanwhile, or its header is wrong"
        )
    if one.mask is not None and (one.mask.shape != (height, width) or one.mask.dtype != np.uint8):
        raise PackError(
            f"{header.volume} has a mask {one.mask.shape} of {one.mask.dtype} for an image "
            f"{height} x {width}; a mask has the image's size and holds uint8 class indices"
        )
    return image


def _seen(header: SliceHeader, mask: npt.NDArray[np.uint8], mask_encoding: str) -> Array:
    counted = np.bincount(mask.ravel(), minlength=256) > 0
    if mask_encoding == "bits" and counted[1 << MAX_BITS : IGNORE_LABEL].any():
        raise PackError(f"{header.volume} sets bit {MAX_BITS} in its mask; bits 0 to {MAX_BITS - 1} are for structures")
    return np.packbits(counted)


def _note(facts: Any, image: Array, one: SlicePixels) -> None:
    moments = Moments.of(image)
    facts["low"], facts["high"] = one.intensity_low, one.intensity_high
    for name in _MOMENTS:
        facts[name] = getattr(moments, name)
    facts["content"] = content_of(image)
    facts["is_stored"] = 1


def _write(descriptor: int, array: Array, offset: int) -> None:
    left = memoryview(np.ascontiguousarray(array).data).cast("B")
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
