"""What a pack file looks like, for its reader and its writer: names, columns, dtypes, digest.

One HDF5 file::

    /images/<bucket>    (N, H, W) or (N, C, H, W), native dtype, contiguous;
                        a bucket is called '256x216_uint16', or '3x256x216_uint8' with three channels
    /masks/<H>x<W>      (N, H, W) uint8, contiguous; only slices that have a mask; see MASK_ENCODINGS
    /index/<column>     one row a slice, see COLUMNS
    attributes          text, see ATTRIBUTES

Version 2 added what DEFAULTS_BEFORE_2 lists, the columns of ADDED_IN_2 and label vectors that tell an uncertain label
(UNCERTAIN) from an unknown one (NaN). Version 1 is still read, the additions having the values they then meant.

Strings are fixed-length UTF-8 bytes and there are no object types: reading a pack executes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np

FORMAT = "raysweep-pack"
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
SPLITS = ("train", "val", "test")

IGNORE_LABEL = 255
"""Mask value of pixels that neither train nor score, in either encoding, where ``ignore_label`` is 255."""
UNCERTAIN = -1.0
"""Value in a label vector: the annotator was not sure. NaN: nothing is known."""

MaskEncoding = Literal["index", "bits"]
MASK_ENCODINGS: tuple[MaskEncoding, ...] = ("index", "bits")
"""index: a pixel holds the index of its one class. bits: structures overlap; bit k is set where class k + 1 is."""
MAX_BITS = 7
"""Structures that bits can hold: with all eight bits set a pixel would look like IGNORE_LABEL."""

LabelKind = Literal["multi-label", "multi-class"]
LABEL_KINDS: tuple[LabelKind, ...] = ("multi-label", "multi-class")
"""multi-label: any number of labels are 1. multi-class: exactly one is, or all are NaN."""

LabelScope = Literal["slice", "volume", "subject"]
LABEL_SCOPES: tuple[LabelScope, ...] = ("slice", "volume", "subject")
"""What a label was given to; all slices of that carry the same value."""

IMAGE_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
"""Pixel types a pack can hold."""

COLUMNS: dict[str, tuple[str, int]] = {
    "bucket": ("i", 1),
    "position": ("i", 1),
    "mask_position": ("i", 1),
    "subject": ("S", 1),
    "volume": ("S", 1),
    "frame": ("i", 1),
    "slice_number": ("i", 1),
    "split": ("S", 1),
    "annotated": ("u", 1),
    "spacing_mm": ("f", 2),
    "intensity_low": ("f", 1),
    "intensity_high": ("f", 1),
    "labels": ("f", 2),
    "channel_low": ("f", 2),
    "channel_high": ("f", 2),
    "content": ("u", 2),
}
"""Index column -> (numpy kind, dimensions). ``bucket`` counts the names under /images in sorted order."""
ADDED_IN_2 = ("channel_low", "channel_high", "content")
"""Columns that version 1 lacks."""

ATTRIBUTES = (
    "format",
    "schema_version",
    "dataset",
    "recipe",
    "options",
    "class_names",
    "label_names",
    "intensity",
    "label_kind",
    "label_scopes",
    "mask_encoding",
    "ignore_label",
    "split_rule",
    "digest",
)
"""Text attributes of the root group; all but format, dataset and digest hold JSON."""

DEFAULTS_BEFORE_2: dict[str, Any] = {
    "label_kind": "multi-class",
    "label_scopes": None,
    "mask_encoding": "index",
    "ignore_label": None,
    "split_rule": "",
}
"""Attribute that version 1 lacks -> the value it stands for; label scopes are then 'subject' throughout."""

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shape and pixel type that slices stored together share."""

    channels: int
    height: int
    width: int
    dtype: str

    @property
    def name(self) -> str:
        """The bucket's name under /images, such as '256x216_uint16'."""
        channels = "" if self.channels == 1 else f"{self.channels}x"
        return f"{channels}{self.height}x{self.width}_{self.dtype}"

    @property
    def mask_name(self) -> str:
        """The name under /masks of the masks of this bucket's slices."""
        return f"{self.height}x{self.width}"

    @property
    def num_bytes(self) -> int:
        """Bytes of one slice."""
        return self.channels * self.height * self.width * np.dtype(self.dtype).itemsize

    @classmethod
    def parse(cls, name: str) -> Bucket:
        """Read a bucket's name.

        Raises:
            ValueError: if it is not one.
        """
        size, _, dtype = name.partition("_")
        numbers = [int(number) for number in size.split("x")]
        if dtype not in IMAGE_DTYPES or len(numbers) not in (2, 3) or min(numbers) < 1:
            raise ValueError(f"{name!r} is not a bucket name")
        channels = numbers[0] if len(numbers) == 3 else 1
        return cls(channels, numbers[-2], numbers[-1], dtype)


def content_digest(file: h5py.File) -> str:
    """Return ``sha256:<hex>`` over all datasets (name, dtype, shape, bytes) and attributes but the digest.

    It reads the whole file, in pieces, and does not depend on where HDF5 placed the bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(file.attrs):
        if name != "digest":
            _update(digest, "attribute", name, text_attribute(file, name))
    for group in sorted(file):
        for name in sorted(file[group]):
            dataset = file[group][name]
            _update(digest, "dataset", f"{group}/{name}", dataset.dtype.str, *map(str, dataset.shape))
            row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
            step = max(1, _CHUNK_BYTES // row_bytes)
            for start in range(0, dataset.shape[0], step):
                digest.update(dataset[start : start + step].tobytes())
    return f"sha256:{digest.hexdigest()}"


def text_attribute(file: h5py.File, name: str) -> str:
    """Return a root attribute that holds text.

    Raises:
        KeyError: if it is missing.
        ValueError: if it holds anything else.
    """
    value: Any = file.attrs[name]
    if not isinstance(value, bytes):
        raise ValueError(f"attribute {name!r} holds {type(value).__name__}, not text")
    return value.decode()


def _update(digest: Any, *texts: str) -> None:
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
