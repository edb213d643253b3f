"""Reading packs: a small index in memory, pixels mapped from the file, shared by every trial of a node."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import (
    ATTRIBUTES,
    COLUMNS,
    FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    Bucket,
    content_digest,
    text_attribute,
)
from raysweep.errors import PackError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class IntensityStatistics:
    """Mean, standard deviation, minimum and maximum over all pixels of the train slices, in stored units."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class PackIndex:
    """One row a slice, in read-only columns of N rows; rows never change once a pack is written."""

    bucket: Array
    """Bucket code, int."""
    position: Array
    """Position inside the bucket, int64."""
    mask_position: Array
    """Position among the masks of the same height and width, int64; -1 where the slice has no mask."""
    subject: Array
    """Who the slice belongs to, str; all slices of a subject are in one split."""
    volume: Array
    """The 3-D image (or the single 2-D image) the slice belongs to, str, unique within the pack."""
    frame: Array
    """Time point, numbered as the data set numbers it, int; -1 where there is no time."""
    slice_number: Array
    """Position along the through-plane axis, counted from 0, int."""
    split: Array
    """'train', 'val' or 'test', str."""
    annotated: Array
    """Whether the slice has a ground truth, bool."""
    spacing_mm: Array
    """(N, 2) float32, distance of rows and of columns in mm; NaN if unknown."""
    intensity_low: Array
    """0.5 percentile of the slice's 3-D image at its time point, float32, in stored units."""
    intensity_high: Array
    """99.5 percentile of the same; larger than intensity_low unless the image is constant."""
    labels: Array
    """(N, L) float32 label vectors; NaN where a label is unknown."""


