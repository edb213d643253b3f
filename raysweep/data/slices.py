"""From pack rows to tensors: intensities scaled to [0, 1] by their volume, and normalised as the encoder expects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysweep.data.pack import Pack
from raysweep.settings import Normalisation

MIN_RANGE = 1e-6
"""Smallest distance of the two percentiles that slices are scaled by."""


def scaled_slice(pack: Pack, row: int) -> Tensor:
    """Return one slice, (C, H, W) float32: its volume's 0.5 and 99.5 intensity percentiles at 0 and 1, not clipped.

    Channels that have scales of their own (several modalities) are scaled one by one.
    """
    low, high = pack.index.channel_low[row][:, None, None], pack.index.channel_high[row][:, None, None]
    values = pack.image(row).astype(np.float32)
    values -= low
    values /= np.maximum(high - low, np.float32(MIN_RANGE))
    return torch.from_numpy(values)


def scaled_slices(pack: Pack, rows: NDArray[np.int64]) -> Tensor | list[Tensor]:
    """Return the same for several rows: one tensor (B, C, H, W) where they share shape and pixel type, else a list.

    Slices that are stored together are copied, converted and scaled as one array.
    """
    if len(np.unique(pack.index.bucket[rows])) > 1:
        return [scaled_slice(pack, int(row)) for row in rows]
    return scaled_batch(pack, rows)


def scaled_batch(pack: Pack, rows: NDArray[np.int64]) -> Tensor:
    """Return several slices of one shape and pixel type, (B, C, H, W) float32, scaled as ``scaled_slice`` does.

    Raises:
        PackError: if they are not all in one bucket.
    """
    index = pack.index
    values = pack.images(rows).astype(np.float32)
    low, high = index.channel_low[rows][:, :, None, None], index.channel_high[rows][:, :, None, None]
    values -= low
    values /= np.maximum(high - low, np.float32(MIN_RANGE))
    return torch.from_numpy(values)


def shapes_of(pack: Pack, rows: NDArray[np.int64]) -> Tensor:
    """Return the height and width of each slice, (B, 2) int64."""
    return torch.tensor([pack.shape(int(row)) for row in rows])


def relative_positions(pack: Pack, rows: NDArray[np.int64]) -> Tensor:
    """Return how far along its volume each slice lies, (B,) float32: (slice number + 1/2) / slices of the volume."""
    volumes, codes = np.unique(pack.index.volume, return_inverse=True)
    counts = np.zeros(len(volumes), np.int64)
    np.maximum.at(counts, codes, pack.index.slice_number.astype(np.int64) + 1)
    positions = (pack.index.slice_number[rows] + 0.5) / counts[codes[rows]]
    return torch.from_numpy(positions.astype(np.float32))


def mask_of(pack: Pack, row: int) -> Tensor:
    """Return the mask of one slice, (H, W) int64."""
    return torch.from_numpy(pack.mask(row).astype(np.int64))


def normalised(slices: Tensor, normalisation: Normalisation) -> Tensor:
    """Return scaled slices as the encoder expects them, in channels_last memory order."""
    values = (slices - _by_channel(normalisation.mean, slices)) / _by_channel(normalisation.std, slices)
    return values.contiguous(memory_format=torch.channels_last)


def _by_channel(value: float | tuple[float, ...], slices: Tensor) -> float | Tensor:
    """Return a statistic as it broadcasts over (B, C, H, W)."""
    return (
        value
        if isinstance(value, float)
        else torch.tensor(value).to(slices.device, non_blocking=True).view(1, -1, 1, 1)
    )


def same_shape_batches(pack: Pack, rows: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows in batches whose slices share one shape, so that whole slices can be stacked at native resolution."""
    buckets = pack.index.bucket[rows]
    for bucket in np.unique(buckets):
        members = rows[buckets == bucket]
        for first in range(0, len(members), batch_size):
            yield members[first : first + batch_size]
