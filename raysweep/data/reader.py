"""Batches of a pack's slices and masks, from the mapped file or from a copy on the training device.

Shapes: B batch, C channels, H and W of a slice (of the largest slice where they are resident), N slices of the pack.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysweep.data.pack import Pack
from raysweep.data.slices import MIN_RANGE, scaled_slices

_CHUNK = 256
RESIDENT_SHARE = 0.3
"""Share of the GPU memory that a stage may hold which resident packs may take."""


class SliceReader:
    """Reads from the mapped file; pages stay in the system's cache, which all processes of a node share."""

    device = torch.device("cpu")

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        sides = torch.tensor([(bucket.height, bucket.width) for bucket in pack.buckets])
        self._shapes = sides[torch.from_numpy(pack.index.bucket.astype(np.int64))]

    def shapes(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the height and width of each slice, (B, 2) int64 on the CPU."""
        return self._shapes[torch.from_numpy(rows)]

    def slices(self, rows: NDArray[np.int64]) -> Tensor | list[Tensor]:
        """Return slices scaled by their volume: (B, C, H, W) float32, or a list where shapes differ."""
        return scaled_slices(self.pack, rows)

    def masks(self, rows: NDArray[np.int64]) -> Tensor | list[Tensor]:
        """Return masks as the pack encodes them: (B, H, W) uint8, or a list where shapes differ."""
        if len(np.unique(self.pack.index.bucket[rows])) == 1:
            return torch.from_numpy(self.pack.masks(rows))
        return [torch.from_numpy(self.pack.mask(int(row)).copy()) for row in rows]


class ResidentReader(SliceReader):
    """Holds all slices of a pack on a device, each in the top left corner of a canvas of the largest height and width.

    Batches are gathered and scaled there, so that a step copies nothing but row numbers; values are those of
    :class:`SliceReader`, bit for bit. Crops never reach beyond their slice, so the canvas is never seen.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        super().__init__(pack)
        self.device = device
        index = pack.index
        self._pixels = _upload(len(pack), pack.num_channels, pack, device)
        self._low = torch.from_numpy(index.channel_low).to(device)[:, :, None, None]
        extent = np.maximum(index.channel_high - index.channel_low, np.float32(MIN_RANGE))
        self._range = torch.from_numpy(extent).to(device)[:, :, None, None]
        masked = np.flatnonzero(index.mask_position >= 0)
        self._mask_row = torch.full((len(pack),), -1, dtype=torch.int64)
        self._mask_row[torch.from_numpy(masked)] = torch.arange(len(masked))
        self._masks = torch.zeros(len(masked), *_canvas(pack), dtype=torch.uint8, device=device)
        for position, row in enumerate(masked):
            mask = torch.from_numpy(pack.mask(int(row)).copy())
            self._masks[position, : mask.shape[0], : mask.shape[1]] = mask.to(device)

    def slices(self, rows: NDArray[np.int64]) -> Tensor:
        """Return slices scaled by their volume, (B, C, H, W) float32 on the device, padded to one shape."""
        chosen = torch.from_numpy(rows).to(self.device, non_blocking=True)
        values = self._pixels.index_select(0, chosen)
        if self._pixels.dtype is torch.int16 and self.pack.buckets[0].dtype == "uint16":
            values = values.int().bitwise_and_(0xFFFF)  # uint16, kept as the type that every device can gather
        return values.float().sub_(self._low[chosen]).div_(self._range[chosen])

    def masks(self, rows: NDArray[np.int64]) -> Tensor:
        """Return masks as the pack encodes them, (B, H, W) uint8 on the device, padded to one shape.

        Raises:
            PackError: if a slice has none.
        """
        for row in rows[self._mask_row[torch.from_numpy(rows)].numpy() < 0]:
            self.pack.mask(int(row))  # which says so
        return self._masks.index_select(0, self._mask_row[torch.from_numpy(rows)].to(self.device, non_blocking=True))


def resident_bytes(pack: Pack) -> int:
    """Return the memory that a resident pack takes."""
    height, width = _canvas(pack)
    num_masks = int((pack.index.mask_position >= 0).sum())
    item = torch.empty(0, dtype=_device_dtype(pack)).element_size()
    return height * width * (len(pack) * pack.num_channels * item + num_masks)


_resident: dict[tuple[str, str, str], ResidentReader] = {}


def open_reader(pack: Pack, device: torch.device, memory_bytes: int) -> SliceReader:
    """Return a reader of a pack: resident on a GPU if it fits, from the file otherwise and on a CPU.

    Resident packs are kept for the next stages of the process, and given up for one that needs their place.

    Args:
        pack: the pack.
        device: where batches are needed.
        memory_bytes: GPU memory that the stage may hold, for all purposes.
    """
    return SliceReader(pack) if device.type == "cpu" else resident_or_mapped(pack, device, memory_bytes)


def resident_or_mapped(pack: Pack, device: torch.device, memory_bytes: int) -> SliceReader:
    """Do what ``open_reader`` does on a GPU, on any device."""
    limit = math.floor(memory_bytes * RESIDENT_SHARE)
    needed, key = resident_bytes(pack), (pack.digest, pack.reading, str(device))
    others = sum(resident_bytes(held.pack) for name, held in _resident.items() if name != key)
    if others + needed > limit:  # the limit may be less than that of the stage before
        known = _resident.pop(key, None)
        _resident.clear()
        if needed > limit:
            return SliceReader(pack)
        if known is not None:
            _resident[key] = known
    if key not in _resident:
        _resident[key] = ResidentReader(pack, device)
    return _resident[key]


def _canvas(pack: Pack) -> tuple[int, int]:
    return max(bucket.height for bucket in pack.buckets), max(bucket.width for bucket in pack.buckets)


def _device_dtype(pack: Pack) -> torch.dtype:
    """Return the type to keep pixels in: the stored one where a device can gather it, float32 otherwise."""
    kinds = {bucket.dtype for bucket in pack.buckets}
    known = {"uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "uint16": torch.int16}
    return known.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


def _upload(num: int, channels: int, pack: Pack, device: torch.device) -> Tensor:
    """Return all slices in stored units on a device, in chunks, so that no copy of the pack is made on the way."""
    dtype = _device_dtype(pack)
    pixels = torch.zeros(num, channels, *_canvas(pack), dtype=dtype, device=device)
    for code, bucket in enumerate(pack.buckets):
        rows = np.flatnonzero(pack.index.bucket == code)
        for first in range(0, len(rows), _CHUNK):
            part = rows[first : first + _CHUNK]
            stored = pack.images(part)
            values = stored.view(np.int16) if dtype is torch.int16 else stored.astype(_numpy(dtype))
            place = torch.from_numpy(part).to(device)
            pixels[place, :, : bucket.height, : bucket.width] = torch.from_numpy(values).to(device)
    return pixels


def _numpy(dtype: torch.dtype) -> np.dtype[np.generic]:
    return torch.empty(0, dtype=dtype).numpy().dtype
