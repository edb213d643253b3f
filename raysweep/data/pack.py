"""Reading packs: a small index in memory, pixels mapped from the file, shared by every trial of a node."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import (
    ATTRIBUTES,
    DEFAULTS_BEFORE_2,
    FORMAT,
    LABEL_KINDS,
    MASK_ENCODINGS,
    READABLE_VERSIONS,
    SPLITS,
    Bucket,
    LabelKind,
    LabelScope,
    MaskEncoding,
    content_digest,
    text_attribute,
)
from raysweep.data.pack_index import PackIndex, map_dataset, read_index
from raysweep.errors import PackError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class IntensityStatistics:
    """Mean, standard deviation, minimum and maximum over all pixels of the train slices, in stored units."""

    mean: float
    std: float
    min: float
    max: float


class Pack:
    """An open pack, immutable, safe to read from several threads; :func:`open_pack` shares one a process."""

    path: Path
    location: str
    """What other processes and nodes open it by: the path, or the URI that this node's copy is of."""
    digest: str
    dataset: str
    recipe: int
    options: dict[str, Any]
    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    label_kind: LabelKind
    label_scopes: tuple[LabelScope, ...]
    mask_encoding: MaskEncoding
    ignore_label: int | None
    split_rule: str
    intensity: IntensityStatistics
    index: PackIndex
    buckets: tuple[Bucket, ...]
    num_channels: int
    reading: str = ""
    """How a view of the pack reads it; empty for the pack itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        with h5py.File(path, "r", locking=False) as file:
            self._read_attributes(file)
            self.index = read_index(file)
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
        """Return the mask of one slice, (H, W) uint8: a read-only view on the mapped file.

        ``mask_encoding`` says what its numbers are: 'index', class indices; 'bits', bit k set where class k + 1 is.
        ``ignore_label``, if there is one, marks pixels that are to be left out.

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

    def masks(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return masks of slices of one bucket, (B, H, W) uint8 encoded as ``mask`` says: a copy.

        Raises:
            PackError: if the slices are not all in one bucket, or one has no mask.
        """
        for row in rows[self.index.mask_position[rows] < 0]:
            self.mask(int(row))  # which says so
        buckets = np.unique(self.index.bucket[rows])
        if len(buckets) != 1:
            raise PackError(f"rows of {self.path} are in {len(buckets)} buckets; they must share one shape and type")
        stored = self._masks[self.buckets[buckets[0]].mask_name]
        copied: npt.NDArray[np.uint8] = stored[self.index.mask_position[rows]]
        return copied

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
        version = self._schema_version(file)
        added = DEFAULTS_BEFORE_2 if version == 1 else {}
        missing = [name for name in ATTRIBUTES if name not in file.attrs and name not in added]
        if missing:
            raise ValueError(f"it lacks the attributes {', '.join(missing)}")

        self.digest = text_attribute(file, "digest")
        self.dataset = text_attribute(file, "dataset")
        self.recipe = json.loads(text_attribute(file, "recipe"))
        self.options = json.loads(text_attribute(file, "options"))
        self.class_names = tuple(json.loads(text_attribute(file, "class_names")))
        self.label_names = tuple(json.loads(text_attribute(file, "label_names")))
        self.intensity = IntensityStatistics(**json.loads(text_attribute(file, "intensity")))
        meaning = added or {name: json.loads(text_attribute(file, name)) for name in DEFAULTS_BEFORE_2}
        self.label_kind, self.mask_encoding = meaning["label_kind"], meaning["mask_encoding"]
        self.ignore_label, self.split_rule = meaning["ignore_label"], meaning["split_rule"]
        self.label_scopes = tuple(meaning["label_scopes"] or ["subject"] * len(self.label_names))
        if self.label_kind not in LABEL_KINDS or self.mask_encoding not in MASK_ENCODINGS:
            raise ValueError(f"its labels are {self.label_kind!r} and its masks {self.mask_encoding!r}")

    def _schema_version(self, file: h5py.File) -> int:
        missing = [name for name in ("format", "schema_version") if name not in file.attrs]
        if missing:
            raise ValueError(f"it lacks the attributes {', '.join(missing)}")
        if text_attribute(file, "format") != FORMAT:
            raise ValueError(f"its format is {text_attribute(file, 'format')!r}, not {FORMAT!r}")
        version = json.loads(text_attribute(file, "schema_version"))
        if version not in READABLE_VERSIONS:
            raise PackError(
                f"{self.path} has schema version {version}; this raysweep reads versions "
                f"{' and '.join(map(str, READABLE_VERSIONS))}. "
                "Pack the data set again, or use the raysweep that wrote it."
            )
        return int(version)

    def _map_buckets(self, file: h5py.File) -> None:
        pixels = np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r"))
        names = sorted(file["images"])
        self.buckets = tuple(Bucket.parse(name) for name in names)
        if len({bucket.channels for bucket in self.buckets}) != 1:
            raise ValueError(f"its buckets {', '.join(names)} must exist and share one number of channels")
        self.num_channels = self.buckets[0].channels
        self._images: list[Array] = []
        for bucket, name in zip(self.buckets, names, strict=True):
            stored = map_dataset(file, f"images/{name}", np.dtype(bucket.dtype), pixels)
            self._images.append(stored.reshape(-1, bucket.channels, bucket.height, bucket.width))
        self._masks: dict[str, npt.NDArray[np.uint8]] = {}
        for name in sorted(file["masks"]):
            height, width = map(int, name.split("x"))
            stored = map_dataset(file, f"masks/{name}", np.dtype(np.uint8), pixels)
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
