"""What is announced of a pack and of each slice before any pixel is read, and the pixels that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import (
    IMAGE_DTYPES,
    LABEL_KINDS,
    LABEL_SCOPES,
    MASK_ENCODINGS,
    SPLITS,
    Bucket,
    LabelKind,
    LabelScope,
    MaskEncoding,
)
from raysweep.errors import PackError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PackHeader:
    """What a pack says about itself; see :mod:`raysweep.data.pack_format` for the meaning of each."""

    dataset: str
    recipe: int
    options: Mapping[str, Any]
    label_names: tuple[str, ...] = ()
    label_kind: LabelKind = "multi-label"
    label_scopes: tuple[LabelScope, ...] = ()
    """One for each label; none at all: every label belongs to its slice."""
    mask_encoding: MaskEncoding = "index"
    ignore_label: int | None = None
    split_rule: str = ""
    """How slices came into their splits, in words."""

    @property
    def scopes(self) -> tuple[LabelScope, ...]:
        """One scope for each label."""
        return self.label_scopes or tuple("slice" for _ in self.label_names)


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What is known of a slice before its pixels are read; see :class:`raysweep.data.pack.PackIndex`."""

    bucket: Bucket
    subject: str
    volume: str
    split: str
    has_mask: bool
    annotated: bool
    frame: int = -1
    slice_number: int = 0
    spacing_mm: tuple[float, float] = (math.nan, math.nan)
    labels: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SlicePixels:
    """One slice, (C, H, W) or (H, W), its mask (H, W) uint8, and two percentiles of its 3-D image.

    The percentiles are one number for all channels, or one for each where channels have scales of their own.
    """

    image: Array
    mask: npt.NDArray[np.uint8] | None
    intensity_low: float | Sequence[float]
    intensity_high: float | Sequence[float]


def check_header(header: PackHeader) -> None:
    """Check what a pack says about itself.

    Raises:
        PackError: if a value is not one that packs know, or labels and scopes differ in number.
    """
    known = header.label_kind in LABEL_KINDS and header.mask_encoding in MASK_ENCODINGS
    if not known or not set(header.scopes) <= set(LABEL_SCOPES) or len(header.scopes) != len(header.label_names):
        raise PackError(
            f"{header.dataset} announces labels {header.label_kind!r} with scopes {header.scopes} for "
            f"{len(header.label_names)} names, and masks {header.mask_encoding!r}; allowed are "
            f"{', '.join(LABEL_KINDS)}; one of {', '.join(LABEL_SCOPES)} a label; {', '.join(MASK_ENCODINGS)}"
        )


def check_slices(slices: Sequence[SliceHeader], num_labels: int) -> None:
    """Check that slices can lie in one pack.

    Raises:
        PackError: if there are none, channels differ, labels are too few, or a subject is in two splits.
    """
    if not slices:
        raise PackError("there is nothing to pack: the data set has no slices")
    channels = sorted({one.bucket.channels for one in slices})
    if len(channels) > 1:
        raise PackError(f"slices have {channels} channels; all slices of a pack must have the same number")
    split_of: dict[str, str] = {}
    for one in slices:
        if one.split not in SPLITS or one.bucket.dtype not in IMAGE_DTYPES:
            raise PackError(
                f"{one.volume} has split {one.split!r} and pixel type {one.bucket.dtype!r}; allowed are "
                f"{', '.join(SPLITS)} and {', '.join(IMAGE_DTYPES)}"
            )
        if len(one.labels) != num_labels:
            raise PackError(f"{one.volume} has {len(one.labels)} labels; the pack names {num_labels}")
        if split_of.setdefault(one.subject, one.split) != one.split:
            raise PackError(
                f"subject {one.subject!r} is in the splits {split_of[one.subject]!r} and {one.split!r}: a "
                "model would be tested on what it was trained on. Put every subject into one split."
            )
