"""What a packer returns after looking at headers only: the slices there are, and how to read each file's pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import LabelKind, LabelScope, MaskEncoding
from raysweep.data.pack_slices import SliceHeader, SlicePixels

Array = npt.NDArray[Any]
NameClasses = Callable[[tuple[int, ...]], tuple[str, ...]]
Scan = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""``scan(function, arguments)`` returns ``function(*one)`` for each, in order, and uses all cores where that pays."""

INTENSITY_PERCENTILES = (0.5, 99.5)


class FileName(str):
    """A file's path as readings carry it: a quarter of a Path's memory, of which a large set has many."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One unit of reading: ``read(*arguments)`` yields the pixels of ``slices``, in their order.

    ``read`` is a module's own function and ``arguments`` are small values, both go to other processes; files among them
    are Paths or FileNames, so that a packing that continues sees whether they have changed. A reading that
    yields slices one at a time needs memory for one, whatever their number.
    """

    read: Callable[..., Iterable[SlicePixels]]
    arguments: tuple[Any, ...]
    slices: tuple[SliceHeader, ...]
    memory_bytes: int = 0
    """Largest amount of memory it takes, roughly; 0: four times its slices' pixels."""


@dataclass(frozen=True)
class Survey:
    """A data set before its pixels are read."""

    readings: Sequence[Reading]
    """All readings, in the order of the pack's rows."""
    class_names: tuple[str, ...] | NameClasses = ()
    """Names of the mask classes, background first; or a function of the labels that occur."""
    label_names: tuple[str, ...] = ()
    label_kind: LabelKind = "multi-label"
    label_scopes: LabelScope | tuple[LabelScope, ...] = "slice"
    """What labels were given to: one for all, or one for each."""
    mask_encoding: MaskEncoding = "index"
    ignore_label: int | None = None
    split_rule: str = ""
    """How slices came into their splits, in words."""

    @property
    def scopes(self) -> tuple[LabelScope, ...]:
        """One scope for each label."""
        if isinstance(self.label_scopes, tuple):
            return self.label_scopes
        return tuple(self.label_scopes for _ in self.label_names)


@dataclass(frozen=True)
class About:
    """What a user must know of a data set to pack it; the README's table is made of these."""

    data: str
    """What it holds."""
    access: str
    """How to get it."""
    layout: str
    """Files the packer expects, as the download has them."""
    splits: str
    """Where its splits come from."""


def intensity_range(image: Array) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of an image, or its extremes where those coincide."""
    low, high = np.percentile(image, INTENSITY_PERCENTILES).astype(np.float32)
    if not high > low:
        low, high = np.float32(image.min()), np.float32(image.max())
    return float(low), float(high)
