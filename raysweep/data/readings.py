"""Other ways to read a pack than raysweep's own: published studies scaled, cast and resized slices differently.

A pack holds what the files hold; what a study makes of it is a view. Each departure from the default is a named
setting, and so part of a stage's identity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack import Pack
from raysweep.data.pack_format import Bucket
from raysweep.settings import Reading

_EIGHT_BIT = np.float32(255.0)


def read_as(pack: Pack, reading: Reading) -> Pack:
    """Return a pack as a study reads it: itself, or a view with other intensities or sizes on the same file."""
    plain = reading.intensities == "percentiles" and reading.resize_px is None
    return pack if plain else _View(pack, reading)


class _View(Pack):
    """A pack whose pixels are cast, scaled or resized when they are read; rows, splits and labels are its own."""

    def __init__(self, source: Pack, reading: Reading) -> None:
        self.__dict__.update(source.__dict__)  # a view opens no file
        self._source = source
        self._reading = reading
        self.reading = reading.model_dump_json()
        index = source.index
        if reading.intensities != "percentiles":
            zero = np.zeros_like
            full = {"intensity_high": index.intensity_high, "channel_high": index.channel_high}
            self.index = replace(
                index,
                intensity_low=zero(index.intensity_low),
                channel_low=zero(index.channel_low),
                **{name: np.full_like(column, _EIGHT_BIT) for name, column in full.items()},
            )
        if reading.resize_px is not None:
            sides = np.array([[bucket.height, bucket.width] for bucket in source.buckets])[index.bucket]
            self.index = replace(
                self.index,
                bucket=np.zeros_like(index.bucket),
                spacing_mm=(index.spacing_mm * sides / reading.resize_px).astype(np.float32),
            )

        read = tuple(self._bucket(bucket) for bucket in source.buckets)
        self.buckets = read if reading.resize_px is None else read[:1]

    def _bucket(self, stored: Bucket) -> Bucket:
        """Return what slices of a bucket look like when they are read; resized ones share one bucket."""
        dtype = stored.dtype
        if self._reading.resize_px is not None:
            kinds = {bucket.dtype for bucket in self._source.buckets}
            dtype = dtype if len(kinds) == 1 else "float32"
            stored = replace(stored, height=self._reading.resize_px, width=self._reading.resize_px)
        return replace(stored, dtype="uint8" if self._reading.intensities == "wrapped" else dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _View, (self._source, self._reading)

    def image(self, row: int) -> npt.NDArray[Any]:
        """Return one slice, (C, H, W), cast and resized as the study reads it."""
        return self._read(self._source.image(row))

    def images(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return slices of one shape, (B, C, H, W): a copy."""
        if self._reading.resize_px is None:
            return self._read(self._source.images(rows))
        return np.stack([self.image(int(row)) for row in rows])

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Return the mask of one slice, (H, W) uint8, resized as its image."""
        resized: npt.NDArray[np.uint8] = self._resized(self._source.mask(row))
        return resized

    def masks(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return masks of slices of one shape, (B, H, W) uint8: a copy."""
        if self._reading.resize_px is None:
            return self._source.masks(rows)
        return np.stack([self.mask(int(row)) for row in rows])

    def _read(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Resized first, so that what is cast is as small as it gets; nearest neighbours make no new values.
        values = self._resized(values)
        if self._reading.intensities == "wrapped":
            return values.astype(np.int64).astype(np.uint8)
        return values.astype(self.buckets[0].dtype, copy=False) if len(self.buckets) == 1 else values

    def _resized(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return (..., S, S) nearest neighbours of (..., H, W), as OpenCV picks them: floor(i * H / S)."""
        side = self._reading.resize_px
        if side is None:
            return values
        height, width = values.shape[-2:]
        rows, columns = (np.arange(side) * length // side for length in (height, width))
        return values[..., rows[:, None], columns]
