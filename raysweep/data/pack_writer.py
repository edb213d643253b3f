"""Writing packs: exact contiguous buckets allocated first, slices streamed in, the file published at once."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.moments import Moments
from raysweep.data.pack_format import FORMAT, IMAGE_DTYPES, SCHEMA_VERSION, SPLITS, Bucket, content_digest
from raysweep.errors import PackError
from raysweep.identity import canonical_json

Array = npt.NDArray[Any]

_ALIGNMENT_BYTES = 64
_MAX_ATTRIBUTE_BYTES = 60_000  # HDF5 keeps attributes in the object header, which ends at 64 KiB


@dataclass(frozen=True)
class PackHeader:
    """What a pack says about itself: data set, recipe version, options, and the names of labels."""

    dataset: str
    recipe: int
    options: Mapping[str, Any]
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class SlicePixels:
    """One slice, (C, H, W) or (H, W), its mask (H, W) uint8, and two percentiles of its 3-D image."""

    image: Array
    mask: npt.NDArray[np.uint8] | None
    intensity_low: float
    intensity_high: float


def write_pack(
    out: Path,
    header: PackHeader,
    slices: Sequence[SliceHeader],
    pixels: Iterable[SlicePixels],
    name_classes: Callable[[tuple[int, ...]], tuple[str, ...]],
) -> None:
    """Write a pack and publish it under ``out`` in one step; until then no file has that name.

    Args:
        out: Path of the pack; an existing file is replaced.
        header: What the pack says about itself.
        slices: One header a slice, in the order of the rows.
        pixels: The pixels of the same slices in the same order, read one at a time.
        name_classes: Given the labels that occur in the masks, returns the class names, background first.

    Raises:
        PackError: if there are no slices, or a slice does not fit its header.
    """
    _check_slices(slices)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _PublishedFile(out) as partial:
        with h5py.File(
            partial,
            "w",
            libver=("earliest", "v110"),
            alignment_threshold=1,
            alignment_interval=_ALIGNMENT_BYTES,
        ) as file:
            writer = _SliceWriter(file, slices)
            for row, slice_pixels in enumerate(pixels):
                writer.write(row, slice_pixels)
            writer.finish(name_classes, header)
        with h5py.File(partial, "r+") as file:
            _set_text(file, "digest", content_digest(file))


class _PublishedFile:
    """A path beside ``out`` that becomes ``out`` when the block ends well, and vanishes when it does not."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._partial = out.with_name(f".{out.name}.{os.getpid()}.partial")

    def __enter__(self) -> Path:
        return self._partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._partial.unlink(missing_ok=True)
            return
        _synchronise(self._partial)
        self._partial.replace(self._out)
        _synchronise(self._out.parent)