class Pack:
    """An open pack, immutable, safe to read from several threads; :func:`open_pack` shares one a process."""

    path: Path
    digest: str
    dataset: str
    recipe: int
    options: dict[str, Any]
    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    intensity: IntensityStatistics
    index: PackIndex
    buckets: tuple[Bucket, ...]
    num_channels: int

    def __init__(self, path: Path) -> None:
        self.path = path
        with h5py.File(path, "r", locking=False) as file:
            self._read_attributes(file)
            self.index = _read_index(file)
            self._map_buckets(file)
        self._check_positions()

    @classmethod
    def open(cls, path: str | Path) -> Pack:
        """Open a pack: read its index, check that the file holds all its pixels, and map them unread.

        Raises:
            PackError: if the file is missing, not a pack, of another schema version, truncated or corrupt.
        """
        path = Path(path)
        if not path.is_file():
            raise PackError(f"{path} does not exist. Write it with `raysweep pack`, or correct the path.")
        try:
            return cls(path.resolve())
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise PackError(
                f"{path} is not a readable pack: {reason}. It is truncated, corrupt, or not written by "
                "raysweep: copy it again from where it is whole, or pack the data set again."
            ) from error

    def __len__(self) -> int:
        return len(self.index.bucket)

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}, dataset={self.dataset!r}, slices={len(self)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (self.path,)

    def image(self, row: int) -> Array:
        """Return one slice, (C, H, W) in stored dtype and units: a read-only view on the mapped file."""
        view: Array = self._images[self.index.bucket[row]][self.index.position[row]]
        return view

    def images(self, rows: npt.NDArray[np.int64]) -> Array:
        """Return slices of one bucket, (B, C, H, W) in stored dtype and units: a copy.

        Raises:
            PackError: if the slices are not all in one bucket.
        """
        buckets = np.unique(self.index.bucket[rows])
        if len(buckets) != 1:
            raise PackError(f"rows of {self.path} are in {len(buckets)} buckets; they must share one shape and type")
        stored = self._images[buckets[0]]
        copied: Array = stored[self.index.position[rows]]
        return copied

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """Return the class indices of one slice, (H, W) uint8: a read-only view on the mapped file.

        Raises:
            PackError: if the slice has no mask.
        """
        position = self.index.mask_position[row]
        if position < 0:
            raise PackError(
                f"row {row} of {self.path} ({self.index.volume[row]}, frame {self.index.frame[row]}, slice "
                f"{self.index.slice_number[row]}) has no mask; index.mask_position is -1 for such rows"
            )
        view: npt.NDArray[np.uint8] = self._masks[self.buckets[self.index.bucket[row]].mask_name][position]
        return view

    def shape(self, row: int) -> tuple[int, int]:
        """Return the (height, width) of one slice in pixels."""
        bucket = self.buckets[self.index.bucket[row]]
        return bucket.height, bucket.width

    def select(self, split: str | None = None, annotated: bool | None = None) -> npt.NDArray[np.int64]:
        """Return the rows, ascending, of the slices of one split (or all), annotated or not (or both)."""
        if split is not None and split not in SPLITS:
            raise PackError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.index.split == split
        if annotated is not None:
            chosen &= self.index.annotated == annotated
        return np.flatnonzero(chosen).astype(np.int64)

    def verify(self) -> None:
        """Read the whole file and compare its content with its digest.

        Raises:
            PackError: if they differ, naming the file and both digests.
        """
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                found = content_digest(file)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise PackError(f"{self.path} can no longer be read: {error}") from error
        if found != self.digest:
            raise PackError(
                f"{self.path} is corrupt: its stored digest is {self.digest}, its content has {found}. "
                "Copy it again from where it is whole, or pack the data set again."
            )

    def _read_attributes(self, file: h5py.File) -> None:
        missing = [name for name in ATTRIBUTES if name not in file.attrs]
        if missing:
            raise ValueError(f"it lacks the attributes {', '.join(missing)}")
        if text_attribute(file, "format") != FORMAT:
            raise ValueError(f"its format is {text_attribute(file, 'format')!r}, not {FORMAT!r}")
        version = json.loads(text_attribute(file, "schema_version"))
        if version != SCHEMA_VERSION:
            raise PackError(
                f"{self.path} has schema version {version}; this raysweep reads version {SCHEMA_VERSION}. "
                "Pack the data set again, or use the raysweep that wrote it."
            )
        self.digest = text_attribute(file, "digest")
        self.dataset = text_attribute(file, "dataset")
        self.recipe = json.loads(text_attribute(file, "recipe"))
        self.options = json.loads(text_attribute(file, "options"))
        self.class_names = tuple(json.loads(text_attribute(file, "class_names")))
        self.label_names = tuple(json.loads(text_attribute(file, "label_names")))
        self.intensity = IntensityStatistics(**json.loads(text_attribute(file, "intensity")))

    def _map_buckets(self, file: h5py.File) -> None:
        pixels = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r"))
        names = sorted(file["images"])
        self.buckets = tuple(Bucket.parse(name) for name in names)
        if len({bucket.channels for bucket in self.buckets}) != 1:
            raise ValueError(f"its buckets {', '.join(names)} must exist and share one number of channels")
        self.num_channels = self.buckets[0].channels
        self._images: list[Array] = []
        for bucket, name in zip(self.buckets, names, strict=True):
            stored = _map_dataset(file, f"images/{name}", np.dtype(bucket.dtype), pixels)
            self._images.append(stored.reshape(-1, bucket.channels, bucket.height, bucket.width))
        self._masks: dict[str, npt.NDArray[np.uint8]] = {}
        for name in sorted(file["masks"]):
            height, width = map(int, name.split("x"))
            stored = _map_dataset(file, f"masks/{name}", np.dtype(np.uint8), pixels)
            self._masks[name] = stored.reshape(-1, height, width)

    def _check_positions(self) -> None:
        index = self.index
        if len(self) and not 0 <= index.bucket.min() <= index.bucket.max() < len(self.buckets):
            raise ValueError("its index names a bucket that does not exist")
        for code, bucket in enumerate(self.buckets):
            rows = index.bucket == code
            num_masks = len(self._masks.get(bucket.mask_name, ()))
            inside = (index.position[rows] >= 0) & (index.position[rows] < len(self._images[code]))
            inside &= (index.mask_position[rows] >= -1) & (index.mask_position[rows] < num_masks)
            if not inside.all():
                raise ValueError(f"its index points outside the bucket {bucket.name}")
        unknown = sorted(set(np.unique(index.split).tolist()) - set(SPLITS))
        if unknown:
            raise ValueError(f"its index has the splits {unknown}; allowed are {', '.join(SPLITS)}")


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset that lies inside this very file: a link could lead to another file of the reader's."""
    group, _, leaf = name.partition("/")
    if not isinstance(file[group].get(leaf, getlink=True), h5py.HardLink):
        raise ValueError(f"/{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.id.get_create_plist().get_external_count():
        raise ValueError(f"/{name} is not a dataset inside the file")
    return dataset


def _map_dataset(file: h5py.File, name: str, dtype: np.dtype[Any], pixels: Array) -> Array:
    dataset = _dataset(file, name)
    offset = dataset.id.get_offset()
    if offset is None or dataset.dtype != dtype:
        raise ValueError(f"/{name} is not a contiguous dataset of {dtype}")
    if offset + dataset.nbytes > len(pixels):
        raise ValueError(f"/{name} ends at byte {offset + dataset.nbytes}, the file at byte {len(pixels)}")
    mapped: Array = pixels[offset : offset + dataset.nbytes].view(dtype).reshape(dataset.shape)
    return mapped


def _read_index(file: h5py.File) -> PackIndex:
    columns = {}
    for name, (kind, num_dimensions) in COLUMNS.items():
        dataset = _dataset(file, f"index/{name}")
        if dataset.dtype.kind != kind or dataset.ndim != num_dimensions:
            raise ValueError(f"/index/{name} holds {dataset.dtype} in {dataset.ndim} dimensions")
        values = dataset[...]
        if kind == "S":
            values = _decode(values)
        columns[name] = values.astype(bool) if name == "annotated" else values
        columns[name].setflags(write=False)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"its index columns have different lengths: {sorted(lengths)}")
    return PackIndex(**{field.name: columns[field.name] for field in fields(PackIndex)})


def _decode(values: Array) -> Array:
    try:
        return values.astype(np.str_)  # ASCII only, many times faster
    except UnicodeDecodeError:
        return np.char.decode(values, "utf-8")


_opened: dict[Path, tuple[tuple[int, int], Pack]] = {}
_opened_lock = threading.Lock()


def open_pack(path: str | Path) -> Pack:
    """Return the process's one open pack of a file; a file that changed on disk is opened again.

    Raises:
        PackError: as :meth:`Pack.open`.
    """
    resolved = Path(path).resolve()
    with _opened_lock:
        try:
            status = resolved.stat()
        except OSError:
            return Pack.open(path)
        version = (status.st_mtime_ns, status.st_size)
        known = _opened.get(resolved)
        if known is None or known[0] != version:
            known = (version, Pack.open(resolved))
            _opened[resolved] = known
        return known[1]
