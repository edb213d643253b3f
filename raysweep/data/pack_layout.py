"""Where everything lies in a pack file: exact contiguous buckets, allocated before any pixel is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.pack_slices import SliceHeader
from raysweep.errors import PackError

Array = npt.NDArray[Any]

_ALIGNMENT_BYTES = 64
_MAX_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps attributes in the object header, which ends at 64 KiB


@dataclass(frozen=True)
class Slots:
    """Byte offsets in a pack file of the image and the mask of consecutive rows; -1 where a row has no mask."""

    image: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]


class PackLayout:
    """The place of every slice, from the slices' headers alone: equal headers, equal places."""

    def __init__(self, slices: Sequence[SliceHeader]) -> None:
        self._slices = slices
        images: Counter[str] = Counter()
        masks: Counter[str] = Counter()
        self.position = np.empty(len(slices), np.int64)
        self.mask_position = np.full(len(slices), -1, np.int64)
        for row, one in enumerate(slices):
            self.position[row] = images[one.bucket.name]
            images[one.bucket.name] += 1
            if one.has_mask:
                self.mask_position[row] = masks[one.bucket.mask_name]
                masks[one.bucket.mask_name] += 1
        self._buckets = {one.bucket.name: one.bucket for one in slices}
        self._num_images, self._num_masks = images, masks
        self.bucket_names = sorted(self._buckets)
        self.offsets: dict[str, int] = {}

    def allocate(self, path: Path) -> None:
        """Write a file that has room for all pixels, and note where: pixels can then be written beside HDF5."""
        self.offsets = {}
        with open_for_writing(path, "w") as file:
            for name in self.bucket_names:
                bucket = self._buckets[name]
                channels = () if bucket.channels == 1 else (bucket.channels,)
                shape = (self._num_images[name], *channels, bucket.height, bucket.width)
                self.offsets[name] = _allocate(file, f"images/{name}", shape, bucket.dtype)
            file.create_group("masks")
            for name in sorted(self._num_masks):
                height, width = map(int, name.split("x"))
                self.offsets[name] = _allocate(file, f"masks/{name}", (self._num_masks[name], height, width), "uint8")

    def locate(self, path: Path) -> None:
        """Note where the pixels lie in a file that :meth:`allocate` wrote for equal slices."""
        with h5py.File(path, "r", locking=False) as file:
            names = {name: f"images/{name}" for name in self.bucket_names}
            names |= {name: f"masks/{name}" for name in self._num_masks}
            self.offsets = {name: file[full].id.get_offset() for name, full in names.items()}

    def slots(self, start: int, stop: int) -> Slots:
        """Return the places of the rows from ``start`` up to ``stop``."""
        image = np.empty(stop - start, np.int64)
        mask = np.full(stop - start, -1, np.int64)
        for number, row in enumerate(range(start, stop)):
            bucket = self._slices[row].bucket
            image[number] = self.offsets[bucket.name] + self.position[row] * bucket.num_bytes
            if self.mask_position[row] >= 0:
                size = bucket.height * bucket.width
                mask[number] = self.offsets[bucket.mask_name] + self.mask_position[row] * size
        return Slots(image, mask)

    def extents(self) -> list[tuple[int, int]]:
        """Return (offset, bytes) of every block of pixels."""
        found = [
            (self.offsets[name], self._num_images[name] * self._buckets[name].num_bytes) for name in self.bucket_names
        ]
        for name, count in self._num_masks.items():
            found.append((self.offsets[name], count * math.prod(map(int, name.split("x")))))
        return found


def open_for_writing(path: Path, mode: str) -> h5py.File:
    """Open a pack file to lay it out or to complete it; equal steps give equal bytes."""
    return h5py.File(
        path, mode, libver=("earliest", "v110"), alignment_threshold=1, alignment_interval=_ALIGNMENT_BYTES
    )


def set_text(file: h5py.File, name: str, text: str) -> None:
    """Write a root attribute.

    Raises:
        PackError: if the text is longer than a pack can hold.
    """
    encoded = text.encode()
    if len(encoded) > _MAX_ATTRIBUTE_BYTES:
        raise PackError(f"{name} takes {len(encoded)} bytes of text; a pack holds {_MAX_ATTRIBUTE_BYTES}")
    file.attrs.create(name, np.bytes_(encoded), dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> int:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    group, _, leaf = name.partition("/")
    created = h5py.h5d.create(file.require_group(group).id, leaf.encode(), kind, space, plist)
    return int(h5py.Dataset(created).id.get_offset())