class _SliceWriter:
    """Writes slices into their places and keeps what the index and the attributes need."""

    def __init__(self, file: h5py.File, slices: Sequence[SliceHeader]) -> None:
        self._file = file
        self._slices = slices
        self._names = sorted({one.bucket.name for one in slices})
        self._place()
        self._low = np.empty(len(slices), np.float32)
        self._high = np.empty(len(slices), np.float32)
        self._moments = {"train": Moments(), "all": Moments()}
        self._labels_seen = np.zeros(256, bool)
        self._written = 0

    def _place(self) -> None:
        images: Counter[str] = Counter()
        masks: Counter[str] = Counter()
        self._position = np.empty(len(self._slices), np.int64)
        self._mask_position = np.full(len(self._slices), -1, np.int64)
        for row, one in enumerate(self._slices):
            self._position[row] = images[one.bucket.name]
            images[one.bucket.name] += 1
            if one.has_mask:
                self._mask_position[row] = masks[one.bucket.mask_name]
                masks[one.bucket.mask_name] += 1
        buckets = {one.bucket.name: one.bucket for one in self._slices}
        self._images = {}
        for name in self._names:
            bucket = buckets[name]
            channels = () if bucket.channels == 1 else (bucket.channels,)
            shape = (images[name], *channels, bucket.height, bucket.width)
            self._images[name] = _allocate(self._file, f"images/{name}", shape, bucket.dtype)
        self._masks = {}
        self._file.create_group("masks")
        for name in sorted(masks):
            height, width = map(int, name.split("x"))
            self._masks[name] = _allocate(self._file, f"masks/{name}", (masks[name], height, width), "uint8")

    def write(self, row: int, pixels: SlicePixels) -> None:
        """Write the pixels of one row."""
        header = self._slices[row]
        bucket = header.bucket
        image = pixels.image.reshape(-1, *pixels.image.shape[-2:])
        channels, height, width = image.shape
        found = Bucket(channels, height, width, image.dtype.name)
        if found != bucket or (pixels.mask is not None) != header.has_mask:
            raise PackError(
                f"{header.volume}, frame {header.frame}, slice {header.slice_number} was announced as "
                f"{bucket.name} and read as {found.name}: its file changed meanwhile, or its header is wrong"
            )
        self._images[bucket.name][self._position[row]] = image[0] if bucket.channels == 1 else image
        if pixels.mask is not None:
            if pixels.mask.shape != (height, width) or pixels.mask.dtype != np.uint8:
                raise PackError(
                    f"{header.volume} has a mask {pixels.mask.shape} of {pixels.mask.dtype} for an image "
                    f"{height} x {width}; a mask has the image's size and holds uint8 class indices"
                )
            self._masks[bucket.mask_name][self._mask_position[row]] = pixels.mask
            self._labels_seen |= np.bincount(pixels.mask.ravel(), minlength=256) > 0
        self._low[row], self._high[row] = pixels.intensity_low, pixels.intensity_high
        moments = Moments.of(image)
        for part in ("train", "all") if header.split == "train" else ("all",):
            self._moments[part] = self._moments[part].merge(moments)
        self._written += 1

    def finish(self, name_classes: Callable[[tuple[int, ...]], tuple[str, ...]], header: PackHeader) -> None:
        """Write the index and the attributes, all but the digest."""
        if self._written != len(self._slices):
            raise PackError(f"{self._written} of {len(self._slices)} slices were read")
        self._write_index(len(header.label_names))
        # A pack for evaluation only has no train slices; its own are the only ones there are.
        moments = self._moments["train"] if self._moments["train"].count else self._moments["all"]
        texts = {
            "format": FORMAT,
            "schema_version": canonical_json(SCHEMA_VERSION),
            "dataset": header.dataset,
            "recipe": canonical_json(header.recipe),
            "options": canonical_json(header.options),
            "class_names": canonical_json(name_classes(tuple(np.flatnonzero(self._labels_seen).tolist()))),
            "label_names": canonical_json(header.label_names),
            "intensity": canonical_json(asdict(moments.statistics())),
        }
        for name, text in texts.items():
            _set_text(self._file, name, text)

    def _write_index(self, num_labels: int) -> None:
        slices = self._slices
        codes = {name: code for code, name in enumerate(self._names)}
        columns: dict[str, Array] = {
            "bucket": np.array([codes[one.bucket.name] for one in slices], np.int32),
            "position": self._position,
            "mask_position": self._mask_position,
            "frame": np.array([one.frame for one in slices], np.int32),
            "slice_number": np.array([one.slice_number for one in slices], np.int32),
            "annotated": np.array([one.annotated for one in slices], np.uint8),
            "spacing_mm": np.array([one.spacing_mm for one in slices], np.float32),
            "intensity_low": self._low,
            "intensity_high": self._high,
            "labels": np.array([one.labels for one in slices], np.float32).reshape(len(slices), num_labels),
        }
        group = self._file.create_group("index")
        for name, values in columns.items():
            group.create_dataset(name, data=values)
        for name in ("subject", "volume", "split"):
            texts = [getattr(one, name).encode() for one in slices]
            dtype = h5py.string_dtype("utf-8", max(map(len, texts)))
            group.create_dataset(name, data=np.array(texts, dtype=dtype))


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    group, _, leaf = name.partition("/")
    created = h5py.h5d.create(file.require_group(group).id, leaf.encode(), kind, space, plist)
    return h5py.Dataset(created)


def _set_text(file: h5py.File, name: str, text: str) -> None:
    encoded = text.encode()
    if len(encoded) > _MAX_ATTRIBUTE_BYTES:
        raise PackError(f"{name} takes {len(encoded)} bytes of text; a pack holds {_MAX_ATTRIBUTE_BYTES}")
    file.attrs.create(name, np.bytes_(encoded), dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def _check_slices(slices: Sequence[SliceHeader]) -> None:
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
        if split_of.setdefault(one.subject, one.split) != one.split:
            raise PackError(
                f"subject {one.subject!r} is in the splits {split_of[one.subject]!r} and {one.split!r}: a "
                "model would be tested on what it was trained on. Put every subject into one split."
            )


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
