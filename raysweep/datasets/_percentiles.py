"""Percentiles of images too large to hold: exact, from counts of values, two passes over the parts at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.datasets._survey import INTENSITY_PERCENTILES, intensity_range

Array = npt.NDArray[Any]

_BINS = 1 << 16


def streamed_range(read: Callable[[], Iterable[Array]]) -> tuple[float, float]:
    """Return what ``intensity_range`` returns of all parts together, holding one of them at a time.

    Args:
        read: Reads the parts, all of one pixel type; called once, or twice for types of 32 bits.

    Pixel types of 64 bits are held together: nothing smaller stands for them.
    """
    counts = np.zeros(_BINS, np.int64)
    low: Any = None
    high: Any = None
    wide: list[Array] = []
    kind = np.dtype(np.uint8)
    for part in read():
        kind = part.dtype
        if kind.itemsize > 4:
            wide.append(part.ravel())
            continue
        counts += np.bincount(_high_half(_keys(part)), minlength=_BINS)
        low = part.min() if low is None else min(low, part.min())
        high = part.max() if high is None else max(high, part.max())
    if wide:
        return intensity_range(np.concatenate(wide))
    places = np.array(INTENSITY_PERCENTILES) / 100 * (int(counts.sum()) - 1)
    ranks = np.stack([np.floor(places), np.ceil(places)]).astype(np.int64)
    values = _values_at(ranks.ravel(), counts, kind, read).astype(np.float64).reshape(ranks.shape)
    first, last = (values[0] + (values[1] - values[0]) * (places - ranks[0])).astype(np.float32)
    if not last > first:
        first, last = np.float32(low), np.float32(high)
    return float(first), float(last)


def _values_at(ranks: Array, counts: Array, kind: np.dtype[Any], read: Callable[[], Iterable[Array]]) -> Array:
    """Return the values at places of the sorted pixels, from the counts of their keys' upper halves."""
    ends = np.cumsum(counts)
    upper = np.searchsorted(ends, ranks, side="right")
    if kind.itemsize <= 2 and kind.kind != "f":
        return _from_keys(upper.astype(np.uint32) << 16, kind)
    inner = ranks - (ends[upper] - counts[upper])
    finer = {one: np.zeros(_BINS, np.int64) for one in set(upper.tolist())}
    for part in read():
        keys = _keys(part)
        for one, numbers in finer.items():
            numbers += np.bincount(keys[_high_half(keys) == one] & (_BINS - 1), minlength=_BINS)
    lower = [int(np.searchsorted(np.cumsum(finer[one]), rank, side="right")) for one, rank in _pairs(upper, inner)]
    return _from_keys((upper.astype(np.uint32) << 16) | np.array(lower, np.uint32), kind)


def _pairs(upper: Array, inner: Array) -> Sequence[tuple[int, int]]:
    return list(zip(upper.tolist(), inner.tolist(), strict=True))


def _high_half(keys: Array) -> Array:
    half: Array = (keys >> 16).astype(np.int64).ravel()
    return half


def _keys(part: Array) -> Array:
    """Return unsigned 32-bit keys in the order of the pixels' values; of 16 bits and fewer in the upper half."""
    flat = np.ascontiguousarray(part).ravel()
    if flat.dtype.kind == "f":
        bits = flat.astype(np.float32).view(np.uint32)
        return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    if flat.dtype.itemsize <= 2:
        return (flat.astype(np.int32) + (_BINS // 2 if flat.dtype.kind == "i" else 0)).astype(np.uint32) << 16
    signed = flat.dtype.kind == "i"
    return (flat.astype(np.int64) + ((1 << 31) if signed else 0)).astype(np.uint32)


def _from_keys(keys: Array, kind: np.dtype[Any]) -> Array:
    if kind.kind == "f":
        bits = np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys).astype(np.uint32)
        return bits.view(np.float32)
    if kind.itemsize <= 2:
        return (keys >> 16).astype(np.int64) - (_BINS // 2 if kind.kind == "i" else 0)
    return keys.astype(np.int64) - ((1 << 31) if kind.kind == "i" else 0)
